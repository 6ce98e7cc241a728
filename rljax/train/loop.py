"""The loop: tasks -> rollout -> rewards -> select -> updates, with checkpoints and a run folder."""

import collections
import dataclasses
import functools
import json
import os
from typing import Any

import jax
import numpy as np

from rljax import config as config_lib
from rljax import packed, rng, sharding, types
from rljax.data import collate, curriculum
from rljax.rewards import run as rewards_lib
from rljax.train import build as build_lib
from rljax.train import distributed, preflight, runlog, runner
from rljax.train import rollouts as rollouts_lib
from rljax.train import scalars as scalars_lib

# Keys that may differ between a run and its continuation.
FREE = ("steps", "eval", "evals", "data.eval_path", "checkpoint", "episodes_max_bytes", "name")


def train(config, workdir: str, *, devices=None, quiet: bool = False,
          hosts: distributed.Hosts = distributed.ALONE) -> dict[str, Any]:
  """Runs a recipe to its end, or continues it; returns the states of all roles.

  A recipe with a `loop` of its own is run by that: a leaf of a function with these arguments, that
  returns what it likes.

  The run folder is described in `rljax.train.runlog`. Killing the process at any moment and calling
  this again gives the run that was never killed.

  Args:
    config: as `rljax.config.load` returns it.
    workdir: the run folder; one config per folder.
    devices: jax devices to use; default all.
    quiet: no progress line.
    hosts: those that run this together; the first of them writes the run folder.

  Raises:
    ConfigError: whatever the user can mend, in one sentence.
    Preempted: the process was told to leave, and has written a checkpoint.
  """
  digest = config_lib.digest(config)
  hosts.first("open", lambda: runlog.open_workdir(
      workdir, config_lib.to_dict(config), digest, free=FREE))
  for host, other in enumerate(hosts.each("meet", lambda: digest)):
    if other != digest:
      raise config_lib.ConfigError(f"host {host} was started with another config")
  if "loop" in config:  # a recipe may bring its own
    own = config_lib.bind(config.loop, where="config.loop")
    return own(config, workdir, devices=devices, quiet=quiet, hosts=hosts)
  run = build_lib.build(config, devices=devices)
  return Loop(run, workdir, quiet=quiet, hosts=hosts).run()


