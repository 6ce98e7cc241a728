"""Requests as arrays: what the host tells the devices when it seats requests.

Every device gets its own part of each array, with its own numbering of slots, orders and rows.
"""

from collections.abc import Sequence

import jax
import numpy as np

from rljax import packed
from rljax.models import cache as cache_lib
from rljax.sampling import decode
from rljax.sampling import request as request_lib
from rljax.sampling.book import Seat
from rljax.sampling.slots import Orders, Rest

SHARERS = 16  # slots that read what they share together
LEAST = 4  # fewer read it one by one


def rest(steps: int, total: int, most: int) -> packed.Packed:
  """`Rest`, packed."""
  return packed.pack(Rest(*(np.asarray(n, np.int32) for n in (steps, total, most))))


def shared(alike: Sequence[Sequence[tuple[int, list[int]]]], size: int, segments: Sequence[int]
           ) -> cache_lib.Shared:
  """What slots share, of each device's `size` of them.

  Args:
    alike: per device, (tokens of a prompt, the slots that hold it); see `Book.alike`.
    segments: capacities of the cache's segments; a part of one is not shared.
  """
  ends, groups = np.cumsum(segments), max(size // LEAST, 1)
  length = np.zeros((len(alike), size), np.int32)
  rows = np.full((len(alike), groups, SHARERS), size, np.int32)
  count = np.zeros((len(alike), len(segments)), np.int32)
  for device, prompts in enumerate(alike):
    g = 0
    for tokens, slots in sorted(prompts, key=lambda p: -p[0]):
      whole = int(np.searchsorted(ends, tokens, side="right"))
      for at in range(0, len(slots), SHARERS):
        some = slots[at:at + SHARERS]
        if whole and len(some) >= LEAST:
          rows[device, g, :len(some)], length[device, some] = some, ends[whole - 1]
          count[device, :whole] += 1
          g += 1
  return cache_lib.Shared(length.reshape(-1), rows.reshape(-1, SHARERS), count.reshape(-1))


class Writer:
  """Writes orders of fixed shapes for an engine of these sizes.

  Args:
    slots, devices: the engine's; S = slots / devices per device.
    vocab: size of the vocabulary. limit: T, tokens of a response.
    stop_ids: the engine's own.
    media: shape of a request's media, () = there are none.
  """

  def __init__(self, *, slots: int, devices: int, vocab: int, limit: int, stop_ids: Sequence[int],
               media: tuple[int, ...] = ()):
    self.slots, self.per_device, self.devices = slots, slots // devices, devices
    self.words, self.limit, self.stop_ids = -(-vocab // 32), limit, list(stop_ids)
    # Rarely needed and large: sent once, not with every order.
    self._no_mask = np.zeros((slots, self.words), np.uint32)
    self._no_tokens = np.zeros((slots, limit), np.int32)
    self._no_sequences = np.full(
        (slots, request_lib.STOP_SEQUENCES, request_lib.STOP_LENGTH), -1, np.int32)
    words = jax.random.key_data(jax.random.key(0)).shape[-1]
    self._no_keys = np.zeros((slots, words), np.uint32)
    self._no_media = np.zeros((slots, *media), np.uint8) if media else None

  def settings(self, requests: Sequence[request_lib.Request], at: Sequence[int]
               ) -> decode.Settings:
    """The requests' settings in rows `at` of S; key_SK is filled in on the device."""
    def column(dtype, fill, get, *shape):
      out = np.full((self.slots, *shape), fill, dtype)
      if at:
        out[at] = [get(r) for r in requests]
      return out
    masked = any(r.allowed is not None for r in requests)
    said = any(r.stop_sequences for r in requests)
    return decode.Settings(
        key_SK=self._no_keys,
        temperature_S=column(np.float32, 1.0, lambda r: 1.0 if r.greedy else r.temperature),
        top_k_S=column(np.int32, 0, lambda r: r.top_k),
        top_p_S=column(np.float32, 1.0, lambda r: r.top_p),
        min_p_S=column(np.float32, 0.0, lambda r: r.min_p),
        greedy_S=column(bool, True, lambda r: r.greedy),
        limit_S=column(np.int32, 0, lambda r: r.max_tokens),
        forced_S=column(np.int32, 0, lambda r: len(r.forced)),
        stop_SE=column(np.int32, -1, self._stops, request_lib.STOP_IDS),
        stop_SQW=(column(np.int32, -1, _sequences, *self._no_sequences.shape[1:]) if said
                  else self._no_sequences),
        allowed_SM=column(np.uint32, 0, self._mask, self.words) if masked else self._no_mask,
        masked_S=column(bool, False, lambda r: r.allowed is not None))

  def _stops(self, r):
    ids = sorted({*self.stop_ids, *r.stop_ids}) if len(r.stop_ids) else self.stop_ids
    return ids + [-1] * (request_lib.STOP_IDS - len(ids))

  def _mask(self, r):
    out = np.zeros(self.words, np.uint32)
    if r.allowed is not None:
      ids = np.asarray(r.allowed, np.uint32)
      np.bitwise_or.at(out, ids // 32, np.uint32(1) << (ids % 32))
    return out

  def write(self, requests: Sequence[request_lib.Request], seats: Sequence[Seat], bucket: int, *,
            extend: bool) -> packed.Packed:
    """`Orders`, packed, for these seats, whose tokens fit the bucket."""
    S, n = self.slots, self.per_device
    tokens = np.zeros((S, bucket), np.int32)
    length, rows, count = np.ones(S, np.int32), np.zeros(self.devices, np.int32), []
    slot, row, source = np.full(S, n, np.int32), np.zeros(S, np.int32), np.full(S, -1, np.int32)
    context, seed = np.zeros(S, np.int32), np.zeros((S, 2), np.uint32)
    if extend:
      length[:], source[:] = 0, 0
    ordered, at, shown = [], [], {}  # shown: row -> media
    known = lambda s: s.tokens.tobytes() + requests[s.index].sight
    for device in range(self.devices):
      mine = [s for s in seats if s.slot // n == device]
      named = {}
      if not extend:  # new prompts first, those of one row side by side; then copies
        for s in mine:
          if s.source < 0:
            named.setdefault(known(s), len(named))
        mine.sort(key=lambda s: (s.source >= 0, named.get(known(s), 0)))
      for a, s in enumerate(mine, device * n):
        r = a - device * n if extend else named.get(known(s), 0)
        if extend or s.source < 0:
          shown[device * n + r] = requests[s.index].media
          tokens[device * n + r, :len(s.tokens)] = s.tokens
          length[device * n + r] = len(s.tokens)
        slot[a], row[a], context[a] = s.slot % n, r, s.start + len(s.tokens)
        source[a] = s.source % n if s.source >= 0 else -1
        seed[a] = requests[s.index].seed
        ordered.append(requests[s.index])
        at.append(a)
      count.append(len(mine))
      rows[device] = len(mine) if extend else len(named)
    forced = self._no_tokens
    if any(len(r.forced) for r in ordered):
      forced = np.zeros((S, self.limit), np.int32)
      for a, r in zip(at, ordered):
        forced[a, :len(r.forced)] = r.forced
    media = self._no_media
    if any(m is not None for m in shown.values()):
      media = media.copy()
      for r, m in shown.items():
        media[r] = 0 if m is None else m
    return packed.pack(Orders(
        media_R=media, tokens_RP=tokens, length_R=length, rows_1=rows, slot_A=slot, row_A=row,
        source_A=source,
        count_1=np.asarray(count, np.int32), context_A=context, seed_A2=seed,
        settings=self.settings(ordered, at), tokens_AT=forced))


def _sequences(r):
  Q, W = request_lib.STOP_SEQUENCES, request_lib.STOP_LENGTH
  out = np.full((Q, W), -1, np.int32)
  for q, sequence in enumerate(r.stop_sequences):
    out[q, W - len(sequence):] = sequence
  return out
