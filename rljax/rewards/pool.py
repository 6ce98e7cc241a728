"""Warm worker processes that judge one sample at a time, each with a deadline.

For judges that may hang, die or eat memory on hostile text. A sample that has used its processor
time is interrupted in its worker; one that cannot be interrupted (a regular expression, C code),
that waits, or that kills its worker takes that worker with it, which is started again. Either way
it alone is lost. Workers are plain subprocesses: nothing is forked from a process that holds an
accelerator.
"""

import atexit
import contextlib
import dataclasses
import functools
import os
import pickle
import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

CHUNK = 32  # samples a worker is given at a time
START_SECONDS = 120.0
PATIENCE = 4.0  # a worker is killed after this many deadlines, and GRACE seconds, by the clock
GRACE = 1.0
LAPSE = 2.0  # seconds; a longer gap in our own clock is a pause of this process, not the worker's


@dataclasses.dataclass(frozen=True)
class Outcome:
  """Of one sample: `value` where status is "ok"; else `error` says why.

  status: "ok", "error" (the judge raised), "timeout" (late, or it killed its worker), "skipped"
  (the time for the whole batch was over).
  """

  status: str
  value: Any = None
  error: str = ""


class Pool:
  """Workers that start with the first call and stay. Safe to use from several threads.

  Args:
    workers: processes; 0 = one per processor this process may use.
    memory: bytes of address space a worker may add to what it has when it is ready.
  """

  def __init__(self, workers: int = 0, *, memory: int = 2 << 30):
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    count = workers or len(mine) or os.cpu_count() or 1
    self._workers: list[_Worker | None] = [None] * count
    self._memory, self._lock = memory, threading.Lock()

  def map(self, judge: str, items: Sequence[tuple], *, deadline: float,
          until: float = float("inf"), **kwargs) -> list[Outcome]:
    """judge(*item, **kwargs) for each item, in order.

    Args:
      judge: "module:function" or "path/file.py:function".
      items: arguments, picklable.
      deadline: processor seconds for one item. until: time.monotonic() when all must be back.

    Raises:
      RuntimeError: a worker does not start.
    """
    with self._lock:
      try:
        return _Batch(self, judge, items, deadline, until, kwargs).run()
      except BaseException:
        self.close()  # no worker may answer the next batch with this one's outcomes
        raise

  def worker(self, i: int) -> "_Worker":
    """Worker i, started if need be."""
    if self._workers[i] is None:
      self._workers[i] = _Worker(self._memory)
    return self._workers[i]

  def restart(self, i: int) -> None:
    """Kills worker i; the next use starts it again."""
    self._workers[i].kill()
    self._workers[i] = None

  def __len__(self):
    return len(self._workers)

  def close(self) -> None:
    """Ends all workers."""
    for worker in filter(None, self._workers):
      worker.kill()
    self._workers = [None] * len(self._workers)


@functools.cache
def shared() -> Pool:
  """The pool of this process."""
  pool = Pool()
  atexit.register(pool.close)
  return pool


