"""Tests run on the CPU; rank promotion is an error; the compilation cache is shared between runs."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
