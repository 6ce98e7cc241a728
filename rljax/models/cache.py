"""The key/value cache, and the one attention that reads it.

What a cache is: `Cache(k, v)`, each [L, B, K, C, H]: for each of L layers and B rows, the rotated
keys and the values of up to C positions (the capacity), K kv heads of size H. The index on the C
axis *is* the position in the row (0, 1, 2, ...), so there is no pointer and no length inside: who
decodes passes positions, and everything at or beyond a row's first new position is not seen,
whatever it holds. A row is therefore forgotten, or replaced, by starting again at position 0; rows
may be at different positions; copying rows (axis 1) forks them; padding behind a prompt is never
seen. A layer with a sliding window keeps all positions and masks the old ones.

With 8 bits, `k` and `v` are int8 and every head and position has a float32 scale [L, B, K, C, 1]:
no number is off by more than 1/254 of the largest beside it.

A model whose layers are unrolled has a tuple of caches instead, one per layer and without the L
axis: attention over a slice of a stacked array would be compiled as a plain loop on a CPU.

The sampler holds its cache in *segments*, a tuple of these for consecutive positions: attention
over the first few reads only those, without a copy. Positions are contiguous in memory per head,
which is how attention reads them (on a CPU 18 times as fast as with heads innermost).
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from rljax.types import Array

MASKED = -1e30  # a score that takes no part; -inf would make a row that sees nothing NaN
SEGMENT = 64  # positions of the first segments


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values, see above; of one layer without the leading axis."""

  k: Array
  v: Array
  k_scale: Array | None = None
  v_scale: Array | None = None

  def quantized(self) -> "Cache":
    """The same in 8 bits."""
    return self if self.k_scale is not None else Cache(*_codes(self.k, self.v))


def _codes(*arrays):
  scales = [jnp.max(jnp.abs(x), axis=-1, keepdims=True).astype(jnp.float32) / 127 for x in arrays]
  codes = [jnp.round(x / jnp.where(s > 0, s, 1)).astype(jnp.int8) for x, s in zip(arrays, scales)]
  return *codes, *scales


Segment = Cache | tuple[Cache, ...]
Segments = tuple[Segment, ...]


def empty(cfg, rows: int, capacity: int, bits: int = 0) -> Segment:
  """A segment of a `TransformerConfig` with nothing in it.

  Args:
    bits: 8, or 0 = those of the activation dtype.
  """
  def one(*layers):
    shape = (*layers, rows, cfg.kv_heads, capacity, cfg.head_dim)
    cache = Cache(jnp.zeros(shape, cfg.dtype), jnp.zeros(shape, cfg.dtype))
    return cache.quantized() if bits else cache
  return one(cfg.layers) if cfg.scan else tuple(one() for _ in range(cfg.layers))


def segments(capacity: int) -> tuple[int, ...]:
  """Capacities of the segments for so many positions: four of 64, then 256, 512, ..."""
  sizes: list[int] = []
  while sum(sizes) < capacity:
    size = SEGMENT if len(sizes) < 4 else sum(sizes)
    sizes.append(min(size, capacity - sum(sizes)))
  return tuple(sizes)


def size(segment: Segment) -> int:
  """C, the positions a segment has room for."""
  return jax.tree.leaves(segment)[0].shape[-2]


def row_axis(x: Array) -> int:
  """Which axis of a cache's array counts the rows."""
  return x.ndim - 4


def like(segment: Segment, new: Segment) -> Segment:
  """The new keys and values in the form of the segment's."""
  a_cache = lambda x: isinstance(x, Cache)
  one = lambda old, n: n.quantized() if old.k_scale is not None else n
  return jax.tree.map(one, segment, new, is_leaf=a_cache)


def covering(cache: Segments, positions: int) -> Segments:
  """The first segments, as many as hold so many positions."""
  ends = list(itertools.accumulate(map(size, cache)))
  return cache[:next(n for n, end in enumerate(ends, 1) if end >= positions)]


def _pieces(sources: Segments, targets: Segments):
  """(source segment, its span, target segment, offset in it) that cover all common positions."""
  starts = lambda cache: list(itertools.accumulate(map(size, cache), initial=0))
  a, b = starts(sources), starts(targets)
  for i, j in itertools.product(range(len(sources)), range(len(targets))):
    low, high = max(a[i], b[j]), min(a[i + 1], b[j + 1])
    if low < high:
      yield i, slice(low - a[i], high - a[i]), j, low - b[j]


