"""State of a recipe over its steps: moving baselines, normalisers, records per task, buffers.

A memory sits between the rewards and the selection: it sees all scored episodes of a step, may ask
models (`rewards.run.Context`), and may change the episodes (a column, a score). Before the rollout
of a step it may change the tasks, by what it remembers. Its state is JSON and part of the
checkpoint, so a run that was killed goes on with the same numbers.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import advantages, config, rng, types
from rljax.data import pairs
from rljax.rewards import shapes
from rljax.types import Episode


@dataclasses.dataclass(frozen=True)
class Memory:
  """Pure functions.

  Attributes:
    init: () -> state, JSON-like.
    update: (state, episodes, ctx) -> (state, episodes), as many episodes in the same order.
    metrics: state -> numbers for the log, by name.
    tasks: (state, tasks, numpy generator) -> the tasks to ask, as many in the same order.
  """

  init: Callable
  update: Callable
  metrics: Callable[[dict], Mapping[str, float]] = lambda state: {}
  tasks: Callable = lambda state, tasks, draws: tasks


def baselines(*, by: tuple[str, ...] = ("game", "seat"), decay: float = 0.95,
              start: float = 0.0, score: str = "reward", update_first: bool = False) -> Memory:
  """A moving average of the score per key, in the column baseline_B (`advantages.baseline`).

  SPIRAL's role-conditioned advantage estimation, https://arxiv.org/abs/2506.24119. An episode in
  which the policy said nothing, that failed, or whose score is NaN, leaves the averages alone.

  Args:
    by: entries of `Episode.info` that make the key; () keeps one baseline for all.
    decay, start, update_first: see `advantages.ema_baselines`.
    score: which score.
  """
  def update(state, episodes, ctx=None):
    keys = ["/".join(str(e.info.get(name, "")) for name in by) for e in episodes]
    counts = lambda e: e.num_actions and e.status != types.ERROR
    values = [e.scores.get(score, math.nan) if counts(e) else math.nan for e in episodes]
    columns, state = advantages.ema_baselines(
        state, keys, values, decay=decay, start=start, update_first=update_first)
    return state, [pairs.with_columns(e, baseline_B=b) for e, b in zip(episodes, columns)]

  return Memory(dict, update)


def stages(*, steps: Sequence[int], parts: Sequence[Callable]) -> Memory:
  """A schedule: `parts[k]` changes the episodes from step `steps[k]` on, until the next begins.

  What changes from stage to stage is said on the episodes (rewards of turns, weights, columns), so
  that a recipe of several stages is one run. Metric: `stage`, the number of the part.

  Args:
    steps: where each part begins; the first is 0.
    parts: leaves of `episodes -> episodes`.

  Raises:
    ConfigError: not one step per part, ascending from 0.
  """
  if len(steps) != len(parts) or list(steps[:1]) != [0] or sorted(set(steps)) != list(steps):
    raise config.ConfigError(f"memory:stages: {len(parts)} parts that begin at steps "
                             f"{tuple(steps)}; one step per part, ascending from 0")

  def update(state, episodes, ctx):
    k = sum(ctx.step >= s for s in steps) - 1
    return {"stage": k}, list(parts[k](episodes))

  return Memory(lambda: {"stage": 0}, update, lambda state: {"stage": float(state["stage"])})


def mixture(*, measure: Callable, role: str = "policy") -> Memory:
  """The uniform mixture of a role's policies at all steps so far, where responses can be listed.

  Self-play orbits around its solution, which only the mixture of the iterates reaches. To draw one
  of them, then a response, is to draw from the mean of their distributions: it is kept per prompt,
  over `task.info["options"]`, all responses that count. The policy's probability of anything else
  is left out (metric `outside`, of this step's policy).

  Args:
    measure: leaf of `(float [options]) -> {name: number}`; its numbers, averaged over prompts, are
      the metrics, and with "last_" before the name those of this step's policy alone.
    role: whose policy.
  """
  def update(state, episodes, ctx):
    first = {e.prompt: e for e in episodes}
    table = [(e, option) for e in first.values() for option in e.task.info["options"]]
    found = ctx.score(role, [e.turns[0].tokens for e, _ in table],
                      [ctx.tokenizer.response(option) for _, option in table])
    state, values = dict(state), iter(math.exp(float(logp.sum())) for logp, _ in found)
    for prompt, e in first.items():
      p = np.array([next(values) for _ in e.task.info["options"]])
      old = state.get(prompt, {"n": 0, "mean": [0.0] * len(p)})
      n, last = old["n"] + 1, p / p.sum()
      mean = np.array(old["mean"]) + (last - old["mean"]) / n
      state[prompt] = {"n": n, "mean": mean.tolist(), "last": last.tolist(),
                       "outside": float(1.0 - p.sum())}
    return state, episodes

  def metrics(state):
    out: dict[str, list[float]] = {}
    for kept in state.values():
      both = {**measure(np.array(kept["mean"])),
              **{f"last_{k}": v for k, v in measure(np.array(kept["last"])).items()}}
      for name, value in {**both, "outside": kept["outside"]}.items():
        out.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in out.items()}

  return Memory(dict, update, metrics)


def shaped(*, reward: Callable, shape: Callable, references: int = 1, role: str = "ref",
           score: str = "proxy") -> Memory:
  """Adds `shape` of a model's score to the reward, seen from reference responses to each prompt.

  When a prompt comes for the first time, `references` responses are drawn from `role` (the initial
  policy) and scored; the scores are kept. The same reward scores both, in one call, so model and
  template cannot differ. Scores are standardised once, with mean and standard deviation of the
  first step's references: a sigmoid of a score needs a spread of about 1.

  Metrics: `mean` and `std` of the shaped rewards of the step (a sigmoid that has saturated shows),
  and `references`, the prompts known so far.

  Args:
    reward: leaf of a reward, such as `rewards.model:score`.
    shape: leaf of a function of `rljax.rewards.shapes`.
    references: M, responses per prompt.
    role: who writes them.
    score: name under which the standardised score is kept in the episodes.

  Raises:
    ConfigError: references < 1, (at a step) a reference that could not be scored, or references
      that all score the same.
  """
  if references < 1:
    raise config.ConfigError(f"memory:shaped: references={references}; at least 1")

  def update(state, episodes, ctx):
    known = state["references"]
    new = {e.task.id: e for e in episodes if e.task.id not in known}
    drawn = _drawn(list(new.values()), references, role, ctx)
    raw = np.asarray(reward([*episodes, *drawn], ctx), np.float64)
    raw_B, raw_NM = raw[:len(episodes)], raw[len(episodes):].reshape(len(new), references)
    for name, row in zip(new, raw_NM):
      if not np.isfinite(row).all():
        raise config.ConfigError(f"task {name}: a reference response of role {role!r} could not "
                                 f"be scored; without it its reward has no centre")
    known = {**known, **dict(zip(new, raw_NM.tolist()))}
    mean, std = state["unit"] or (float(raw_NM.mean()), float(raw_NM.std()))
    if not std > 0:
      raise config.ConfigError(f"memory:shaped: all references score {mean:g}; nothing to shape")
    r_B = (raw_B - mean) / std
    refs_BM = (np.array([known[e.task.id] for e in episodes]) - mean) / std
    stats = shapes.Stats(*state["stats"]).add(r_B)
    out_B = np.asarray(shape(r_B, refs_BM, stats), np.float64)
    fine = out_B[np.isfinite(out_B)] if np.isfinite(out_B).any() else np.zeros(1)
    state = {"references": known, "unit": [mean, std], "stats": list(stats) if stats.n else [],
             "mean": float(fine.mean()), "std": float(fine.std())}
    return state, [_rewarded(e, score, r, out) for e, r, out in zip(episodes, r_B, out_B)]

  def metrics(state):
    return {"mean": state["mean"], "std": state["std"],
            "references": float(len(state["references"]))}

  # Infinity has no JSON: the statistics of nothing are the empty list.
  return Memory(lambda: {"references": {}, "unit": [], "stats": [], "mean": 0.0, "std": 0.0},
                update, metrics)


def _drawn(episodes: Sequence[Episode], count: int, role: str, ctx) -> list[Episode]:
  """`count` responses of a role to the prompt of each episode."""
  if not episodes:
    return []
  table = [(e, m) for e in episodes for m in range(count)]
  done = ctx.sample(role, [e.turns[0].tokens for e, _ in table],
                    [(rng.number(e.task.id), m) for e, m in table])
  return [Episode(e.task, (e.turns[0], types.Turn("assistant", c.tokens, c.logp,
                                                  ctx.tokenizer.decode(c.tokens))),
                  group=e.group, status=c.status) for (e, _), c in zip(table, done)]


def _rewarded(episode: Episode, score: str, value: float, reward: float) -> Episode:
  before = episode.scores.get("reward", 0.0)
  return dataclasses.replace(episode, scores={
      **episode.scores, score: float(value), "reward": float(before + reward)})
