"""The device side of the sampler: S slots, each somewhere in a sequence of its own. Pure functions.

A slot holds a context (keys and values of the tokens read so far), the hidden state that predicts
the next token, and the response being sampled. Three functions change slots, all of fixed shapes:

  prefill   reads new prompts, each once, and hands every one to the slots that answer it
  extend    reads more tokens behind what some slots hold already
  chunk     draws tokens in all live slots until enough of them have finished

Each is jitted with its slots donated. Nothing a slot computes depends on its neighbours: prompts
are read in blocks of one fixed shape, and every draw has its request's own key.

Letters: S slots, R prompts of at most P tokens, T tokens of a response, D width of the model.
"""

import functools
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from rljax import packed
from rljax.models import cache as cache_lib
from rljax.sampling import decode
from rljax.types import Array, PyTree

LOOK = 2  # steps between two looks of one device at the others


@flax.struct.dataclass
class Slots:
  """State of S slots.

  Attributes:
    cache: segments (`rljax.models.cache`), rows are slots.
    context_S: int32, tokens in the cache.
    hidden_SD: what predicts the next token. prompt_hidden_SD: the same right behind the prompt, so
      that another slot can answer the prompt without reading it again.
    settings: of the request in the slot.
    live_S: bool, still sampling. stopped_S: bool, ended by a stop token or sequence.
    length_S: int32, tokens of the response so far.
    tokens_ST, logp_ST, raw_logp_ST, entropy_ST, top_ids_STA, top_logp_STA: the response, see
      `decode.Draw`. Forced tokens lie in tokens_ST beforehand.
    used_1: int32 [1], live slots summed over all steps; rows_1: the slots that were decoded.
  """

  cache: tuple[cache_lib.Cache, ...]
  context_S: Array
  hidden_SD: Array
  prompt_hidden_SD: Array
  settings: decode.Settings
  live_S: Array
  stopped_S: Array
  length_S: Array
  tokens_ST: Array
  logp_ST: Array
  raw_logp_ST: Array
  entropy_ST: Array
  top_ids_STA: Array
  top_logp_STA: Array
  used_1: Array
  rows_1: Array


@flax.struct.dataclass
class Orders:
  """What `prefill` and `extend` are to do; A <= S orders, the rest is padding.

  Attributes:
    tokens_RP, length_R: int32 tokens to read, right-padded.
    rows_1: int32 [1], how many of the R rows are real.
    slot_A: int32, the slot of each order; S for padding.
    row_A: int32, ascending among orders without a source: the row of tokens the slot gets.
    source_A: int32. `prefill`: -1, or the slot that holds the same prompt (no row is read then).
      `extend`: the slot whose context goes on (the slot itself, or another: a fork).
    count_1: int32 [1], how many orders are real; those with a source come after those without.
    context_A: int32, tokens in the slot's cache when the order is done.
    seed_A2: uint32, with the call's key the request's own key.
    settings, tokens_AT: of the request in each order (`tokens_AT`: forced tokens first).
    media_R: of the rows' tokens, where the policy reads media.
  """

  tokens_RP: Array
  length_R: Array
  rows_1: Array
  slot_A: Array
  row_A: Array
  source_A: Array
  count_1: Array
  context_A: Array
  seed_A2: Array
  settings: decode.Settings
  tokens_AT: Array
  media_R: Array | None = None


def empty(policy, settings: decode.Settings, *, segments: tuple[int, ...], limit: int,
          alternatives: int, devices: int, cache_bits: int = 0) -> Slots:
  """Idle slots, as many as `settings` has rows. `limit`: T. `cache_bits`: see `cache.empty`."""
  S, T = settings.limit_S.shape[0], limit
  zero = lambda *shape, dtype=jnp.float32: jnp.zeros((S, *shape), dtype)
  hidden = zero(policy.cfg.width, dtype=policy.cfg.dtype)
  return Slots(
      cache=tuple(cache_lib.empty(policy.cfg, S, c, cache_bits) for c in segments),
      context_S=zero(dtype=jnp.int32), hidden_SD=hidden, prompt_hidden_SD=hidden,
      settings=settings, live_S=zero(dtype=bool), stopped_S=zero(dtype=bool),
      length_S=zero(dtype=jnp.int32), tokens_ST=zero(T, dtype=jnp.int32), logp_ST=zero(T),
      raw_logp_ST=zero(T), entropy_ST=zero(T), top_ids_STA=zero(T, alternatives, dtype=jnp.int32),
      top_logp_STA=zero(T, alternatives), used_1=jnp.zeros(devices, jnp.int32),
      rows_1=jnp.zeros(devices, jnp.int32))


