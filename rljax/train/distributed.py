"""Several hosts, one run: who is who, what they tell each other, and which of them is missing.

Every host runs the same command and the same loop. What is split (rollouts, rewards) each does for
its part, on its own devices; `over` then gives every part to every host, so that all that follows
is the same everywhere. Updates run on the devices of all hosts. On one host this is the identity.

Where the hosts are, the environment says, in the words of the same command on each of them:

  RLJAX_COORDINATOR     address:port of host 0, or "auto" (Slurm, Open MPI, TPU); on the hosts of a
                        TPU slice it may be left out
  RLJAX_PROCESSES       how many there are
  RLJAX_PROCESS         which one this is, from 0
  RLJAX_START_DEADLINE  seconds until all have come (300)
  RLJAX_DEADLINE        seconds that a phase of a step may take, compilations included (1800)

A host that dies or stalls ends the run on all of them with RESUMABLE, or a signal; the same command
on all of them continues it.
"""

import contextlib
import os
import pathlib
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rljax import config as config_lib
from rljax.train import preempt

RESUMABLE = 75  # exit code: run the same command again
PATIENCE = 5.0  # seconds that host 0 has to say who is in which phase
_KEY = "rljax/phase/"
_TPU = ("/dev/accel0", "/dev/vfio/0")


class HostFailed(Exception):
  """Another host raised what is no ConfigError, or did not come."""


