"""Answers that branch: several next steps from every partial answer, sharing what came before."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import rng, types
from rljax.data import pairs as pairs_lib
from rljax.rollouts import dialogue, searched
from rljax.search import mcts


def tree(samplers: Mapping, tasks: Sequence[types.Task], key, *, depth: int = 3, branch: int = 2,
         width: int = 0, stop: tuple[str, ...] = ("\n",), step_tokens: int = 0,
         value: Callable | None = None, role: str = "policy", env=None,
         settings: dict | None = None) -> list[types.Episode]:
  """Every leaf of a tree of steps is an episode; a step is a turn of the policy.

  From each open node `branch` steps are sampled, each up to its stop string, end token or limit; a
  node that ended with an end token is a leaf. At `depth` every open node is one, LENGTH unless it
  ended. info["path"] are the choices from the root, so that episodes with a common prefix share
  those steps, token by token. The group is the task. At most max(width, 1) * branch ** depth leaves
  per task, ended ones included: set `rows` of an update accordingly.

  Args:
    width: most open nodes per task and level; 0 = all. Those with the highest value stay, ties and
      trees without `value` by chance.
    stop: strings that end a step; they belong to it.
    step_tokens: most tokens of a step; 0 = an equal share of limits.response.
    value: leaf of `(tasks, texts so far) -> one number per text`.
    role, settings: as in `rljax.rollouts.single_turn`. env: unused.
  """
  del env
  sampler = samplers[role]
  step_tokens = step_tokens or max(sampler.limits["response"] // depth, 1)
  frontier = [dialogue.Dialogue(sampler, task, sample=0, group=i, role=role, path=())
              for i, task in enumerate(tasks)]
  leaves = []
  for level in range(depth):
    children = []
    for node in frontier:
      for choice in range(branch):
        path = (*node.info["path"], choice)
        child = node.fork(rng.number("/".join(map(str, path))))
        child.info["path"] = path
        children.append(child)
      node.release()
    dialogue.advance(children, rng.fold(key, level), stop=stop, turn_tokens=step_tokens,
                     settings=settings)
    frontier = []
    for child in children:
      if child.ended == dialogue.EOS:
        child.end(types.STOP)
      elif level + 1 == depth or not child.left["response"]:
        child.end(types.LENGTH)
      (leaves if child.status else frontier).append(child)
    if width:
      frontier = _widest(frontier, width, value, rng.fold(key, "width", level))
  leaves.sort(key=lambda d: (d.group, d.info["path"]))
  return [d.episode() for d in leaves]


def _widest(frontier, width, value, key):
  """The best `width` nodes of every task, in their order."""
  texts = [d.response for d in frontier]
  values = value([d.task for d in frontier], texts) if value and frontier else [0.0] * len(texts)
  chance = rng.integers(key, [d.seed for d in frontier])
  ranked = sorted(range(len(frontier)), key=lambda i: (-float(values[i]), chance[i]))
  kept, count = set(), {}
  for i in ranked:
    group = frontier[i].group
    if count.setdefault(group, 0) < width:
      count[group] += 1
      kept.add(i)
  return [d for i, d in enumerate(frontier) if i in kept]


def taught(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int, value: str,
           verify: Callable, options: dict | None = None, traces: int = 4, pairs: int = 12,
           least: float = 0.2, role: str = "policy", value_role: str = "value", env=None,
           settings: dict | None = None) -> list[types.Episode]:
  """Grows a tree per task by MCTS* and gives what policy and value model learn from it.

  ReST-MCTS*, https://arxiv.org/abs/2406.03816, section 3. First of each task come right answers
  (info["role"] "policy"), the shortest first, then those of the highest value; then partial answers
  (info["role"] = `value_role`) with an end token, and what they were worth in the column `target`
  (`mcts.process_values`); one that fills limits.response without an end has no room for it and is
  left out. A tree without a right answer gives nothing. The search itself does not see the answers.
  At most traces, and pairs, rows per task: set `rows` of the updates accordingly.

  Args:
    budget: generated tokens per task, roll-outs included.
    value: role whose scalar head leads the search.
    verify: leaf of `(task, text) -> float`: which ended answers are right.
    options: of `mcts.grow` (branch, depth, stop, ...). Training should not stop at the first
      answer that looks right: accept=2.
    traces: most right answers per task, of a value of at least `least`.
    pairs: most partial answers per task, drawn by chance.
    role, settings: who answers, and how it is sampled. env: unused.
  """
  del env
  trees = mcts.grow(samplers, searched.blind(tasks), key, budget=budget, role=role,
                    value=searched.value_of(samplers[value]), settings=settings, **(options or {}))
  end, out = np.array([samplers[role].tokenizer.eos_id], np.int32), []
  for number, (task, grown) in enumerate(zip(tasks, trees)):
    correct = lambda _, text, task=task: verify(task, text) >= 0.5
    worth = mcts.process_values(grown.root, correct)
    info = {"tokens": grown.tokens}
    said = [n for n in worth if n.dialogue.status == types.STOP and n.value >= least
            and correct(task, n.dialogue.response)]
    said.sort(key=lambda n: (len(n.dialogue.turns), -n.value))
    for n in said[:traces]:
      out.append(types.Episode(task, tuple(n.dialogue.turns), group=number, status=types.STOP,
                               info={**info, "role": "policy"}))
    nodes = [n for n in worth if n.dialogue.status == types.STOP or n.dialogue.left["response"]]
    order = rng.integers(rng.fold(key, "pairs", number), [(i, 0) for i in range(len(nodes))])
    for i in sorted(sorted(range(len(nodes)), key=order.__getitem__)[:pairs]):
      turns = tuple(nodes[i].dialogue.turns)
      if nodes[i].dialogue.status != types.STOP:
        turns += (types.Turn("assistant", end),)
      unsampled = tuple(dataclasses.replace(t, logp=None, raw_logp=None) for t in turns)
      out.append(pairs_lib.with_columns(types.Episode(
          task, unsampled, group=number, info={**info, "role": value_role}),
                                        target=worth[nodes[i]]))
  return out
