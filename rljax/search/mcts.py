"""Tree search over steps of an answer: UCT, and MCTS* of ReST-MCTS*."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import rng, types
from rljax.rollouts import dialogue
from rljax.search import found as found_lib
from rljax.search import steps as steps_lib

Found = found_lib.Found


@dataclasses.dataclass(eq=False)
class Node:
  """A partial answer. value: in [0, 1]. children: by the text of their step. tries: expansions that
  gave none. closed: nothing below it is left to expand."""

  dialogue: dialogue.Dialogue
  parent: "Node | None" = None
  value: float = 0.0
  visits: int = 0
  tries: int = 0
  closed: bool = False
  children: dict[str, "Node"] = dataclasses.field(default_factory=dict)

  @property
  def ended(self) -> bool:
    return bool(self.dialogue.status)

  def path(self) -> list["Node"]:
    """From the root to this node."""
    return [*(self.parent.path() if self.parent else []), self]

  def walk(self):
    yield self
    for child in self.children.values():
      yield from child.walk()


@dataclasses.dataclass(eq=False)
class Tree:
  """The search of one task. accepted: the node whose value passed the threshold, if one did."""

  root: Node
  number: int
  tokens: int = 0
  iterations: int = 0
  accepted: Node | None = None
  found: list[Found] = dataclasses.field(default_factory=list)

  def best(self) -> Node:
    """The accepted node; else the ended one of the highest value; else the node of the highest."""
    if self.accepted:
      return self.accepted
    nodes = [n for n in self.root.walk() if n.parent]
    return max(nodes or [self.root], key=lambda n: (n.ended, n.value))


def mcts(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int,
         value: found_lib.Value, **settings) -> list[list[Found]]:
  """The answers of `grow`'s trees, after every iteration."""
  return [t.found for t in grow(samplers, tasks, key, budget=budget, value=value, **settings)]


def grow(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int,
         value: found_lib.Value, branch: int = 3, depth: int = 8, stop: tuple[str, ...] = ("\n",),
         step_tokens: int = 0, explore: float = 0.7, accept: float = 0.9, rollout: int = 3,
         mix: float = 0.5, tries: int = 3, role: str = "policy",
         settings: Mapping | None = None) -> list[Tree]:
  """MCTS* (ReST-MCTS*, https://arxiv.org/abs/2406.03816, section 3): all tasks advance together.

  An iteration of a tree: from the root, go to the child of the highest V_c + c sqrt(2 ln n / n_c),
  V_c + 1 where it was not visited; expand the leaf by `branch` sampled steps, equal ones counted
  once; from the best of them go on greedily for `rollout` steps, V <- (1 - mix) V + mix max V seen;
  then every node up to the root is visited once more and takes the mean of its children by visits.
  What has ended, or has only ended answers below it, is not visited again: its value is known.
  With `rollout=0` it is UCT with a value model in the leaves.

  Args:
    budget: tokens per task, roll-outs and equal steps included; no iteration begins beyond it.
    value: of partial and whole answers, clipped to [0, 1]. In an evaluation it must not know the
      reference answer.
    branch: b. depth: most steps of an answer. explore: c. mix: alpha.
    stop: strings that end a step. step_tokens: most tokens of one; 0 = an equal share.
    accept: an ended answer of at least this value ends the search of its task.
    tries: expansions of a node that may give nothing (no step, or none that is new).

  Returns:
    Trees in the order of the tasks; nothing of them is held by the sampler.
  """
  sampler = samplers[role]
  trees = [Tree(Node(dialogue.Dialogue(sampler, task, sample=0, group=i)), i)
           for i, task in enumerate(tasks)]
  play = _Play(steps_lib.Steps(sampler, key, value, depth=depth, stop=stop, step_tokens=step_tokens,
                               settings=settings))
  while True:
    open_ = [t for t in trees if not t.accepted and t.tokens < budget and not t.root.closed]
    if not open_:
      break
    leaves = [_select(t.root, explore, rng.fold(key, "ties", t.number, t.iterations))
              for t in open_]
    play.expand(open_, leaves, branch)
    play.simulate(open_, leaves, rollout, mix)
    for t, leaf in zip(open_, leaves):
      _back(leaf, tries)
      t.iterations += 1
      ended = [n for n in leaf.children.values() if n.ended and n.value >= accept]
      t.accepted = max(ended, key=lambda n: n.value, default=None)
      t.found.append(Found(t.tokens, t.best().dialogue.response, bool(t.accepted)))
  for t in trees:
    for node in t.root.walk():
      node.dialogue.release()
  return trees


