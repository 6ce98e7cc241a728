"""Answers that branch: several next steps from every partial answer, sharing what came before."""

from collections.abc import Callable, Mapping, Sequence

from rljax import rng, types
from rljax.rollouts import dialogue


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