class Loop(runner.Runner):
  """The state of a running recipe that is not weights: curriculum, counters, the logs."""

  def __init__(self, run: build_lib.Run, workdir: str, *, quiet: bool = False,
               hosts: distributed.Hosts = distributed.ALONE):
    super().__init__(run.config, workdir, quiet=quiet, hosts=hosts,
                     episodes_max_bytes=run.config.episodes_max_bytes)
    self.r = run
    self.host |= {"curriculum": run.curriculum.init(), "drawn": None, "held": 0, "tokens": 0,
                  "memories": {name: m.init() for name, m in run.memories.items()}}
    self.rollouts = rollouts_lib.Rollouts(run, hosts, self.host)

  def stop(self) -> None:
    self.rollouts.close()
    super().stop()

  def step(self, step: int) -> dict[str, float]:
    clock = scalars_lib.Clock()
    episodes, indices, faults = self.rollouts.take(step)
    clock.lap("sample")
    episodes, more = rewards_lib.score_all(
        episodes, self.r.rewards, self.r.reward_weights, self._context(step),
        deadline=self.config.reward_deadline, over=self.hosts.over)
    episodes, remembered, odd = self._remember(step, episodes)
    faults = collections.Counter(faults) + collections.Counter(more) + collections.Counter(odd)
    self.note_faults(faults)
    if step == 0:
      self.hosts.first("preflight", lambda: self._preflight(episodes, faults, len(indices)))
    self.host["curriculum"] = self.r.curriculum.update(
        self.host["curriculum"], indices, curriculum.by_task(
            indices, [e.group for e in episodes],
            [e.scores.get("reward", float("nan")) for e in episodes]))
    scalars = {**scalars_lib.of_episodes(episodes), **remembered}
    scalars.update({f"curriculum/{k}": v for k, v in self.r.curriculum.metrics(
        self.host["curriculum"]).items()})
    chosen = self.r.select(episodes) if self.r.select else episodes
    due, more = self._due(step, chosen)
    clock.lap("reward")
    if self.config.lag:
      scalars["sample/lag"] = float(step - self.host["held"])
      self.rollouts.look_ahead(step + 1)
    # All are prepared before any weight moves, so that critic and policy read the same values.
    batches = {name: self._prepare(self.r.updates[name], some) for name, some in due.items()}
    faults.update(more)
    said = {}
    for name in list(batches):
      with self.hosts.phase(f"update {name}"):
        update = self.r.updates[name]
        said[name] = self._update(step, name, update, batches.pop(name))
        self.r.roles.follow(update.role, step)
    clock.lap("update")
    self.log.episodes(step, episodes)  # while the devices work
    clock.lap("log")
    for name, metrics in said.items():
      prefix = "" if len(self.r.updates) == 1 else f"{name}/"
      with self.hosts.phase(f"metrics of {name}"):
        scalars.update({prefix + k: v for k, v in _numbers(metrics).items()})
    clock.lap("update")
    tokens = sum(e.num_actions for e in episodes)
    self.host["tokens"] += tokens
    self.host["skipped"] += int(sum(v for k, v in scalars.items() if k.endswith("update/skipped")))
    scalars.update({f"faults/{k}": float(v) for k, v in faults.items()})
    scalars.update(clock.scalars(), **{"time/tokens_per_second": tokens / clock.total()})
    return scalars

  # --- parts of a step ---

  def _context(self, step) -> rewards_lib.Context:
    def sample(role, prompts, seeds, **settings):
      key = rng.key(self.config.seed, "reward", step)
      return self.r.samplers[role].generate(prompts, seeds, key, **settings)
    ask = self.r.scorer
    return rewards_lib.Context(step, self.config.seed, self.r.tokenizer, sample=sample,
                               score=ask.score, value=ask.value, uniform_kl=ask.uniform_kl)

  def _remember(self, step, episodes) -> tuple[list, dict[str, float], dict[str, int]]:
    """The episodes as the memories change them, the memories' metrics, and what went wrong."""
    states, ctx, scalars = self.host["memories"], self._context(step), {}
    for name, memory in self.r.memories.items():
      states[name], episodes = memory.update(states[name], episodes, ctx)
      scalars.update({f"{name}/{k}": v for k, v in memory.metrics(states[name]).items()})
    return episodes, scalars, dict(ctx.faults)

  def _due(self, step, episodes) -> tuple[dict[str, list[types.Episode]], dict[str, int]]:
    """The episodes of every update that is due, and what went wrong while deriving them."""
    out, ctx = {}, self._context(step)
    for name, update in self.r.updates.items():
      if update.every and (step + 1) % update.every == 0:
        out[name] = update.derive(episodes, ctx) if update.derive else episodes
    self.note_faults(ctx.faults)
    return out, dict(ctx.faults)

  def _prepare(self, update, episodes) -> types.Batch | None:
    """The batch of an update on the devices, with all that the current weights say about it; None
    if there is no episode to train on."""
    roles = self.r.roles
    if update.speaker:
      episodes = [e for e in episodes if e.info.get("role", "policy") == update.speaker]
    if not episodes:
      return None
    host_batch = collate.collate(episodes, shapes=update.shapes, pad_id=self.r.tokenizer.pad_id,
                                 discount=update.discount)
    if update.pack is not None:
      packed = update.pack(host_batch)
      self.note_faults({"not_packed": packed is None})  # they did not fit: one row each, slower
      host_batch = host_batch if packed is None else packed
    batch = sharding.put_rows(host_batch, self.r.mesh)
    ref, value = (roles.params(r) if r else None for r in (update.ref, update.value))
    with _guard():
      return update.prepare(roles.params(update.role), ref, batch, value)

  def _update(self, step, name, update, batch) -> list[packed.Packed]:
    """Moves the weights; the metrics of every part, still on the devices."""
    if batch is None:
      return []
    roles, owner = self.r.roles, self.r.roles.owner(update.role)
    base = roles.base(owner)
    collected = []
    orders = [sharding.put_replicated(
        _order(rng.host(self.config.seed, "minibatch", step, name, e), update), self.r.mesh)
              for e in range(update.epochs)] if update.slice else [None]
    parts = [sharding.put_replicated(np.int32(i), self.r.mesh) for i in range(update.minibatches)]
    with _guard():
      for order in orders:
        for part in parts:
          piece = update.slice(batch, order, part) if update.slice else batch
          roles.states[owner], metrics = update.step(roles.states[owner], piece, base)
          collected.append(metrics)
    return collected

  def evaluate(self, step) -> dict[str, float]:
    out = {}
    with self.rollouts.aside():
      for name, tasks in self.r.evals.items():
        out.update(self._evaluate(step, name, tasks))
    return out

  def _evaluate(self, step, name, tasks) -> dict[str, float]:
    """Samples every problem of one set with the same noise each time; logs the episodes."""
    c = self.config.eval
    problems, fitting = self.r.problems(tasks, c.limit)
    if not fitting:
      raise config_lib.ConfigError(f"config.evals.{name}: no problem has a prompt that fits")
    key = rng.key(self.config.seed, "eval", name)
    episodes = self.rollouts.begin(self.r.eval_rollout, fitting, key)()
    ctx = self._context(step)
    episodes, faults = rewards_lib.score_all(
        episodes, {c.score: self.r.eval_verifier}, {}, ctx, deadline=self.config.reward_deadline,
        over=self.hosts.over)
    faults["long_prompt"] = len(problems) - len(fitting)
    self.note_faults(faults)
    scalars = {**self._measured(name, episodes, problems, ctx),
               "length": float(np.mean([e.num_actions for e in episodes])),
               "truncated": float(np.mean([e.status == types.LENGTH for e in episodes]))}
    marked = [dataclasses.replace(e, info={
        **e.info, "phase": f"eval/{name}", **({"by": str(e.task.info[c.by])} if c.by else {})})
              for e in episodes]
    self.log.episodes(step, marked)
    return {f"eval/{name}/{k}": v for k, v in scalars.items()}

  def _measured(self, name, episodes, problems, ctx) -> dict[str, float]:
    """The metrics of all problems; with eval.by, "<value>/..." of each value's and the "worst/"."""
    by = self.config.eval.by
    out = dict(self.r.measure(episodes, len(problems), ctx))
    if not by:
      return out
    values = [str(t.info[by]) for t in problems if by in t.info]
    if len(values) < len(problems):
      raise config_lib.ConfigError(f"config.eval.by={by!r}: {len(problems) - len(values)} tasks of "
                                   f"evals.{name} have no such info")
    groups: dict[str, list] = {}
    for e in episodes:
      groups.setdefault(str(e.task.info[by]), []).append(e)
    found = {v: self.r.measure(some, values.count(v), ctx) for v, some in groups.items()}
    metrics = set.intersection(*map(set, found.values()))
    found["worst"] = {k: min(numbers[k] for numbers in found.values()) for k in metrics}
    return {**out, **{f"{v}/{k}": x for v, numbers in found.items() for k, x in numbers.items()}}

  # --- begin and end ---

  def init(self):
    self.r.roles.init()

  def abstract(self):
    return self.r.roles.abstract()

  def arrays(self):
    return self.r.roles.saved()

  def load(self, arrays):
    self.r.roles.restore(arrays)

  def outcome(self):
    return self.r.roles.states

  def summary(self, seconds):
    return {"tokens_per_second": self.host["tokens"] / max(seconds, 1e-9),
            "parameters": self._parameters()}

  def _parameters(self):
    roles = self.r.roles
    return {n: int(sum(x.size for x in jax.tree.leaves(roles.params(n)))) for n in roles.states}

  def _preflight(self, episodes, faults, drawn):
    limits = self.config.limits
    report = preflight.check(
        episodes, response_limit=limits.response, prompt_limit=limits.prompt,
        skipped_prompts=faults.get("long_prompt", 0),
        drawn_prompts=drawn + faults.get("long_prompt", 0))
    runlog.write_json(os.path.join(self.workdir, "preflight.json"), report)
    for warning in report["warnings"]:
      self.progress.note(f"PREFLIGHT: {warning}")


def _numbers(collected: list[packed.Packed]) -> dict[str, float]:
  """The metrics of an update; waits for it."""
  if not collected:
    return {"update/skipped": 1.0}
  total = functools.reduce(types.merge_metrics, map(packed.unpack, jax.device_get(collected)))
  return {k: float(m.compute()) for k, m in total.items()}


def _order(generator, update) -> np.ndarray:
  """All rows of a batch in a new order that keeps the rows of a unit together, int32 [B]."""
  unit_U = generator.permutation(update.shapes.B // update.unit)
  return (unit_U[:, None] * update.unit + np.arange(update.unit)).ravel().astype(np.int32)


def _guard():
  """Nothing may cross to or from the host inside (op by op, without jit, constants do)."""
  return jax.transfer_guard("allow" if jax.config.jax_disable_jit else "disallow")


def read_result(workdir: str) -> dict | None:
  """result.json of a finished run, or None."""
  path = os.path.join(workdir, "result.json")
  if not os.path.exists(path):
    return None
  with open(path) as f:
    return json.load(f)