def _select(node: Node, explore: float, key) -> Node:
  """The leaf to expand; ties by chance."""
  level = 0
  while node.children:
    children = [c for c in node.children.values() if not c.closed]
    scores = [c.value + (explore * math.sqrt(2 * math.log(max(node.visits, 1)) / c.visits)
                         if c.visits else 1.0) for c in children]
    best = [c for c, s in zip(children, scores) if s == max(scores)]
    pick = rng.integers(rng.fold(key, level), [(0, 0)])[0] % len(best) if len(best) > 1 else 0
    node, level = best[pick], level + 1
  return node


def _back(leaf: Node, tries: int) -> None:
  leaf.tries += not leaf.children
  for child in leaf.children.values():
    child.closed = child.ended
  for node in reversed(leaf.path()):
    node.visits += 1
    node.closed = (all(c.closed for c in node.children.values()) if node.children
                   else node.tries >= tries)
    visited = [c for c in node.children.values() if c.visits]
    if visited:
      total = sum(c.visits for c in visited)
      node.value = sum(c.visits * c.value for c in visited) / total


class _Play:
  """Steps of many trees in one call of the sampler each."""

  def __init__(self, steps: steps_lib.Steps):
    self._steps = steps

  def _advance(self, trees, nodes, **settings):
    """One step of each node's dialogue, paid by its tree."""
    texts, spent = self._steps.advance([n.dialogue for n in nodes], **settings)
    for t, tokens in zip(trees, spent):
      t.tokens += tokens
    return texts

  def _values(self, nodes) -> np.ndarray:
    return self._steps.values([n.dialogue for n in nodes])

  def expand(self, trees, leaves, branch) -> None:
    owners, made = [], []
    for t, leaf in zip(trees, leaves):
      for k in range(branch):
        owners.append(t)
        made.append(Node(leaf.dialogue.fork(rng.number(f"{t.iterations}/{k}")), leaf))
    texts = self._advance(owners, made)
    kept = []
    for node, text in zip(made, texts):
      if text in node.parent.children or not text:
        node.dialogue.release()
      else:
        node.parent.children[text] = node
        kept.append(node)
    for node, v in zip(kept, self._values(kept)):
      node.value = float(v)

  def simulate(self, trees, leaves, steps, mix) -> None:
    """From the best child of each leaf; the steps are thrown away, what they were worth is kept."""
    best = [max(leaf.children.values(), key=lambda n: n.value, default=None) for leaf in leaves]
    for child in best:
      if child:
        child.visits += 1
    going = [(t, child, Node(child.dialogue.fork(0))) for t, child in zip(trees, best)
             if child and not child.ended]
    most: dict[Node, float] = {}
    for _ in range(steps):
      going = [g for g in going if not g[2].ended]
      if not going:
        break
      self._advance([t for t, _, _ in going], [n for _, _, n in going], greedy=True)
      for (_, child, _), v in zip(going, self._values([n for _, _, n in going])):
        most[child] = max(most.get(child, 0.0), float(v))
    for child, v in most.items():
      child.value = (1 - mix) * child.value + mix * v
    for _, _, node in going:
      node.dialogue.release()


def process_values(root: Node, correct) -> dict[Node, float]:
  """What each step was worth, from a finished tree and a check of its ended answers.

  m(node) is the number of steps to the nearest correct leaf, itself included; a node that cannot
  reach one takes m of its nearest ancestor that can, and the sign -1. With V(root) = 0,
  V = max(0, V_parent + (1 - V_parent) sign / m) (ReST-MCTS*, section 3.2): a correct chain of K
  steps gets k / K.

  Args:
    correct: (task, text) -> bool; asked for ended answers only.

  Returns:
    {node: V} without the root; empty for a tree that has no correct answer.
  """
  distance: dict[Node, int] = {}

  def measure(node):
    reach = [measure(c) for c in node.children.values()]
    reach = [r + 1 for r in reach if r is not None]
    if not node.children and node.ended and node.parent and correct(
        node.dialogue.task, node.dialogue.response):
      reach.append(1)
    if reach:
      distance[node] = min(reach)
    return distance.get(node)
  if measure(root) is None:
    return {}
  out = {}

  def infer(node, value, m):
    for child in node.children.values():
      reaches = child in distance
      own = distance[child] if reaches else m
      out[child] = max(0.0, value + (1 - value) * (1 if reaches else -1) / own)
      infer(child, out[child], own)
  infer(root, 0.0, distance[root])
  return out
