"""Which tasks come next: init / draw / update over a JSON state."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng


@dataclasses.dataclass(frozen=True)
class Curriculum:
  """Three pure functions; the state is JSON and goes into the checkpoint.

  Attributes:
    init: (n) -> state, for a task set of n tasks.
    draw: (state, seed, k) -> (k task indices, state).
    update: (state, indices, scores) -> state; scores are mean rewards per task, NaN if unknown.
  """

  init: Callable
  draw: Callable
  update: Callable


def shuffled() -> Curriculum:
  """Every task once per epoch, each epoch in a new order drawn from the seed."""
  def init(n):
    return {"n": n, "cursor": 0}

  def draw(state, seed, k):
    n, at = state["n"], state["cursor"]
    out = np.empty(k, np.int64)
    for epoch in range(at // n, (at + k - 1) // n + 1):
      order = rng.host(seed, "epoch", epoch).permutation(n)
      lo, hi = max(at, epoch * n), min(at + k, (epoch + 1) * n)
      out[lo - at:hi - at] = order[lo - epoch * n:hi - epoch * n]
    return out.tolist(), {**state, "cursor": at + k}

  return Curriculum(init, draw, lambda state, indices, scores: state)


def ordered() -> Curriculum:
  """The tasks in file order, again and again."""
  def draw(state, seed, k):
    at = state["cursor"]
    return [(at + i) % state["n"] for i in range(k)], {**state, "cursor": at + k}

  return Curriculum(lambda n: {"n": n, "cursor": 0}, draw, lambda state, indices, scores: state)


def mean_scores(indices: Sequence[int], groups: Sequence[int], rewards: Sequence[float]):
  """Mean finite reward of each drawn task, in the order of `indices`; NaN where none."""
  sums = {g: [] for g in range(len(indices))}
  for g, r in zip(groups, rewards):
    if np.isfinite(r) and g in sums:  # a rollout may add groups of its own (proposed tasks)
      sums[g].append(r)
  return [float(np.mean(sums[g])) if sums[g] else float("nan") for g in range(len(indices))]