def copy_row(source: Segments, row: Array, target: Segments, to: Array) -> Segments:
  """Row `to` of the target becomes row `row` of the source, as far as the source reaches."""
  out, source = list(target), [like(target[0], segment) for segment in source]
  for i, span, j, offset in _pieces(source, target):
    def put(old, new, span=span, offset=offset):
      one = jax.lax.dynamic_slice_in_dim(new, row, 1, axis=row_axis(new))[..., span, :]
      start = [jnp.int32(0)] * old.ndim
      start[row_axis(old)], start[-2] = to.astype(jnp.int32), jnp.int32(offset)
      return jax.lax.dynamic_update_slice(old, one, start)
    out[j] = jax.tree.map(put, out[j], source[i])
  return tuple(out)


def take_rows(cache: Segments, rows_B: Array) -> Segments:
  """Copies of these rows."""
  return jax.tree.map(lambda x: jnp.take(x, rows_B, axis=row_axis(x), mode="clip"), cache)


def put_rows(cache: Segments, rows: Segments, rows_B: Array) -> Segments:
  """The inverse of `take_rows`; rows that do not exist are left out."""
  def put(old, new):
    return old.at[(*(slice(None),) * row_axis(old), rows_B)].set(new, mode="drop")
  return jax.tree.map(put, cache, rows)


def write(cache: Segments, new: Segment, start_B: Array, length_B: Array,
          rows_B: Array | None = None) -> Segments:
  """Puts the first `length_B` positions of each row of `new` behind the `start_B` of the cache.

  Args:
    rows_B: rows of the cache to write to; default row b. A row that does not exist is left out.
  """
  B, S = start_B.shape[0], size(new)
  rows_B1 = (jnp.arange(B) if rows_B is None else rows_B)[:, None]
  at_1S = jnp.arange(S)[None, :]
  position_BS = start_B[:, None] + at_1S
  out, first, new = [], 0, like(cache[0], new)
  for segment in cache:
    inside_BS = (at_1S < length_B[:, None]) & (position_BS >= first)
    index_BS = jnp.where(inside_BS, position_BS - first, size(segment))  # outside: dropped

    def put(old, n, index=index_BS):
      layers = (slice(None),) * row_axis(old)
      n_BSLKH = jnp.moveaxis(n, (-4, -2), (0, 1))  # indexed axes come first
      return old.at[(*layers, rows_B1, slice(None), index)].set(n_BSLKH, mode="drop")
    out.append(jax.tree.map(put, segment, new))
    first += size(segment)
  return tuple(out)


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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shared:
  """Rows whose caches begin alike: what a group shares is read once for all of its rows.

  Attributes:
    length_B: int32, positions from 0 on that are read for the row's group; 0 = in no group. They
      end where a segment ends.
    rows_GR: int32, the rows of each group, B = none. The cache of the first is read. The groups
      that share most come first.
    count_N: int32, per segment of the cache, how many groups share it.
  """

  length_B: Array
  rows_GR: Array
  count_N: Array


def before(start_B: Array, first: int, size: int, position_BS: Array, window: Array | int = 0,
           shared: Shared | None = None) -> Array:
  """bool [B, S or 1, C]: which of `size` cached positions from `first` on new ones see: those
  before the row's `start_B`, not shared and, with a window, near enough to the new position."""
  at_1C = first + jnp.arange(size)[None, :]
  before_B1C = at_1C[:, None, :] < start_B[:, None, None]
  if shared is not None:
    before_B1C &= at_1C[:, None, :] >= shared.length_B[:, None, None]
  if isinstance(window, int) and not window:
    return before_B1C
  return before_B1C & visible(position_BS, at_1C, window)


