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
    self.prompt: list[bytes | None] = [None] * slots  # at the start of the cache
    self.read: list[np.ndarray | None] = [None] * slots  # all tokens before the response
    self._age = [0] * slots
    self._clock = itertools.count(1)

  # --- what the engine reports ---

  def live(self) -> list[int]:
    return [s for s in range(self.slots) if self.request[s] is not None]

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
      self.prompt[slot] = None

  def _evict(self, slot):
    for handle in self.keepers[slot]:
      handle.slot = None
    self.keepers[slot].clear()

  # --- seating ---

  def free(self) -> list[int]:
    return [s for s in range(self.slots) if self.request[s] is None and not self.keepers[s]]

  def make_room(self, wanted: Sequence[Handle]) -> bool:
    """Gives up the kept slot that was left alone longest; those of `wanted` handles come last."""
    kept = [s for s in range(self.slots) if self.request[s] is None and self.keepers[s]]
    if not kept:
      return False
    needed = {h.slot for h in wanted}
    self._evict(min(kept, key=lambda s: (s in needed, self._age[s])))
    return True

  def seat_parent(self, index: int, parent: Handle, tail: np.ndarray, free: list[int]
                  ) -> Seat | None:
    """Goes on with a kept conversation: in its slot, or, where others keep that too, in a copy.

    None: no slot is free for the copy. Takes the slot from `free`.
    """
    source, start = parent.slot, parent.cached
    if self.keepers[source] == {parent}:
      slot = source
    else:
      near = [s for s in free if s // self.per_device == source // self.per_device]
      if not near:
        return None
      slot = near[0]
      free.remove(slot)
    tokens = np.concatenate([parent.tokens[start:], tail])
    self.release(parent)
    self.request[slot], self.prompt[slot] = index, self.prompt[source]
    self.read[slot] = np.concatenate([parent.tokens, tail])
    return Seat(index, slot, tokens, source, start)

  def seat_fresh(self, index: int, prompt: np.ndarray, free: list[int], taken: set[int]) -> Seat:
    """Reads a prompt, or uses a slot that holds it already.

    Args:
      free: the slot is taken from here.
      taken: slots whose caches are about to be overwritten in this round.
    """
    name = prompt.tobytes()
    holders = [s for s in range(self.slots) if self.prompt[s] == name and s not in taken]
    own = next((s for s in holders if s in free), None)
    if own is not None:
      slot = source = own
    else:
      devices = {s // self.per_device for s in holders}
      devices |= {s // self.per_device for s in taken if self.prompt[s] == name}
      near = [s for s in free if s // self.per_device in devices]
      # A slot whose own prompt nobody waits for would be best; the emptiest device is good enough.
      slot = near[0] if near else max(free, key=lambda s: (self._room(s, free), -s))
      source = next((s for s in holders if s // self.per_device == slot // self.per_device), -1)
    free.remove(slot)
    if source != slot:
      taken.add(slot)
    self.request[slot], self.prompt[slot], self.read[slot] = index, name, prompt
    return Seat(index, slot, prompt, source)

  def _room(self, slot, free):
    return sum(s // self.per_device == slot // self.per_device for s in free)
