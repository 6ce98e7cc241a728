"""The rollouts of a run: tasks drawn, episodes sampled, on every host its part.

With `lag` a step's rollout begins in the step before, beside the updates, with the weights that are
held at that moment. What was drawn and since when they are held is part of the checkpoint, so a
run that was killed samples the same again.
"""

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from rljax import config as config_lib
from rljax import rng, types
from rljax.train import build, distributed


class Rollouts:
  """Samples for one step after the other.

  Args:
    run: the recipe. hosts: those that sample together.
    host: the state of the run; this reads and writes "curriculum", "drawn" and "held", and
      reads "memories".
  """

  def __init__(self, run: build.Run, hosts: distributed.Hosts, host: dict[str, Any]):
    self.r, self.config, self.hosts, self.host = run, run.config, hosts, host
    self._ahead: Callable[[], list[types.Episode]] | None = None  # what has begun
    self._made: dict[int, types.Task] = {}  # the tasks that were drawn last, by number
    self._pool = concurrent.futures.ThreadPoolExecutor(1)

  def take(self, step: int) -> tuple[list[types.Episode], list[int], dict[str, int]]:
    """The episodes of a step, the numbers of their tasks, and faults."""
    episodes = (self._ahead or self._next(step, aside=False))()
    drawn, self._ahead, self.host["drawn"] = self.host["drawn"], None, None
    return episodes, drawn["indices"], {"long_prompt": n} if (n := drawn["skipped"]) else {}

  def look_ahead(self, step: int) -> None:
    """Begins a step to come by the weights of this moment, while they go on."""
    self.r.roles.hold()
    self.host.update(held=step - 1, drawn=self._draw())
    if step < self.config.steps:
      self._ahead = self._next(step, aside=True)

  @contextlib.contextmanager
  def aside(self) -> Iterator[None]:
    """Inside, samplers read the newest weights, and nothing else samples."""
    self._pool.submit(int).result()  # what has begun ends first
    lagging, self.r.roles.lagging = self.r.roles.lagging, False
    try:
      yield
    finally:
      self.r.roles.lagging = lagging

  def close(self) -> None:
    self._pool.shutdown()

  def _draw(self) -> dict[str, Any]:
    """The numbers of the next tasks whose prompts fit, and how many were skipped as too long."""
    c, r = self.config, self.r
    indices, skipped, self._made = [], 0, {}
    while len(indices) < c.prompts:
      drawn, self.host["curriculum"] = r.curriculum.draw(
          self.host["curriculum"], c.seed, c.prompts - len(indices))
      for i in drawn:
        task = r.tasks[i]
        n = len(r.tokenizer.render(task.prompt))
        if n <= c.limits.prompt:
          indices.append(int(i))
          self._made[int(i)] = task
          continue
        skipped += 1
        if c.limits.on_long_prompt == "error":
          raise config_lib.ConfigError(
              f"task {task.id}: its prompt has {n} tokens, limits.prompt is {c.limits.prompt}; "
              f"raise it, or set limits.on_long_prompt='skip'")
        if skipped > 10 * c.prompts and skipped > 10 * len(indices):
          raise config_lib.ConfigError(
              f"{skipped} of {skipped + len(indices)} prompts are longer than limits.prompt="
              f"{c.limits.prompt}")
    return {"indices": indices, "skipped": skipped}

  def _next(self, step, aside):
    """Draws the tasks of a step, unless they were drawn before the run was killed, and samples."""
    self.host["drawn"] = self.host["drawn"] or self._draw()
    tasks = [self._made.get(i) or self.r.tasks[i] for i in self.host["drawn"]["indices"]]
    for name, memory in self.r.memories.items():
      tasks = memory.tasks(self.host["memories"][name], tasks,
                           rng.host(self.config.seed, "memory", name, step))
    key = rng.key(self.config.seed, "rollout", step)
    return self.begin(self.r.rollout, tasks, key, aside=aside)

  def begin(self, rollout, tasks, key, *, aside: bool = False):
    """() -> the episodes of all tasks, of which every host samples those of its part.

    Args:
      aside: begin now, beside the caller; else when they are asked for.
    """
    self.r.roles.publish()
    numbers, whole = range(len(tasks)), types.is_whole(rollout)
    part = self.hosts.parts(numbers, whole)[self.hosts.index]
    work = lambda: rollout(self.r.samplers, [tasks[i] for i in part], key)
    if aside and part:
      work = self._pool.submit(work).result

    def ask():
      said = self.hosts.over("rollout", numbers, lambda _: work(), whole=whole)
      return said[0][1] if len(said) == 1 else _joined(said)
    return ask


def _joined(said) -> list[types.Episode]:
  """The episodes of several hosts, each with the numbers of its tasks; groups numbered anew."""
  out = []
  for part, episodes in said:
    if any(e.group >= len(part) for e in episodes):
      raise config_lib.ConfigError("the rollout makes groups of its own, and cannot be split over "
                                   "hosts: mark it with rljax.types.whole")
    out += [dataclasses.replace(e, group=part[e.group]) for e in episodes]
  return out
