"""Randomness is a function of (seed, stream, step, ...): nothing stored, nothing reused."""

import zlib

import jax
import numpy as np


def number(x: int | str) -> int:
  """A stable 31-bit number for a name; an int maps to itself (mod 2**31)."""
  return (zlib.crc32(x.encode()) if isinstance(x, str) else int(x)) & 0x7FFFFFFF


def key(seed: int, stream: str, *ids: int | str) -> jax.Array:
  """A jax key for this stream and these ids (say step, task, sample)."""
  k = jax.random.fold_in(jax.random.key(seed), number(stream))
  for i in ids:
    k = jax.random.fold_in(k, number(i))
  return k


def host(seed: int, stream: str, *ids: int | str) -> np.random.Generator:
  """The numpy counterpart of `key`, for host code."""
  return np.random.default_rng([int(seed) & 0x7FFFFFFF, number(stream), *map(number, ids)])
