"""Runs arms x seeds as `rljax-train` processes: cached by config hash, resumable, with a progress.

A run lives in <folder>/<arm>-s<seed>-<hash>; it is done when its result.json says so. Every run
holds a lock on its folder for as long as its process lives, even if this process was killed: a
second `rljax-reproduce` waits for it instead of writing into the same folder.
"""

import dataclasses
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence

from rljax import config as config_lib
from rljax.reproduce import papers
from rljax.train import runlog

ConfigError = config_lib.ConfigError


@dataclasses.dataclass(frozen=True)
class Job:
  """One run to do: what `rljax-train` is told, and where it writes."""

  arm: str
  seed: int
  spec: str
  steps: int
  workdir: pathlib.Path

  @property
  def label(self) -> str:
    return f"{self.arm} seed {self.seed}"

  def command(self) -> list[str]:
    return [sys.executable, "-m", "rljax.main", "--config", self.spec,
            f"--config.seed={self.seed}", "--workdir", str(self.workdir)]

  def result(self) -> dict | None:
    """result.json of the finished run, or None."""
    try:
      result = json.loads((self.workdir / "result.json").read_bytes())
    except (OSError, ValueError):
      return None
    return result if result.get("status") == "done" and result.get("steps") == self.steps else None

  def done_steps(self) -> int:
    """How far it is, from the last whole line of its metrics."""
    rows = runlog.read_metrics(self.workdir)
    return rows[-1]["step"] + 1 if rows else 0


def plan(paper: papers.Paper, folder: pathlib.Path, arms: Sequence[str], seeds: Sequence[int], *,
         quick: bool) -> list[Job]:
  """All runs, seed by seed, so that a first seed of every arm is there early."""
  jobs = []
  for seed in seeds:
    for arm in arms:
      spec = paper.spec(arm, quick=quick)
      config = config_lib.load(spec, {"seed": seed})
      workdir = folder / f"{arm}-s{seed}-{config_lib.digest(config)[:8]}"
      jobs.append(Job(arm, seed, spec, config.steps, workdir))
  return jobs


def run_all(jobs: Sequence[Job], *, at_once: int = 1, stream=None) -> None:
  """Runs what is not done yet, `at_once` processes at a time; a failure does not stop the others.

  Raises:
    ConfigError: at the end, if runs failed; the message holds the end of their logs.
  """
  stream = stream or sys.stderr
  waiting = [j for j in jobs if j.result() is None]
  display = _Display(len(jobs), len(jobs) - len(waiting), stream)
  active: dict[Job, _Process] = {}
  failures = []
  try:
    while waiting or active:
      while waiting and len(active) < at_once:
        job = waiting.pop(0)
        if job.result() is None:  # an earlier process may have finished it meanwhile
          active[job] = _Process(job, stream)
      for job, process in list(active.items()):
        if process.ended():
          failure = process.failure()
          failures += [failure] if failure else []
          display.finished(job, "failed" if failure else duration(process.seconds()))
          del active[job]
      display.show(active, waiting)
      time.sleep(0.5)
  finally:
    for process in active.values():
      process.stop()
    display.close()
  if failures:
    raise ConfigError(f"{len(failures)} of {len(jobs)} runs failed; the same command tries them "
                      "again:\n" + "\n".join(failures))


class _Process:
  """A child that trains, and the lock of its folder."""

  def __init__(self, job: Job, stream):
    self.job, self._began = job, time.monotonic()
    job.workdir.mkdir(parents=True, exist_ok=True)
    self._lock = open(job.workdir / "lock", "w")
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      stream.write(f"{job.label}: waiting for a process that still runs it\n")
      fcntl.flock(self._lock, fcntl.LOCK_EX)
    self._log = open(job.workdir / "log.txt", "ab")
    env = dict(os.environ)
    # Seeds of an arm run the same programs: compile them once.
    env.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(runlog.cache_folder(), "compiled"))
    env.setdefault("JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    self._child = subprocess.Popen(
        job.command(), stdout=self._log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        env=env, pass_fds=[self._lock.fileno()])  # the child keeps the lock if this process dies

  def ended(self) -> bool:
    return self._child.poll() is not None

  def failure(self) -> str:
    """Of a process that ended: what went wrong, with the end of its log; "" if nothing did."""
    self._close()
    if self.job.result() is not None:
      return ""
    tail = (self.job.workdir / "log.txt").read_text(errors="replace").strip().splitlines()[-5:]
    return (f"{self.job.label} ended with code {self._child.returncode} "
            f"({self.job.workdir}/log.txt):\n  " + "\n  ".join(tail))

  def seconds(self) -> float:
    return time.monotonic() - self._began

  def stop(self) -> None:
    self._child.terminate()
    try:
      self._child.wait(30)
    except subprocess.TimeoutExpired:
      self._child.kill()
      self._child.wait()
    self._close()

  def _close(self):
    self._lock.close()
    self._log.close()


class _Display:
  """One line: how many runs are done, what is running, when all will be."""

  def __init__(self, total: int, cached: int, stream):
    self._total, self._cached, self._done = total, cached, 0
    self._stream, self._tty = stream, bool(getattr(stream, "isatty", lambda: False)())
    self._began, self._shown, self._width = time.monotonic(), 0.0, 0
    if cached:
      stream.write(f"{cached} of {total} runs are done already\n")

  def finished(self, job: Job, how: str) -> None:
    self._done += 1
    self._line(f"[{self._cached + self._done}/{self._total}] {job.label}: {how}")
    self._stream.write("\n")
    self._width = 0

  def show(self, active, waiting) -> None:
    now = time.monotonic()
    if not active or now - self._shown < (1 if self._tty else 60):
      return
    self._shown = now
    parts, share = [], 0.0
    for job in active:
      step = job.done_steps()
      share += step / max(job.steps, 1)
      parts.append(f"{job.label} step {step}/{job.steps}")
    worked = self._done + share
    left = len(active) - share + len(waiting)
    eta = duration((now - self._began) * left / worked) if worked > 0.05 else "?"
    self._line(f"[{self._cached + self._done}/{self._total}] {'  '.join(parts)}  eta {eta}")
    if not self._tty:
      self._stream.write("\n")

  def close(self) -> None:
    if self._tty and self._width:
      self._stream.write("\n")

  def _line(self, text):
    self._stream.write(("\r" if self._tty else "") + text.ljust(self._width))
    self._stream.flush()
    self._width = len(text) if self._tty else 0


def duration(seconds: float) -> str:
  """"45s", "12m05s", "3h20m"."""
  s = max(0, round(seconds))
  if s < 60:
    return f"{s}s"
  return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"
