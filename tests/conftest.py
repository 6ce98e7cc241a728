"""Tests run on the CPU with fast compilation; rank promotion is an error."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The TPU compiler is used without a TPU: quietly, and by several test processes at a time.
for key, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
                   ("TPU_WORKER_HOSTNAMES", "localhost"), ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")):
  os.environ.setdefault(key, value)
# Compiling dominates tests of tiny arrays; without LLVM's optimisations it takes a third as long.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import jax  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same tiny programs, in several processes.
jax.config.update("jax_compilation_cache_dir",
                  os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_addoption(parser):
  parser.addoption("--kills", type=int, default=1, help="how often tests/train/kill_test.py kills")


def pytest_collection_modifyitems(items):
  """Whole runs first: two processes share the modules, and a long one at the end keeps one idle."""
  items.sort(key=lambda item: item.path.parent.name != "train")