def _block(orders: Orders, tokens: int) -> int:
  """Rows read in one pass: a function of the shapes alone, so results do not depend on company."""
  R, P = orders.tokens_RP.shape
  return max(1, min(R, tokens // P))


def _over_blocks(orders: Orders, slots: Slots, size: int, read) -> tuple[Slots, Array]:
  """Runs `read(slots, first row, tokens, lengths, media) -> (slots, hidden)` over all real rows."""
  R = orders.tokens_RP.shape[0]
  more = lambda x: jnp.pad(x, ((0, -R % size), *((0, 0),) * (x.ndim - 1)))
  tokens_RP, media_R = jax.tree.map(more, (orders.tokens_RP, orders.media_R))
  length_R = jnp.pad(orders.length_R, (0, -R % size), constant_values=1)
  hidden_RD = jnp.zeros((tokens_RP.shape[0], slots.hidden_SD.shape[1]), slots.hidden_SD.dtype)

  def body(carry):
    first, slots, hidden_RD = carry
    block = lambda x: jax.lax.dynamic_slice_in_dim(x, first, size)
    slots, hidden = read(slots, first, *jax.tree.map(block, (tokens_RP, length_R, media_R)))
    hidden_RD = jax.lax.dynamic_update_slice_in_dim(hidden_RD, hidden, first, axis=0)
    return first + size, slots, hidden_RD

  _, slots, hidden_RD = jax.lax.while_loop(
      lambda carry: carry[0] < orders.rows_1[0], body, (jnp.int32(0), slots, hidden_RD))
  return slots, hidden_RD


def prefill(policy, params: PyTree, slots: Slots, orders: packed.Packed, key: Array, *,
            block: int) -> Slots:
  """Reads the prompts, about `block` tokens at a time, and starts a response in every slot."""
  orders = packed.unpack(orders)
  S, P = slots.context_S.shape[0], orders.tokens_RP.shape[1]
  size = _block(orders, block)
  fresh_A = (orders.source_A < 0) & (orders.slot_A < S)
  row_A = jnp.where(fresh_A, orders.row_A, jnp.iinfo(jnp.int32).max)

  def read(slots, first, tokens, length, media):
    hidden, new = policy.prefill(params, tokens, length, media)
    begin, end = jnp.searchsorted(row_A, jnp.stack([first, first + size])).astype(jnp.int32)
    give = lambda a, cache: cache_lib.copy_row((new,), row_A[a] - first, cache, orders.slot_A[a])
    return slots.replace(cache=jax.lax.fori_loop(begin, end, give, slots.cache)), hidden

  slots, hidden_RD = _over_blocks(orders, slots, size, read)
  copy = lambda a, cache: cache_lib.copy_row(
      cache_lib.covering(cache, P), orders.source_A[a], cache, orders.slot_A[a])
  slots = slots.replace(cache=jax.lax.fori_loop(
      jnp.sum(fresh_A).astype(jnp.int32), orders.count_1[0], copy, slots.cache))
  hidden_AD = jnp.where((orders.source_A < 0)[:, None], hidden_RD[orders.row_A],
                        slots.prompt_hidden_SD[jnp.maximum(orders.source_A, 0)])
  slots = _start(slots, orders, hidden_AD, key)
  return slots.replace(prompt_hidden_SD=slots.prompt_hidden_SD.at[orders.slot_A].set(
      hidden_AD, mode="drop"))


def extend(policy, params: PyTree, slots: Slots, orders: packed.Packed, key: Array, *,
           block: int) -> Slots:
  """Reads tokens behind the context of each order's source, and starts a response there.

  Row a of the tokens belongs to order a. An order without tokens starts from the hidden state that
  the source has.
  """
  orders = packed.unpack(orders)
  S, A = slots.context_S.shape[0], orders.slot_A.shape[0]
  old_AD = slots.hidden_SD[orders.source_A]
  copy = lambda a, cache: cache_lib.copy_row(cache, orders.source_A[a], cache, orders.slot_A[a])
  slots = slots.replace(
      cache=jax.lax.fori_loop(0, orders.count_1[0], copy, slots.cache))
  size = _block(orders, block)
  slot_R = jnp.pad(orders.slot_A, (0, -A % size), constant_values=S)
  start_R = jnp.pad(orders.context_A - orders.length_R, (0, -A % size))

  def read(slots, first, tokens, length, media):
    slot = jax.lax.dynamic_slice_in_dim(slot_R, first, size)
    start = jax.lax.dynamic_slice_in_dim(start_R, first, size)
    rows = cache_lib.take_rows(slots.cache, slot)
    hidden, new = policy.extend(params, tokens, length, start, rows, media)
    cache = cache_lib.write(slots.cache, new, start, _after(hidden, length), slot)
    return slots.replace(cache=cache), hidden

  slots, hidden_RD = _over_blocks(orders, slots, size, read)
  hidden_AD = jnp.where((orders.length_R > 0)[:, None], hidden_RD[:A], old_AD)
  return _start(slots, orders, hidden_AD, key)


def _start(slots: Slots, orders: Orders, hidden_AD: Array, key: Array) -> Slots:
  own = lambda seed: jax.random.key_data(
      jax.random.fold_in(jax.random.fold_in(key, seed[0]), seed[1]))
  settings = orders.settings.replace(key_SK=jax.vmap(own)(orders.seed_A2))
  put = lambda old, new: old.at[orders.slot_A].set(new, mode="drop")
  A = orders.slot_A.shape[0]
  return slots.replace(
      context_S=put(slots.context_S, orders.context_A), hidden_SD=put(slots.hidden_SD, hidden_AD),
      settings=jax.tree.map(put, slots.settings, settings),
      live_S=put(slots.live_S, jnp.ones(A, bool)),
      stopped_S=put(slots.stopped_S, jnp.zeros(A, bool)),
      length_S=put(slots.length_S, jnp.zeros(A, jnp.int32)),
      tokens_ST=put(slots.tokens_ST, orders.tokens_AT))


class Rest(NamedTuple):
  """When the host looks at the slots, int32 each: after so many steps, or as soon as no more are
  live than this, in all or on each device."""

  steps: Array
  total: Array
  most: Array


def few(policy, params: PyTree, slots: Slots, slot_A: Array, rest: packed.Packed,
        shared: cache_lib.Shared | None = None, *, segments: int, alternatives: int,
        axis: str | None = None) -> Slots:
  """`chunk` for these slots alone (int32 [A]; S = none): a step over few live slots costs less."""
  near, far = slots.cache[:segments], slots.cache[segments:]
  rows = slots.replace(cache=(), used_1=None, rows_1=None)
  part = jax.tree.map(lambda x: jnp.take(x, slot_A, axis=0, mode="clip"), rows).replace(
      cache=cache_lib.take_rows(near, slot_A), used_1=slots.used_1, rows_1=slots.rows_1)
  real_A = slot_A < slots.context_S.shape[0]
  part = chunk(policy, params, part.replace(live_S=part.live_S & real_A), rest, shared,
               segments=segments, alternatives=alternatives, axis=axis)
  back = lambda old, new: old.at[slot_A].set(new, mode="drop")
  return jax.tree.map(back, rows, part.replace(cache=(), used_1=None, rows_1=None)).replace(
      cache=(*cache_lib.put_rows(near, part.cache, slot_A), *far), used_1=part.used_1,
      rows_1=part.rows_1)


def chunk(policy, params: PyTree, slots: Slots, rest: packed.Packed,
          shared: cache_lib.Shared | None = None, *, segments: int, alternatives: int,
          axis: str | None = None) -> Slots:
  """Draws tokens in every live slot until it is time to look.

  Args:
    rest: `Rest`, packed.
    shared: slots that hold one prompt; of `few`, as numbers of its rows.
    segments: so many of the cache's segments are read; they must cover every position to come.
    axis: of the mesh, over which the slots are split. The devices stop together: one that stopped
      by itself would only wait for the others.
  """
  rest = packed.unpack(rest)
  near, far = slots.cache[:segments], slots.cache[segments:]

  def going(slots):
    live = jnp.sum(slots.live_S)
    live = jax.lax.all_gather(live, axis) if axis else live
    return (jnp.sum(live) > rest.total) & (jnp.max(live) > rest.most)

  def step(carry):
    n, slots = carry
    drew_S = slots.live_S
    slots, token_S = _draw(policy, params, slots, alternatives)
    # A loop of at most one turn: unlike a conditional it never copies the cache.
    _, slots = jax.lax.while_loop(
        lambda c: c[0], lambda c: (False, _read(policy, params, c[1], token_S, drew_S, shared)),
        (jnp.any(slots.live_S), slots))
    return n + 1, slots

  def steps_between_looks(carry):
    n, _, slots = carry
    end = jnp.minimum(n + (LOOK if axis else 1), rest.steps)
    _, slots = jax.lax.while_loop(
        lambda c: (c[0] < end) & jnp.any(c[1].live_S), step, (n, slots))
    return end, going(slots), slots

  slots = slots.replace(cache=near)
  _, _, slots = jax.lax.while_loop(lambda c: (c[0] < rest.steps) & c[1], steps_between_looks,
                                   (jnp.int32(0), going(slots), slots))
  return slots.replace(cache=(*slots.cache, *far))


def _draw(policy, params, slots: Slots, alternatives: int) -> tuple[Slots, Array]:
  """The next token of every live slot, recorded."""
  settings, live_S, t_S = slots.settings, slots.live_S, slots.length_S
  S, T = slots.tokens_ST.shape
  at_S = jnp.minimum(t_S, T - 1)
  out = decode.draw(settings, t_S, slots.tokens_ST[jnp.arange(S), at_S],
                    policy.logits(params, slots.hidden_SD), alternatives=alternatives)
  row_S = jnp.where(live_S, jnp.arange(S), S)  # a slot that is not live writes nothing
  put = lambda buffer, x: buffer.at[row_S, at_S].set(x, mode="drop")
  tokens_ST = put(slots.tokens_ST, out.token_S)
  length_S = t_S + live_S
  W = settings.stop_SQW.shape[-1]
  back_SW = length_S[:, None] + jnp.arange(-W, 0)[None, :]
  tail_SW = jnp.where(
      back_SW >= 0, jnp.take_along_axis(tokens_ST, jnp.clip(back_SW, 0, T - 1), axis=1), -1)
  stopped_S = live_S & decode.stops(settings, out.token_S, tail_SW)
  stopped_S &= t_S >= settings.forced_S  # a given token ends nothing
  slots = slots.replace(
      tokens_ST=tokens_ST, logp_ST=put(slots.logp_ST, out.logp_S),
      raw_logp_ST=put(slots.raw_logp_ST, out.raw_logp_S),
      entropy_ST=put(slots.entropy_ST, out.entropy_S),
      top_ids_STA=put(slots.top_ids_STA, out.top_ids_SA),
      top_logp_STA=put(slots.top_logp_STA, out.top_logp_SA),
      length_S=length_S, stopped_S=slots.stopped_S | stopped_S,
      live_S=live_S & ~stopped_S & (length_S < settings.limit_S),
      used_1=slots.used_1 + jnp.sum(live_S), rows_1=slots.rows_1 + S)
  return slots, out.token_S


def _read(policy, params, slots: Slots, token_S: Array, drew_S: Array, shared) -> Slots:
  """Every slot that drew reads its token, the last one of a response too."""
  hidden_SD, new = policy.extend(
      params, token_S[:, None], jnp.ones_like(token_S), slots.context_S, slots.cache,
      shared=shared)
  cache = cache_lib.write(
      slots.cache, new, slots.context_S, _after(hidden_SD, drew_S.astype(jnp.int32)))
  return slots.replace(
      cache=cache, context_S=slots.context_S + drew_S,
      hidden_SD=jnp.where(drew_S[:, None], hidden_SD, slots.hidden_SD))


def _after(hidden_SD: Array, length_S: Array) -> Array:
  """The same lengths, known only when the hidden states are.

  A cache that is read and then written must not be written first. The compiler is free to do so as
  long as what is written does not depend on all that is read, and keeps a copy of the whole cache
  to read from (barriers are gone by then).
  """
  return jnp.where(hidden_SD[:, 0] < jnp.inf, length_S, 0)


def telling(fn):
  """`fn`, which returns slots, returning also what the host asks of them, packed."""
  @functools.wraps(fn)
  def call(*args, **static):
    slots = fn(*args, **static)
    return slots, packed.pack((slots.live_S, slots.length_S, slots.context_S, slots.stopped_S))
  return call


def responses(slots: Slots) -> dict[str, Array]:
  """What a completion is made of, of all slots."""
  return {"tokens": slots.tokens_ST, "logp": slots.logp_ST, "raw_logp": slots.raw_logp_ST,
          "entropy": slots.entropy_ST, "top_ids": slots.top_ids_STA, "top_logp": slots.top_logp_STA}


def collect(responses: dict[str, Array], slot_F: Array) -> packed.Packed:
  """Those of F slots, to be fetched."""
  return packed.pack({name: jnp.take(x, slot_F, axis=0, mode="clip")
                      for name, x in responses.items()})
