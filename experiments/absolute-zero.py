"""Absolute Zero's buffers: problems that the policy has proposed, by kind; they grow by themselves.

https://arxiv.org/abs/2505.03335. A solve request gets the newest problem that none got before, and
one of all in the buffer where these are used up; a propose request gets earlier ones as examples.
"""

import collections
import math
from collections.abc import Sequence

from rljax import types
from rljax.data import memory, minilist, pairs
from rljax.rewards import propose
from rljax.types import Episode, Task

TRIVIAL = ("revrev", "314")  # the identity


def buffers(*, kinds: tuple = minilist.KINDS, examples: int = 3, inputs: int = 6,
            score: str = "reward") -> memory.Memory:
  """A memory that writes the tasks of a step and keeps the problems that were proposed.

  A proposal enters unless it is invalid or the buffer has it (program and inputs). Each episode
  gets the column `type_B`, the number of its kind. Metrics, of the step's proposals: `valid`,
  `unique` (new ones among the valid), `rate` (mean share of right answers), `learnable` (share with
  a rate inside (0, 1)), `rate_0` to `rate_1` (a histogram, by quarters), `ops` (mean steps) and
  `entropy` (nats, of the programs); `duplicates` so far and `size` over all kinds.

  Args:
    kinds: of problems.
    examples: K, earlier (program, input) pairs shown to a proposer.
    inputs: of an induction.
    score: above 0 for a right answer.
  """
  def init():
    seeds = [f"{i}{i + 1}" for i in range(inputs - 1)]
    first = {k: [TRIVIAL[0], [TRIVIAL[1], *(seeds if k == "induction" else [])]] for k in kinds}
    return {"kept": {k: [x] for k, x in first.items()}, "new": {k: 0 for k in kinds},
            "duplicates": 0, "step": {}}

  def tasks(state, asked: Sequence[Task], draws):
    kept = state["kept"]
    programs = [x for k in kinds if k != "induction" for x in kept[k]] or kept["induction"]
    newest = {k: list(range(len(kept[k]) - state["new"][k], len(kept[k]))) for k in kinds}
    out = []
    for i, task in enumerate(asked):
      kind, name = task.info["kind"], f"{task.id}/{i}"
      if task.info["solve"]:
        at = newest[kind].pop() if newest[kind] else int(draws.integers(len(kept[kind])))
        made = minilist.problem(kind, *kept[kind][at], name=name)
        out.append(Task(name, made.prompt, made.answer, made.verifier, made.demo,
                        {**made.info, "solve": True}))
        continue
      some = draws.permutation(len(kept[kind]))[:examples]
      shown = [(kept[kind][j][0], kept[kind][j][1][0]) for j in some]
      program = programs[draws.integers(len(programs))][0] if kind == "induction" else ""
      out.append(Task(name, minilist.request(kind, shown, program),
                      info={**task.info, "program": program}))
    return out

  def update(state, episodes: Sequence[Episode], ctx=None):
    del ctx
    kept = {k: list(x) for k, x in state["kept"].items()}
    have = {k: {(p, *x) for p, x in some} for k, some in kept.items()}
    new, again = dict.fromkeys(kinds, 0), 0
    problems = {e.info["proposal"]: e.task for e in episodes if propose.is_estimate(e)}
    for task in problems.values():
      kind, item = task.info["kind"], [task.info["program"], list(task.info["inputs"])]
      if (item[0], *item[1]) in have[kind]:
        again += 1
        continue
      have[kind].add((item[0], *item[1]))
      kept[kind].append(item)
      new[kind] += 1
    step = _step(episodes, problems, sum(new.values()), score)
    numbered = [pairs.with_columns(e, type_B=float(kinds.index(e.task.info["kind"])))
                for e in episodes]
    return {"kept": kept, "new": new, "duplicates": state["duplicates"] + again,
            "step": step}, numbered

  def metrics(state):
    return {**state["step"], "duplicates": float(state["duplicates"]),
            "size": float(sum(map(len, state["kept"].values())))}

  return memory.Memory(init, update, metrics, tasks)


def _step(episodes, problems, new, score) -> dict[str, float]:
  """What one step's proposals look like."""
  asked = [e for e in episodes if propose.is_proposal(e) and e.status != types.ERROR]
  rates = propose.rates(episodes, [float(e.scores.get(score, 0.0) > 0) for e in episodes])
  if not asked:
    return {}
  share = lambda x: float(sum(x)) / len(asked)
  out = {"valid": len(problems) / len(asked), "learnable": share(0 < r < 1 for r in rates.values())}
  if problems:
    names = collections.Counter(t.info["program"] for t in problems.values())
    p = [n / len(problems) for n in names.values()]
    out |= {"unique": new / len(problems), "rate": sum(rates.values()) / len(rates),
            "entropy": -sum(x * math.log(x) for x in p),
            "ops": sum(t.info["ops"] for t in problems.values()) / len(problems)}
    quarter = collections.Counter(math.ceil(4 * r) for r in rates.values())
    out |= {f"rate_{k / 4:g}": quarter[k] / len(rates) for k in range(5)}
  return out