class Hosts:
  """The hosts of a run, seen from one of them.

  Args:
    index, count: which one this is, and of how many.
    deadline: seconds in a phase after which the watchdog ends this process; 0 = never.
    board: where hosts say which phase they are in (`key_value_set`, `key_value_dir_get`).
  """

  def __init__(self, index: int = 0, count: int = 1, *, deadline: float = 0.0, board=None):
    self.index, self.count, self.deadline, self._board = index, count, deadline, board
    self._phase, self._since, self._serial = "", time.monotonic(), 0
    if deadline and board is not None:
      threading.Thread(target=self._watch, daemon=True, name="watchdog").start()

  @property
  def main(self) -> bool:
    """Whether this host writes the run folder."""
    return self.index == 0

  def parts(self, groups: Sequence, whole: bool = False) -> list[list[int]]:
    """Per host, the rows that are its own: whole groups, as even as they come, in order.

    Args:
      groups: one label per row.
      whole: host 0 has all of them.
    """
    number = {g: n for n, g in enumerate(dict.fromkeys(groups))}
    out: list[list[int]] = [[] for _ in range(self.count)]
    for row, g in enumerate(groups):
      out[0 if whole else number[g] * self.count // len(number)].append(row)
    return out

  def over(self, name: str, groups: Sequence, work: Callable[[list[int]], Any], *,
           whole: bool = False) -> list[tuple[list[int], Any]]:
    """`work(rows)` on every host for its part; (rows, what came of them) of all, on all."""
    parts = self.parts(groups, whole)
    mine = parts[self.index]
    said = self.each(name, lambda: work(mine) if mine or self.count == 1 else None)
    return [(rows, s) for rows, s in zip(parts, said) if rows or self.count == 1]

  def first(self, name: str, work: Callable[[], Any]) -> Any:
    """What host 0 makes of it, on all."""
    return self.each(name, lambda: work() if self.main else None)[0]

  def each(self, name: str, work: Callable[[], Any]) -> list:
    """`work()` of every host, on all, in their order. What one raises is raised on all.

    Raises:
      ConfigError: whatever one of them raised as such. HostFailed: another error on another host.
    """
    with self.phase(name):
      if self.count == 1:
        return [work()]
      mine, error = b"", None
      try:
        mine = pickle.dumps(work())
      except Exception as e:  # kept until all know of it: they would wait for this host for ever
        error = e
      problem = error and (isinstance(error, config_lib.ConfigError), _line(error))
      self._enter(f"{name}, waiting for the others")
      said = [pickle.loads(x) for x in _exchange(pickle.dumps((problem, mine)))]
    if error is not None:
      raise error
    for host, (problem, _) in enumerate(said):
      if problem:
        mend, text = problem
        raise config_lib.ConfigError(text) if mend else HostFailed(f"host {host}: {text}")
    return [pickle.loads(x) for _, x in said]

  # --- the watchdog ---

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    """While inside, the watchdog counts the seconds of this phase; between phases it does not."""
    before = self._phase
    self._enter(name)
    try:
      yield
    finally:
      self._enter(before)

  def _enter(self, name):
    if self._board is None:
      return
    self._phase, self._since, self._serial = name, time.monotonic(), self._serial + 1
    self._board.key_value_set(f"{_KEY}{self.index}", f"{self._serial} {name or 'the loop'}",
                              allow_overwrite=True)

  def _watch(self):
    while True:
      time.sleep(min(1.0, self.deadline / 4))
      name, since = self._phase, self._since
      if name and time.monotonic() - since > self.deadline:
        stalled = f"no progress for {self.deadline:g} s in phase {name!r}; {self._others()}"
        print(f"rljax: host {self.index}: {stalled}; the same command continues from the last "
              f"checkpoint", file=sys.stderr, flush=True)
        os._exit(RESUMABLE)

  def _others(self) -> str:
    """Who is in which phase, and who is behind, as far as host 0 still answers."""
    box: list = []
    ask = threading.Thread(target=lambda: box.extend(self._board.key_value_dir_get(_KEY)),
                           daemon=True)
    ask.start()
    ask.join(PATIENCE)
    if not box:
      return "host 0 does not answer"
    found = {}
    for key, value in box:
      serial, _, phase = value.partition(" ")
      found[int(key.rpartition("/")[2])] = int(serial), phase
    last = min(serial for serial, _ in found.values())
    behind = [f"host {h} in {phase!r}" for h, (serial, phase) in sorted(found.items())
              if serial == last]
    return f"behind all others: {', '.join(behind)}" if len(behind) < len(found) else (
        f"all hosts are in {found[self.index][1]!r}")


ALONE = Hosts()


def start() -> Hosts:
  """Meets the other hosts, before anything else is asked of jax; ALONE if there are none.

  Raises:
    ConfigError: the environment does not say who is who. HostFailed: some did not come in time.
  """
  env = {k: os.environ.get(f"RLJAX_{k}", "") for k in ("COORDINATOR", "PROCESSES", "PROCESS")}
  automatic = env["COORDINATOR"] == "auto" or (not any(env.values()) and _on_tpu_slice())
  if not automatic and not any(env.values()):
    return ALONE
  who = {} if automatic else _named(env)
  wait, deadline = (_seconds(f"RLJAX_{k}", default)
                    for k, default in (("START_DEADLINE", 300), ("DEADLINE", 1800)))
  jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is heard by `preempt`
  if "cpu" in (os.environ.get("JAX_PLATFORMS") or "cpu"):
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  began = time.monotonic()
  try:
    jax.distributed.initialize(
        **who, initialization_timeout=int(wait), heartbeat_timeout_seconds=100,
        shutdown_timeout_seconds=int(min(300, deadline)))
  except Exception as e:
    raise HostFailed(
        f"the hosts of this run did not meet within {time.monotonic() - began:.0f} s "
        f"({_line(e)}); was the same command started on all of them?") from None
  from jax._src import distributed  # the board of the coordinator has no public name
  count = jax.process_count()
  if count == 1:
    return ALONE
  return Hosts(jax.process_index(), count, deadline=deadline,
               board=distributed.global_state.client)


def leave(code: int) -> int:
  """Ends a process of several at once: an ordinary end would wait for hosts that are not there.

  Alone, it returns the code.
  """
  if code and jax.distributed.is_initialized():
    time.sleep(2.0)  # without the first host, if this is it, the others cannot end in order
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code


@contextlib.contextmanager
def resumable() -> Iterator[None]:
  """Whatever breaks among several hosts, such as a lost connection, is an end to be continued."""
  try:
    yield
  except (preempt.Preempted, KeyboardInterrupt):
    raise
  except config_lib.ConfigError as e:
    if jax.distributed.is_initialized():
      print(f"rljax: {e}", file=sys.stderr)
      leave(2)
    raise
  except Exception as e:
    if not jax.distributed.is_initialized() and not isinstance(e, HostFailed):
      raise
    if not isinstance(e, HostFailed):
      traceback.print_exc()
    print(f"rljax: {_line(e)}; the same command on all hosts continues from the last checkpoint",
          file=sys.stderr)
    raise SystemExit(leave(RESUMABLE)) from None


def _named(env):
  try:
    count, index = int(env["PROCESSES"]), int(env["PROCESS"])
  except ValueError:
    count, index = 0, -1
  if ":" not in env["COORDINATOR"] or not 0 <= index < count:
    shown = ", ".join(f"RLJAX_{k}={v!r}" for k, v in env.items())
    raise config_lib.ConfigError(
        f"several hosts need RLJAX_COORDINATOR=address:port (or auto), RLJAX_PROCESSES and "
        f"RLJAX_PROCESS, from 0; found {shown}")
  return {"coordinator_address": env["COORDINATOR"], "num_processes": count, "process_id": index}


def _seconds(name, default):
  text = os.environ.get(name, "")
  try:
    value = float(text or default)
  except ValueError:
    value = 0.0
  if not value >= 1:
    raise config_lib.ConfigError(f"{name}={text!r}: a number of seconds, at least 1")
  return value


def _on_tpu_slice():
  """Whether this machine is one of several that hold a TPU slice."""
  if not any(pathlib.Path(p).exists() for p in _TPU):
    return False
  named = os.environ.get("TPU_WORKER_HOSTNAMES", "")
  if not named and preempt.on_google_cloud():
    with contextlib.suppress(OSError):
      named = preempt.metadata("attributes/worker-network-endpoints")
  return "," in named


def _exchange(data: bytes) -> list[bytes]:
  """The bytes of every host, on all: padded to few lengths, since each is a program of its own."""
  sizes = np.asarray(multihost_utils.process_allgather(np.int32(len(data)))).reshape(-1)
  room = np.zeros(max(1024, 1 << (int(sizes.max()) - 1).bit_length()), np.uint8)
  room[:len(data)] = np.frombuffer(data, np.uint8)
  rows = np.asarray(multihost_utils.process_allgather(room))
  return [row[:n].tobytes() for row, n in zip(rows, sizes, strict=True)]


def _line(error: BaseException) -> str:
  if isinstance(error, config_lib.ConfigError):
    return str(error)
  return f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
