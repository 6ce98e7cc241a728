"""The sampler: requests in, completions out, any number of them, by continuous batching.

S slots decode together; a slot whose response has ended is given the next request of the queue,
while the others go on. All shapes are fixed: one program reads prompts per prompt bucket, and one
draws tokens per window of the cache, so after `warm_up` nothing compiles, whatever the lengths,
temperatures, limits and group sizes are.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from rljax import packed
from rljax.models import cache as cache_lib
from rljax.sampling import book as book_lib
from rljax.sampling import orders as orders_lib
from rljax.sampling import request as request_lib
from rljax.sampling import slots as slots_lib
from rljax.types import Array, PyTree

WATCHED = 4  # tokens between two looks of somebody who watches

Request, Completion, Handle = request_lib.Request, request_lib.Completion, book_lib.Handle


@dataclasses.dataclass
class Stats:
  """Totals since the engine was made.

  `rows`: slots decoded, summed over steps; `used`: those of them that were live; `device_s`,
  `host_s`: seconds inside device calls and beside them; `reread`: conversations whose tokens had to
  be read again.
  """

  tokens: int = 0
  rows: int = 0
  used: int = 0
  device_s: float = 0.0
  host_s: float = 0.0
  reread: int = 0


class Engine:
  """Samples from a policy.

  Args:
    policy: prefill, extend and logits (`rljax.models.policy`).
    stop_ids: token ids that end every response.
    slots: requests decoded together; a multiple of the devices along "data".
    prompt_buckets: lengths that prompts are padded to; a longer one is read in several calls.
    max_tokens: most tokens of a response.
    capacity: most tokens of a whole conversation; 0 = the largest bucket + max_tokens.
    alternatives: report so many of the likeliest tokens at every position.
    cache_bits: 8 = keys and values in 8 bits with a scale per head and position; 0 = as computed.
      What it costs is in the metrics of a run: `mismatch/kl`, sampler against trainer.
    mesh: devices; slots are split over "data".

  Raises:
    ValueError: slots that do not divide by the devices, too many stop ids, other cache_bits.
  """

  def __init__(self, policy, *, stop_ids: Sequence[int], slots: int, prompt_buckets: Sequence[int],
               max_tokens: int, capacity: int = 0, alternatives: int = 0, cache_bits: int = 0,
               mesh: Mesh | None = None):
    if policy.layout is not None and policy.layout.mesh.size > 1:  # each device works alone
      policy = dataclasses.replace(policy, layout=None)
    self._first_device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    if self._first_device.platform == "cpu":
      policy = dataclasses.replace(
          policy, cfg=dataclasses.replace(policy.cfg, decode_by_rows=True))
    self.policy, self.stop_ids = policy, tuple(sorted(stop_ids))
    self.slots, self.max_tokens, self.alternatives = slots, max_tokens, alternatives
    self.cache_bits = cache_bits
    self.buckets = sorted(prompt_buckets)
    self.capacity = capacity or self.buckets[-1] + max_tokens
    self.segments = cache_lib.segments(max(self.capacity, self.buckets[-1]))
    # A program per number of segments that are read; one, where each row reads what it reaches.
    windows = range(1, len(self.segments) + 1)
    self._windows = windows[-1:] if self.policy.cfg.decode_by_rows else windows
    # Slots of one prompt read it once, where rows are read apart and a segment can be full of it.
    self._shares = (self.policy.cfg.decode_by_rows and not self.policy.cfg.window
                    and self.buckets[-1] >= self.segments[0])
    self.mesh = mesh if mesh is not None and mesh.size > 1 else None
    self._given_mesh = mesh
    self.devices = mesh.shape["data"] if self.mesh else 1
    if slots % self.devices:
      raise ValueError(f"{slots} slots do not split over {self.devices} devices")
    if cache_bits not in (0, 8):
      raise ValueError(f"cache_bits={cache_bits}; 8 or 0")
    if len(self.stop_ids) > request_lib.STOP_IDS:
      raise ValueError(f"{len(self.stop_ids)} stop ids; at most {request_lib.STOP_IDS} fit")
    self._writer = orders_lib.Writer(
        slots=slots, devices=self.devices, vocab=policy.cfg.vocab, limit=max_tokens,
        stop_ids=self.stop_ids, media=policy.tower.shape if policy.tower else ())
    self._per_device = slots // self.devices
    # When the queue is empty and few slots are live, only so many are decoded.
    part = self._per_device
    self._sizes = [n for n in (part // 8, part // 2) if n >= 4] + [part]
    self._batch = min(slots, max(32, slots // 4))  # responses fetched at a time; or all
    self._programs()
    self._reset()
    self.stats = Stats()

  # --- the interface ---

  def generate(self, params: PyTree, requests: Sequence[Request], key: Array, *,
               watch: Callable[[int, np.ndarray], None] | None = None) -> list[Completion]:
    """Completions in the order of the requests.

    Args:
      key: one jax key per call; with a request's seed it decides that request's tokens.
      watch: called with (number of a request, its tokens so far) every few tokens.

    Raises:
      ValueError: a request that cannot be served, before any device work.
    """
    began, device = time.perf_counter(), self.stats.device_s
    params = self._hand_over(params)
    request_lib.check(requests, vocab=self.policy.cfg.vocab, limit=self.max_tokens,
                      capacity=self.capacity, stop_ids=self.stop_ids)
    try:
      done = self._serve(params, requests, key, watch)
    except BaseException:
      self._reset()  # the slots were donated to a call that did not end
      raise
    self.stats.rows, self.stats.used = (
        int(np.sum(x)) for x in jax.device_get((self._slots.rows_1, self._slots.used_1)))
    self.stats.tokens += sum(len(c.tokens) for c in done)
    self.stats.host_s += time.perf_counter() - began - (self.stats.device_s - device)
    return done

  def fork(self, handle: Handle) -> Handle:
    """Another handle of the same conversation, for one more request."""
    return self.book.fork(handle)

  def release(self, handle: Handle) -> None:
    """Gives up the slot that the handle keeps."""
    self.book.release(handle)

  def warm_up(self, params: PyTree, *, conversations: bool = False) -> None:
    """Compiles everything: each bucket, each window, and with `conversations` going on, too."""
    params, key = self._hand_over(params), jax.random.key(0)
    for bucket in self.buckets:
      self._device(self._prefill, params, self._writer.write([], [], bucket, extend=False), key)
      if conversations:
        self._device(self._extend, params, self._writer.write([], [], bucket, extend=True), key)
    rest = orders_lib.rest(1, 1, 1)
    for window in self._windows:
      self._device(self._chunks[window], params, rest, self._shared(self._per_device))
      for size in self._sizes[:-1]:
        none = np.full(self.devices * size, self._per_device, np.int32)
        self._device(self._few[window], params, none, rest, self._shared(size))
    for size in (self._batch, self.slots):
      self._collect(slots_lib.responses(self._slots), np.zeros(size, np.int32))

  # --- device programs ---

  def _programs(self):
    """The jitted functions; on several devices each works on its own slots, and all that they tell
    each other is how many are live."""
    rows, whole, stacked = PartitionSpec("data"), PartitionSpec(), PartitionSpec(None, "data")
    sharding = lambda spec: NamedSharding(self.mesh, spec) if self.mesh else None

    def program(fn, *ins, **static):
      """(jitted (params, slots in place, *args) -> (slots, what is told), where the args live)."""
      fn = functools.partial(slots_lib.telling(fn), self.policy, **static)
      if self.mesh:
        fn = jax.shard_map(fn, mesh=self.mesh, axis_names={"data"}, check_vma=False,
                           in_specs=(whole, specs, *ins), out_specs=(specs, stacked))
      held = {} if self._held is None else {
          "in_shardings": (None, self._held, *[None] * len(ins)),
          "out_shardings": (self._held, None)}
      return jax.jit(fn, donate_argnums=1, **held), tuple(map(sharding, ins))

    first = self._writer.settings([], [])
    build = functools.partial(slots_lib.empty, self.policy, segments=self.segments,
                              limit=self.max_tokens, alternatives=self.alternatives,
                              devices=self.devices, cache_bits=self.cache_bits)
    shape = jax.eval_shape(build, first)
    self._shape = shape
    specs = jax.tree.map(lambda _: rows, shape).replace(cache=jax.tree.map(
        lambda x: PartitionSpec(*[None] * cache_lib.row_axis(x), "data"), shape.cache))
    self._held = self._places(specs)
    self._empty = jax.jit(lambda: build(first), out_shardings=self._held)
    # Enough tokens to keep the device busy, few enough not to waste a pass on two new prompts.
    block = 128 if self._first_device.platform == "cpu" else 1024
    self._prefill = program(slots_lib.prefill, stacked, whole, block=block)
    self._extend = program(slots_lib.extend, stacked, whole, block=block)
    how = {"alternatives": self.alternatives, "axis": "data" if self.mesh else None}
    self._chunks = {n: program(slots_lib.chunk, whole, rows, segments=n, **how)
                    for n in self._windows}
    self._few = {n: program(slots_lib.few, rows, whole, rows, segments=n, **how)
                 for n in self._windows}
    # One jitted copy per update on several devices or of unrolled layers; else the very arrays.
    copies = self.mesh is not None or not self.policy.cfg.scan
    self._place = jax.jit(self.policy.unstack) if copies else lambda params: params
    self._collect = jax.jit(slots_lib.collect, out_shardings=sharding(whole))

  def _places(self, specs):
    """Where the arrays of the slots live; None = on the one device there is.

    Heads lie over "tensor" where they divide. A TPU writes new tokens in place only where positions
    lie outside heads; in the default layout each program would copy the whole cache, twice.
    """
    mesh, heads, device = self._given_mesh, self.policy.cfg.kv_heads, self._first_device
    split = 1 if mesh is None or heads % mesh.shape["tensor"] else mesh.shape["tensor"]
    if mesh is not None:
      specs = specs.replace(cache=jax.tree.map(
          lambda spec: PartitionSpec(*spec, "tensor" if split > 1 else None), specs.cache))
      places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
    elif device.platform == "tpu":
      places = jax.tree.map(lambda _: SingleDeviceSharding(device), specs)
    else:
      return None
    if device.platform != "tpu" or heads == split:  # a tile of a single head would be half empty
      return places
    order = (0, 1, 3, 2, 4) if self.policy.cfg.scan else (0, 2, 1, 3)
    layout = Layout(major_to_minor=order)
    return places.replace(cache=jax.tree.map(lambda p: Format(layout, p), places.cache))

  def programs(self, params: PyTree) -> dict[str, tuple]:
    """Name -> (jitted function, its arguments as shapes): what runs, to be compiled ahead of time.

    Args:
      params: ShapeDtypeStructs with shardings, as the sampler holds them.
    """
    def each(tree, spec):
      place = NamedSharding(self._given_mesh, spec) if self._given_mesh else None
      return jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place), tree)
    whole, rows, stacked = PartitionSpec(), PartitionSpec("data"), PartitionSpec(None, "data")
    params = jax.eval_shape(self.policy.unstack, params) if not self.policy.cfg.scan else params
    slots = self._shape
    if self._held is not None:
      slots = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
                           slots, self._held)
    key = each(jax.eval_shape(lambda: jax.random.key(0)), whole)
    out = {}
    for bucket in self.buckets:
      for name, (call, _) in (("prefill", self._prefill), ("extend", self._extend)):
        orders = self._writer.write([], [], bucket, extend=name == "extend")
        out[f"{name} {bucket}"] = call, (params, slots, each(orders, stacked), key)
    ends = np.cumsum(self.segments)
    for window in self._windows:
      out[f"chunk {ends[window - 1]}"] = self._chunks[window][0], (
          params, slots, each(orders_lib.rest(1, 1, 1), whole),
          each(self._shared(self._per_device), rows))
    return out

  def _hand_over(self, params):
    """The weights as the sampler reads them; caches of other weights are forgotten."""
    if self._slots is None:
      self._slots = self._empty()
    leaves = jax.tree.leaves(params)
    # Every update makes new arrays, though not of all: a base under adapters stays.
    if len(leaves) != len(self._seen) or any(a is not b for a, b in zip(leaves, self._seen)):
      self.book.forget()
      self._seen, self._params = leaves, self._place(params)
    return self._params

  def _reset(self):
    self._slots: slots_lib.Slots | None = None  # made when first needed
    self._seen, self._params = [], None
    self.book = book_lib.Book(self.slots, self.devices)

  def _device(self, program, params, *args):
    """Runs one program on the slots and waits for it; what is told, still on the devices."""
    began = time.perf_counter()
    call, places = program
    if self.mesh:
      args = jax.device_put(args, places)
    self._slots, told = call(params, self._slots, *args)
    jax.block_until_ready(told)
    self.stats.device_s += time.perf_counter() - began
    return told

  # --- serving ---

  def _serve(self, params, requests, key, watch):
    queue = request_lib.queue(requests)
    done: list[Completion | None] = [None] * len(requests)
    context = np.zeros(self.slots, np.int64)
    while queue or self.book.live():
      self._seat(params, requests, queue, key, context)
      live = self.book.live()
      told = self._decode(params, requests, live, context, bool(queue), WATCHED if watch else 0)
      state = packed.unpack(jax.device_get(told))
      context[:] = state[2]
      if watch:
        tokens = jax.device_get(self._slots.tokens_ST)
        for slot in live:
          watch(self.book.request[slot], tokens[slot, :state[1][slot]])
      self._finish(requests, [i for i in live if not state[0][i]], state, done)
    return done

  def _seat(self, params, requests, queue, key, context):
    """Gives free slots to requests and reads their prompts."""
    free, taken, seats = self.book.free(), set(), []
    wanted = lambda: [requests[i].parent for i in queue if requests[i].parent]
    while queue:
      r = requests[queue[-1]]
      prompt = np.asarray(r.prompt, np.int32)
      if r.parent is not None and r.parent.slot is not None:
        seat = self.book.seat_parent(queue[-1], r.parent, prompt, free)
        if seat is None:  # of what seats of this round copy from, nothing may be given up
          if seats or not self.book.make_room(wanted()):
            break
          free = self.book.free()
          continue
        if seat.slot != seat.source:
          taken.add(seat.slot)
      else:
        if not any(free):
          if not self.book.make_room(wanted()):
            break
          free = self.book.free()
        if r.parent is not None:
          prompt = np.concatenate([r.parent.tokens, prompt]).astype(np.int32)
          self.stats.reread += 1
        seat = self.book.seat_fresh(queue[-1], prompt, free, taken,
                                    share=len(prompt) <= self.buckets[-1], sight=r.sight)
      seats.append(seat)
      queue.pop()
    parts = [self._parts(seat) for seat in seats]
    for depth in range(max(map(len, parts), default=0)):
      calls: dict[tuple[bool, int], list[book_lib.Seat]] = {}
      for part in (p[depth] for p in parts if len(p) > depth):
        bucket = next(b for b in self.buckets if b >= len(part.tokens))
        calls.setdefault((part.start == 0, bucket), []).append(part)
      for (fresh, bucket), those in sorted(calls.items()):  # copies of kept slots are taken first
        orders = self._writer.write(requests, those, bucket, extend=not fresh)
        self._device(self._prefill if fresh else self._extend, params, orders, key)
        for part in those:
          context[part.slot] = part.start + len(part.tokens)

  def _parts(self, seat):
    """What is longer than the largest bucket is read in several calls, one behind the other."""
    most = self.buckets[-1]
    if len(seat.tokens) <= most:
      return [seat]
    return [dataclasses.replace(
        seat, tokens=seat.tokens[at:at + most], start=seat.start + at,
        source=seat.source if at == 0 else seat.slot) for at in range(0, len(seat.tokens), most)]

  def _decode(self, params, requests, live, context, waiting, most):
    """Draws tokens in the live slots until it is worth looking again, `most` (0 = any number)."""
    longest = max(context[s] for s in live)
    steps = max(requests[self.book.request[s]].max_tokens for s in live)
    steps = min(steps, most or steps)
    ends = np.cumsum(self.segments)
    window = next((n for n in self._windows if ends[n - 1] >= longest + min(steps, 16)), len(ends))
    steps = max(1, min(steps, int(ends[window - 1] - longest)))
    n = self._per_device
    parts = [[s for s in live if s // n == d] for d in range(self.devices)]
    size = n if waiting else next(m for m in self._sizes if m >= max(map(len, parts)))
    if waiting:  # a slot that waits for its neighbours is lost; so is a pass for one new prompt
      total, most = len(live) - max(1, self.slots // 10), 0
    else:  # look again when a smaller part will do
      total, most = 0, max((m for m in self._sizes if m < size), default=0)
    if size == n:
      program, args = self._chunks[window], ()
      parts = [range(d * n, d * n + n) for d in range(self.devices)]
    else:
      slots = np.full((self.devices, size), n, np.int32)
      for d, part in enumerate(parts):
        slots[d, :len(part)] = np.asarray(part, int) % n
      program, args = self._few[window], (slots.reshape(-1),)
    return self._device(
        program, params, *args, orders_lib.rest(steps, total, most), self._shared(size, parts))

  def _shared(self, size, parts=()):
    """What is shared by the slots of each device's part; None = nothing ever is, here."""
    if not self._shares:
      return None
    alike = [self.book.alike(part) for part in parts] or [[]] * self.devices
    return orders_lib.shared(alike, size, self.segments)

  def _finish(self, requests, ended, state, done):
    _, length, context, stopped = state
    batch = self._batch if 2 * len(ended) <= self.slots else self.slots
    for at in range(0, len(ended), batch):
      some = ended[at:at + batch]
      slots = np.asarray(some + [0] * (batch - len(some)), np.int32)
      got = self._collect(slots_lib.responses(self._slots), slots)
      arrays = packed.unpack(jax.device_get(got))
      for row, slot in enumerate(some):
        i, n, handle = self.book.request[slot], int(length[slot]), None
        if requests[i].keep:
          tokens = np.concatenate([self.book.read[slot], arrays["tokens"][row, :n]])
          handle = Handle(tokens, int(context[slot]), slot)
        done[i] = request_lib.completion(arrays, row, n, bool(stopped[slot]), handle)
        self.book.finish(slot, handle)
