"""The key/value cache, and the one attention that reads it.

What a cache is: `Cache(k, v)`, each [L, B, C, K, H]: for each of L layers and B rows, the rotated
keys and the values of up to C positions (the capacity), K kv heads of size H. The index on the C
axis *is* the position in the row (0, 1, 2, ...), so there is no pointer and no length inside: who
decodes passes positions, and everything at or beyond a row's first new position is not seen,
whatever it holds. A row is therefore forgotten, or replaced, by starting again at position 0; rows
may be at different positions; copying rows (axis 1) forks them; padding behind a prompt is never
seen. A layer with a sliding window keeps all positions and masks the old ones.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rljax.types import Array

MASKED = -1e30  # a score that takes no part; -inf would make a row that sees nothing NaN


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values of all layers, see above; of one layer without the leading axis."""

  k: Array
  v: Array

  @property
  def capacity(self) -> int:
    """C, the number of positions there is room for."""
    return self.k.shape[-3]


def empty(cfg, rows: int, capacity: int) -> Cache:
  """A cache of a `TransformerConfig` with nothing in it (zeros of the activation dtype)."""
  shape = (cfg.layers, rows, capacity, cfg.kv_heads, cfg.head_dim)
  return Cache(jnp.zeros(shape, cfg.dtype), jnp.zeros(shape, cfg.dtype))


def widen(cache: Cache, capacity: int) -> Cache:
  """The same cache with room for `capacity` positions."""
  room = capacity - cache.capacity
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))), cache)


def write(cache: Cache, new: Cache, positions_BS: Array) -> Cache:
  """Puts `new` (capacity S) at these positions of each row; one update for all layers.

  A position outside [0, C) writes nothing, so a row that is not to change is given position C.
  """
  row_B1 = jnp.arange(positions_BS.shape[0])[:, None]
  return jax.tree.map(
      lambda old, n: old.at[:, row_B1, positions_BS].set(n, mode="drop"), cache, new)


def visible(query_BS: Array, key_BC: Array, window: Array | int = 0) -> Array:
  """bool [B, S, C]: the key's position is not after the query's, and nearer than the window.

  Args:
    query_BS, key_BC: int positions; either may have a first dimension of 1.
    window: positions seen, the query's own included; 0 = all. Traced or static.
  """
  gap_BSC = query_BS[:, :, None] - key_BC[:, None, :]
  seen = gap_BSC >= 0
  if isinstance(window, int):
    return seen & (gap_BSC < window) if window else seen
  return seen & ((gap_BSC < window) | (window == 0))


def cached_visible(positions_BS: Array, capacity: int, window: Array | int = 0) -> Array:
  """bool [B, S or 1, C]: which cached positions new ones see: those before the row's first new
  position and, with a window, near enough."""
  at_1C = jnp.arange(capacity)[None, :]
  before_B1C = at_1C[:, None, :] < positions_BS[:, :1, None]
  if isinstance(window, int) and not window:
    return before_B1C
  return before_B1C & visible(positions_BS, at_1C, window)


def attend(q_BSNH: Array, blocks: Sequence[tuple[Array, Array, Array]], *, scale: float,
           softcap: float = 0.0) -> Array:
  """Softmax attention over several blocks of keys as if they were one, without joining them.

  Decoding reads the cache and the new keys as two blocks, so that nothing copies the cache.

  Args:
    q_BSNH: N query heads, a multiple of the K kv heads: head n reads kv head n // (N / K).
    blocks: (keys [B, C, K, H], values [B, C, K, H], mask bool [B or 1, S or 1, C]).
    scale: multiplies the scores. softcap: c in c tanh(scores / c), before the mask; 0 = off.

  Returns:
    [B, S, N, H]. Scores and softmax are float32. A query that sees nothing gets a finite value.
  """
  B, S, N, H = q_BSNH.shape
  K = blocks[0][0].shape[2]
  q = q_BSNH.reshape(B, S, K, N // K, H)
  scores = []
  for k, _, mask in blocks:
    score = jnp.einsum("bskgh,bckh->bkgsc", q, k, preferred_element_type=jnp.float32) * scale
    if softcap:
      score = softcap * jnp.tanh(score / softcap)
    scores.append(jnp.where(mask[:, None, None], score, MASKED))
  joined = scores[0] if len(scores) == 1 else jnp.concatenate(scores, axis=-1)
  weights = jax.nn.softmax(joined, axis=-1).astype(blocks[0][1].dtype)
  out, at = 0, 0
  for (_, v, _), score in zip(blocks, scores):
    w = weights[..., at:at + score.shape[-1]]
    out, at = out + jnp.einsum("bkgsc,bckh->bskgh", w, v), at + score.shape[-1]
  return out.reshape(B, S, N, H)
