"""Who is in which slot: the host side of continuous batching. Plain Python, no device work.

The book knows, for every slot, the request it samples, the handles that keep it, and the prompt at
the start of its cache. It seats requests: in a slot that goes on with a conversation, in one that
holds the same prompt already, or in any free one.

On several devices the slots are split evenly, and a device reads only its own: a prompt is shared
between the slots of one device.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

Prompt = tuple[int, bytes]  # how many tokens; these and its media


@dataclasses.dataclass(eq=False)
class Handle:
  """A conversation that can go on: all its tokens, and the slot that still holds them.

  A handle serves one request; `Engine.fork` makes another for the same conversation. It is always
  valid: when its slot was needed or the weights have changed, its tokens are read again (counted).

  Attributes:
    tokens: int32, prompt and responses so far.
    cached: how many of them the slot's cache holds.
    slot: None when nothing is held.
  """

  tokens: np.ndarray
  cached: int = 0
  slot: int | None = None

  def trim(self, tokens: np.ndarray) -> np.ndarray:
    """Cuts the conversation to what these tokens begin with; the rest of them, at least one."""
    n = min(len(self.tokens), len(tokens) - 1)
    differ = np.flatnonzero(self.tokens[:n] != tokens[:n])
    n = int(differ[0]) if len(differ) else n
    self.tokens, self.cached = self.tokens[:n], min(self.cached, n)
    return tokens[n:]


@dataclasses.dataclass(frozen=True)
class Seat:
  """Where a request is to be answered.

  Attributes:
    index: of the request. slot: global number.
    tokens: what is to be read (the whole prompt, or what follows the kept context).
    source: the slot whose cache is used; -1 = none, everything is read.
    start: tokens of the source's cache that stay (0 = none: a fresh prompt).
  """

  index: int
  slot: int
  tokens: np.ndarray
  source: int
  start: int = 0


class Book:
  """Seats requests; `slots` in all, split over `devices`."""

  def __init__(self, slots: int, devices: int = 1):
    self.slots, self.per_device = slots, slots // devices
    self.request: list[int | None] = [None] * slots
    self.keepers: list[set[Handle]] = [set() for _ in range(slots)]
    self.prompt: list[Prompt | None] = [None] * slots  # at the start of the cache
    self.holders: dict[Prompt, set[int]] = {}  # the slots of a prompt
    self.read: list[np.ndarray | None] = [None] * slots  # all tokens before the response
    self._age = [0] * slots
    self._clock = itertools.count(1)

  # --- what the engine reports ---

  def live(self) -> list[int]:
    return [s for s in range(self.slots) if self.request[s] is not None]

  def alike(self, slots: Sequence[int]) -> list[tuple[int, list[int]]]:
    """(its tokens, places in `slots`) of every prompt that live ones of these slots begin with."""
    found: dict[Prompt, list[int]] = {}
    for place, s in enumerate(slots):
      if self.request[s] is not None and self.prompt[s] is not None:
        found.setdefault(self.prompt[s], []).append(place)
    return [(prompt[0], places) for prompt, places in found.items()]

  def finish(self, slot: int, handle: Handle | None) -> None:
    """The request in the slot has ended; a handle keeps the slot."""
    self.request[slot] = None
    self._age[slot] = next(self._clock)
    if handle is not None:
      self.keepers[slot].add(handle)

  def fork(self, handle: Handle) -> Handle:
    other = Handle(handle.tokens, handle.cached, handle.slot)
    if handle.slot is not None:
      self.keepers[handle.slot].add(other)
    return other

  def release(self, handle: Handle) -> None:
    if handle.slot is not None:
      self.keepers[handle.slot].discard(handle)
      handle.slot = None

  def forget(self) -> None:
    """The weights have changed: no cache is worth anything."""
    for slot in range(self.slots):
      self._evict(slot)
      self._holds(slot, None)

  def _evict(self, slot):
    for handle in self.keepers[slot]:
      handle.slot = None
    self.keepers[slot].clear()

  def _holds(self, slot, prompt):
    """Notes what the slot's cache starts with."""
    old = self.prompt[slot]
    if old is not None:
      self.holders[old].discard(slot)
      if not self.holders[old]:
        del self.holders[old]
    self.prompt[slot] = prompt
    if prompt is not None:
      self.holders.setdefault(prompt, set()).add(slot)

  # --- seating ---

  def free(self) -> list[dict[int, None]]:
    """Per device, the slots that nobody uses or keeps, in order."""
    n = self.per_device
    return [{s: None for s in range(first, first + n)
             if self.request[s] is None and not self.keepers[s]}
            for first in range(0, self.slots, n)]

  def make_room(self, wanted: Sequence[Handle]) -> bool:
    """Gives up the kept slot that was left alone longest. One of the `wanted` handles' only if
    nothing else is kept and nothing live, which would leave a slot sooner or later."""
    needed = {h.slot for h in wanted}
    kept = [s for s in range(self.slots) if self.request[s] is None and self.keepers[s]]
    kept = [s for s in kept if s not in needed] or ([] if self.live() else kept)
    if kept:
      self._evict(min(kept, key=self._age.__getitem__))
    return bool(kept)

  def seat_parent(self, index: int, parent: Handle, tail: np.ndarray,
                  free: list[dict[int, None]]) -> Seat | None:
    """Goes on with a kept conversation: in its slot, or, where others keep that too, in a copy.

    None: no slot is free for the copy. Takes the slot from `free`.
    """
    source, start = parent.slot, parent.cached
    slot = source
    if self.keepers[source] != {parent}:
      near = free[source // self.per_device]
      if not near:
        return None
      slot = next(iter(near))
      del near[slot]
    tokens = np.concatenate([parent.tokens[start:], tail])
    self.release(parent)
    prompt = self.prompt[source]
    self._holds(slot, prompt if prompt and prompt[0] <= start else None)
    self.request[slot], self.read[slot] = index, np.concatenate([parent.tokens, tail])
    return Seat(index, slot, tokens, source, start)

  def seat_fresh(self, index: int, prompt: np.ndarray, free: list[dict[int, None]],
                 taken: set[int], share: bool = True, sight: bytes = b"") -> Seat:
    """Reads a prompt, or uses a slot that holds it already.

    Args:
      free: the slot is taken from here.
      taken: slots whose caches are about to be overwritten in this round.
      share: whether the prompt may be copied from a slot that holds it.
      sight: of its media; a prompt is the same only with the same one.
    """
    name = (len(prompt), prompt.tobytes() + sight) if share else None
    same = self.holders.get(name, ())
    device_of = lambda s: s // self.per_device
    holders = sorted(s for s in same if s not in taken)
    slot = next((s for s in holders if s in free[device_of(s)]), None)
    source = -1 if slot is None else slot
    if slot is None:
      near = [d for d in sorted({device_of(s) for s in same}) if free[d]]
      device = near[0] if near else max(range(len(free)), key=lambda d: (len(free[d]), -d))
      slot = next(iter(free[device]))
      source = next((s for s in holders if device_of(s) == device), -1)
    del free[device_of(slot)][slot]
    if source != slot:
      taken.add(slot)
    self._holds(slot, name)
    self.request[slot], self.read[slot] = index, prompt
    return Seat(index, slot, prompt, source)
