"""Randomness is a function of (seed, stream, step, ...): nothing stored, nothing reused."""

import zlib
from collections.abc import Sequence

import jax
import numpy as np


def number(x: int | str) -> int:
  """A stable 31-bit number for a name; an int maps to itself (mod 2**31)."""
  return (zlib.crc32(x.encode()) if isinstance(x, str) else int(x)) & 0x7FFFFFFF


def key(seed: int, stream: str, *ids: int | str) -> jax.Array:
  """A jax key for this stream and these ids (say step, task, sample)."""
  return fold(jax.random.key(seed), stream, *ids)


def fold(key: jax.Array, *ids: int | str) -> jax.Array:
  """A key of its own for these ids (say turn, role), from a key."""
  for i in ids:
    key = jax.random.fold_in(key, number(i))
  return key


def integers(key: jax.Array, ids: Sequence[tuple[int, int]]) -> list[int]:
  """A 31-bit number per pair of ids, for host code that a phase's key must decide."""
  base = [int(x) for x in np.asarray(jax.random.key_data(key)).reshape(-1)]
  draw = lambda pair: np.random.SeedSequence([*base, *map(number, pair)]).generate_state(1)[0]
  return [int(draw(pair)) & 0x7FFFFFFF for pair in ids]


def host(seed: int, stream: str, *ids: int | str) -> np.random.Generator:
  """The numpy counterpart of `key`, for host code."""
  return np.random.default_rng([int(seed) & 0x7FFFFFFF, number(stream), *map(number, ids)])