def attend(q_BSNH: Array, blocks: Sequence[tuple[Cache, Array]], *, scale: float,
           softcap: float = 0.0, by_rows: bool = False, shared: Shared | None = None) -> Array:
  """Softmax attention over several blocks of keys as if they were one, without joining them.

  Decoding reads the segments of a cache and the new keys as blocks, so that nothing is copied.

  Args:
    q_BSNH: N query heads, a multiple of the K kv heads: head n reads kv head n // (N / K).
    blocks: (keys and values of one layer [B, K, C, H], mask bool [B or 1, S or 1, C]).
    scale: multiplies the scores. softcap: c in c tanh(scores / c), before the mask; 0 = off.
    by_rows: of the blocks between the first and the last, in which many rows may see nothing, read
      those that see something one by one, while they are not many.
    shared: with `by_rows`, of whose common positions no mask tells.

  Returns:
    [B, S, N, H]. Scores and softmax are float32. A query that sees nothing gets a finite value.
  """
  B, S, N, H = q_BSNH.shape
  K = blocks[0][0].k.shape[1]
  q = jnp.transpose(q_BSNH.reshape(B, S, K, N // K, H), (0, 2, 3, 1, 4))
  q = q.reshape(B, K, N // K * S, H)
  if by_rows and (len(blocks) > 2 or shared is not None):
    out = _attend_by_rows(q, blocks, scale, softcap, shared)
  else:
    scores = [_scores(q, *block, scale, softcap) for block in blocks]
    joined = scores[0] if len(scores) == 1 else jnp.concatenate(scores, axis=-1)
    weights = jax.nn.softmax(joined, axis=-1)
    out, at = 0, 0
    for cache, _ in blocks:
      out = out + _values(weights[..., at:at + cache.v.shape[2]], cache, q.dtype)
      at += cache.v.shape[2]
  out = jnp.transpose(out.reshape(B, K, N // K, S, H), (0, 3, 1, 2, 4))
  return out.reshape(B, S, N, H)


def _scores(q_BKQH, cache, mask_BSC, scale, softcap):
  """[B, K, Q, C], float32; Q = query heads of a kv head, times S."""
  score = scale * jnp.einsum("bkqh,bkch->bkqc", q_BKQH, cache.k.astype(q_BKQH.dtype),
                             preferred_element_type=jnp.float32)
  if cache.k_scale is not None:
    score = score * jnp.swapaxes(cache.k_scale, -1, -2)
  if softcap:
    score = softcap * jnp.tanh(score / softcap)
  B, K, Q, C = score.shape
  score = score.reshape(B, K, Q // mask_BSC.shape[1], mask_BSC.shape[1], C)
  return jnp.where(mask_BSC[:, None, None], score, MASKED).reshape(B, K, Q, C)


def _values(weights_BKQC, cache, dtype):
  if cache.v_scale is not None:
    weights_BKQC = weights_BKQC * jnp.swapaxes(cache.v_scale, -1, -2)
  return jnp.einsum("bkqc,bkch->bkqh", weights_BKQC.astype(dtype), cache.v.astype(dtype))


def _attend_by_rows(q_BKQH, blocks, scale, softcap, shared):
  """[B, K, Q, H]: softmax over the blocks, as (values, sum, maximum) of those read so far."""
  B, K, Q, H = q_BKQH.shape

  def read(q, cache, mask, seen):
    score = _scores(q, cache, mask, scale, softcap)
    top = jnp.maximum(seen[..., -1:], jnp.max(score, axis=-1, keepdims=True))
    weights = jnp.exp(score - top)
    new = jnp.concatenate([_values(weights, cache, q.dtype).astype(jnp.float32),
                           jnp.sum(weights, axis=-1, keepdims=True)], axis=-1)
    return jnp.concatenate([jnp.exp(seen[..., -1:] - top) * seen[..., :-1] + new, top], axis=-1)

  def for_groups(n, cache, seen):
    """The n-th segment, for the groups that share it: a group is one row of many queries."""
    mask = jnp.ones((1, 1, cache.k.shape[2]), bool)

    def turn(carry):
      g, seen = carry
      row = shared.rows_GR[g]
      join = lambda x: jnp.moveaxis(
          jnp.take(x, row, axis=0, mode="clip"), 0, 1).reshape(1, K, -1, x.shape[-1])
      leader = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, row[0], 1), cache)
      new = read(join(q_BKQH), leader, mask, join(seen))
      new = jnp.moveaxis(new.reshape(K, len(row), Q, H + 2), 1, 0)
      return g + 1, seen.at[row].set(new, mode="drop")
    return jax.lax.while_loop(
        lambda c: c[0] < shared.count_N[n], turn, (jnp.int32(0), seen))[1]

  def for_some(needs_B, cache, mask, seen):
    """The rows that see something of it, one by one if they are not many."""
    count, order = jnp.sum(needs_B), jnp.argsort(~needs_B)
    few = 2 * count <= B

    def some(carry):
      turn, seen = carry  # a row that sees nothing stays as it is
      row = order[turn]
      one = lambda x: jax.lax.dynamic_slice_in_dim(x, row, 1)
      new = read(*jax.tree.map(one, (q_BKQH, cache, mask, seen)))
      return turn + 1, jax.lax.dynamic_update_slice_in_dim(seen, new, row, 0)
    # Two loops, of which one takes no turn: unlike a conditional they never copy the cache.
    _, seen = jax.lax.while_loop(lambda c: few & (c[0] < count), some, (jnp.int32(0), seen))
    return jax.lax.while_loop(
        lambda c: c[0], lambda c: (False, read(q_BKQH, cache, mask, c[1])), (~few, seen))[1]

  nothing = jnp.zeros((B, K, Q, H + 2)).at[..., -1].set(MASKED)
  seen = read(q_BKQH, *blocks[-1], nothing)  # each query sees itself
  for n, (cache, mask) in enumerate(blocks[:-1]):
    if shared is not None:
      seen = for_groups(n, cache, seen)
    if n == 0 and shared is None:  # of the first one all see something
      seen = read(q_BKQH, cache, mask, seen)
    else:
      seen = for_some(jnp.any(mask, axis=(1, 2)), cache, mask, seen)
  return (seen[..., :-2] / seen[..., -2:-1]).astype(q_BKQH.dtype)
