"""What every loop does around its steps: restore, save, evaluate, log, listen, finish."""

import contextlib
import time
from typing import Any

from rljax import config as config_lib
from rljax.train import checkpoint, distributed, preempt, progress, runlog
from rljax.train import scalars as scalars_lib
from rljax.types import PyTree


class Runner:
  """A run in its folder. A subclass says what a step is, what is saved, and what is measured:

    step(step) -> scalars, evaluate(step) -> scalars named eval/<set>/<metric>;
    init(), abstract(), arrays(), load(arrays): the state on the devices;
    outcome() -> what `run` returns, summary(seconds) -> its own fields of result.json.

  `host` is the state that is no array: plain data, saved with every checkpoint.
  """

  def __init__(self, config, workdir: str, *, quiet: bool = False, episodes_max_bytes: int = 0,
               hosts: distributed.Hosts = distributed.ALONE):
    self.config, self.workdir, self.hosts = config, workdir, hosts
    self.checkpoints = checkpoint.Checkpoints(
        checkpoint.folder_of(config, workdir), keep=config.checkpoint.keep, hosts=hosts)
    self.quiet = quiet or not hosts.main
    self.host: dict[str, Any] = {"eval_before": {}, "seconds": 0.0, "skipped": 0, "faults": {}}
    self._max_bytes = episodes_max_bytes

  def start(self) -> int:
    """Restores or creates the state and opens the logs; the first step to run."""
    with self.hosts.phase("restore or initialise"):
      first = self._restore()
    self.log = runlog.RunLog(
        self.workdir, resume_step=first, max_bytes=self._max_bytes
    ) if self.hosts.main else runlog.NoLog()
    self.progress = progress.Progress(self.config.steps, stream=_Null() if self.quiet else None)
    self.began = time.monotonic() - self.host["seconds"]
    return first

  def stop(self) -> None:
    self.progress.close()
    self.log.close()
    self.checkpoints.close()

  def run(self) -> Any:
    config = self.config
    first = self.start()
    step, scalars = first, {}
    with contextlib.ExitStack() as stack:
      stack.callback(self.stop)
      told = stack.enter_context(preempt.notice())
      while step < config.steps:
        if step == first or step % max(config.checkpoint.every, 1) == 0:
          self._save(step)
        scalars = {}
        if step == 0 or (config.eval.every and step % config.eval.every == 0):
          scalars.update(self.evaluate(step))
          if step == 0:
            self.host["eval_before"] = dict(scalars)
        scalars.update(self.step(step))
        self.log.metrics(step, scalars)
        step += 1
        self.progress.update(step, scalars)
        reasons = [r for r in self.hosts.each("step", lambda: told.reason) if r]
        if reasons and step < config.steps:
          self._save(step)
          raise preempt.Preempted(f"{reasons[0]}: the run ended with a checkpoint of step {step}; "
                                  f"the same command continues it")
      self._save(step)
      self._finish(step)
    return self.outcome()

  def note_faults(self, faults) -> None:
    for kind, count in faults.items():
      if count:
        self.host["faults"][kind] = self.host["faults"].get(kind, 0) + int(count)

  def _restore(self) -> int:
    found = self.checkpoints.restore(self.abstract())
    if found is None:
      self.init()
      return 0
    step, arrays, host = found
    self.load(arrays)
    self.host.update({k: v for k, v in host.items() if k in self.host})
    return step

  def _save(self, step):
    self.host["seconds"] = time.monotonic() - self.began
    with self.hosts.phase("checkpoint"):
      self.checkpoints.save(step, self.arrays(), self.host)

  def _finish(self, step):
    after = self.evaluate(step)
    if after:
      self.log.metrics(step, after)
    seconds = time.monotonic() - self.began
    short = lambda d: scalars_lib.nest(
        {k[len("eval/"):]: v for k, v in d.items()}, self.config.evals)
    self.log.result({
        "status": "done", "steps": step, "seconds": seconds,
        "eval": {"before": short(self.host["eval_before"]), "after": short(after)},
        "config_hash": config_lib.digest(self.config), "skipped_updates": self.host["skipped"],
        "faults": self.host["faults"], **self.summary(seconds)})

  # --- what a subclass says ---

  def step(self, step: int) -> dict[str, float]:
    raise NotImplementedError

  def evaluate(self, step: int) -> dict[str, float]:
    raise NotImplementedError

  def init(self) -> None:
    raise NotImplementedError

  def abstract(self) -> PyTree:
    raise NotImplementedError

  def arrays(self) -> PyTree:
    raise NotImplementedError

  def load(self, arrays: PyTree) -> None:
    raise NotImplementedError

  def outcome(self) -> Any:
    raise NotImplementedError

  def summary(self, seconds: float) -> dict[str, Any]:
    raise NotImplementedError


class _Null:
  def write(self, text):
    pass

  def flush(self):
    pass