class _Worker:
  """One process; messages are pickles, one per line of work."""

  def __init__(self, memory):
    code = ("import sys; sys.path[:] = eval(sys.argv[1]); "
            "from rljax.rewards import pool_worker; pool_worker.main()")
    self.process = subprocess.Popen(
        [sys.executable, "-c", code, repr(sys.path), str(memory)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    self.ready, self.last, self.started = False, 0.0, time.monotonic()
    self.doing: list[int] = []  # indices in the order they were sent
    self._buffer = bytearray()

  def send(self, message):
    pickle.dump(message, self.process.stdin)
    self.process.stdin.flush()

  def receive(self):
    """Messages that have arrived. Raises EOFError: the process ended."""
    data = os.read(self.process.stdout.fileno(), 1 << 16)
    if not data:
      raise EOFError
    self._buffer += data
    while len(self._buffer) >= 4:
      size = int.from_bytes(self._buffer[:4], "big")
      if len(self._buffer) < 4 + size:
        break
      yield pickle.loads(self._buffer[4:4 + size])
      del self._buffer[:4 + size]

  def kill(self):
    self.process.kill()
    self.process.wait()
    for stream in (self.process.stdin, self.process.stdout):
      with contextlib.suppress(OSError):
        stream.close()


class _Batch:
  """One call of `map`."""

  def __init__(self, pool, judge, items, deadline, until, kwargs):
    self.pool, self.items, self.deadline, self.until = pool, items, deadline, until
    self.head = (judge, kwargs, deadline)
    self.waiting = list(range(len(items)))[::-1]
    self.out: list[Outcome | None] = [None] * len(items)
    self.allowed = PATIENCE * deadline + GRACE
    self.paused, self.seen = 0.0, time.monotonic()

  def now(self):
    """Seconds while this process was awake."""
    now = time.monotonic()
    self.paused += max(now - self.seen - LAPSE, 0.0)
    self.seen = now
    return now - self.paused

  def run(self):
    share = -(-len(self.items) // len(self.pool))
    busy = range(min(len(self.pool), len(self.items)))
    while any(o is None for o in self.out):
      if time.monotonic() > self.until:
        self._give_up(busy)
        break
      for i in busy:
        self._feed(i, min(CHUNK, share))
      with selectors.DefaultSelector() as selector:
        for i in busy:
          if self._active(i):
            selector.register(self.pool.worker(i).process.stdout, selectors.EVENT_READ, i)
        for key, _ in selector.select(self._patience(busy)):
          self._read(key.data)
      for i in busy:
        self._check(i)
    return self.out

  def _active(self, i):
    worker = self.pool.worker(i)
    return bool(worker.doing) or not worker.ready

  def _feed(self, i, size):
    worker = self.pool.worker(i)
    if worker.ready and not worker.doing and self.waiting:
      chunk = [self.waiting.pop() for _ in range(min(size, len(self.waiting)))]
      worker.doing, worker.last = chunk, self.now()
      try:
        worker.send((*self.head, [self.items[k] for k in chunk]))
      except OSError:  # it ended while it had nothing to do: no sample's fault
        worker.doing, self.waiting = [], self.waiting + chunk[::-1]
        self.pool.restart(i)

  def _patience(self, busy):
    now = self.now()
    ends = [self.pool.worker(i).last + self.allowed for i in busy if self.pool.worker(i).doing]
    return max(min([*ends, self.until - self.paused, now + 1]) - now, 0.001)

  def _read(self, i):
    worker = self.pool.worker(i)
    try:
      for message in worker.receive():
        worker.last = self.now()
        if message == "ready":
          worker.ready = True
        else:
          self.out[worker.doing.pop(0)] = Outcome(*message)
    except (EOFError, OSError, pickle.UnpicklingError):
      self._lose(i, "it killed its worker")

  def _check(self, i):
    worker = self.pool.worker(i)
    if worker.doing and self.now() > worker.last + self.allowed:
      self._lose(i, f"no answer after {self.allowed:g} s")
    elif not worker.ready and time.monotonic() > worker.started + START_SECONDS:
      raise RuntimeError(f"a reward worker did not start within {START_SECONDS:g} s")

  def _lose(self, i, why):
    """The sample in work is lost, the rest of its chunk goes back."""
    worker = self.pool.worker(i)
    if not worker.ready:
      raise RuntimeError("a reward worker does not start; its message stands above")
    if worker.doing:
      self.out[worker.doing[0]] = Outcome("timeout", error=why)
      self.waiting += worker.doing[:0:-1]
    self.pool.restart(i)

  def _give_up(self, busy):
    for i in busy:
      if self.pool.worker(i).doing:
        self.pool.restart(i)
    self.out = [o or Outcome("skipped", error="the reward's time was over") for o in self.out]
