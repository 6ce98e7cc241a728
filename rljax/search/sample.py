"""Searches over whole answers: the best of n, and votes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import types
from rljax.rewards import verify
from rljax.rollouts import dialogue
from rljax.search import found as found_lib

Found = found_lib.Found


def best_of_n(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int,
              value: found_lib.Value | None = None, role: str = "policy",
              settings: Mapping | None = None) -> list[list[Found]]:
  """The candidate of the highest value among those sampled so far; the first of equals.

  Args:
    budget: tokens per task; no candidate is begun once they are spent.
    value: of whole answers; None = the sampler's own mean probability of the tokens.
    role: who answers. settings: overrides of its sampling settings.

  Returns:
    Per task, a `Found` after every candidate.
  """
  def choose(task, candidates):
    values = (list(map(found_lib.confidence, candidates)) if value is None else
              value([task] * len(candidates), [c.response for c in candidates]))
    return [int(np.argmax(values[:n + 1])) for n in range(len(values))]
  return _over(samplers[role], tasks, key, budget, settings, choose)


def vote(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int,
         value: found_lib.Value | None = None, answer: Callable[[str], str] | None = None,
         role: str = "policy", settings: Mapping | None = None) -> list[list[Found]]:
  """A candidate with the answer that gathers the most votes; the first of equals.

  Self-consistency (https://arxiv.org/abs/2203.11171); with `value` a vote counts that much.

  Args:
    answer: text -> what is voted on; None = the final answer (`verify.final_answer`).
    The rest as in `best_of_n`.
  """
  answer = answer or (lambda text: verify.final_answer(text)[0])

  def choose(task, candidates):
    texts = [c.response for c in candidates]
    weights = value([task] * len(texts), texts) if value else [1.0] * len(texts)
    votes: dict[str, float] = {}
    first: dict[str, int] = {}
    out = []
    for i, (text, weight) in enumerate(zip(texts, weights)):
      ballot = answer(text)
      first.setdefault(ballot, i)
      votes[ballot] = votes.get(ballot, 0.0) + float(weight)
      out.append(first[max(votes, key=lambda b: (votes[b], -first[b]))])
    return out
  return _over(samplers[role], tasks, key, budget, settings, choose)


def _over(sampler, tasks, key, budget, settings, choose):
  """Samples in rounds of 1, 1, 2, 4, ... candidates per task that has tokens left."""
  candidates: list[list[dialogue.Dialogue]] = [[] for _ in tasks]
  spent = [0] * len(tasks)
  more = 1
  while any(s < budget for s in spent):
    new = []
    for i, task in enumerate(tasks):
      mean = spent[i] / max(len(candidates[i]), 1)
      n = min(more, max(1, int((budget - spent[i]) / max(mean, 1)))) if spent[i] < budget else 0
      new += [dialogue.Dialogue(sampler, task, sample=len(candidates[i]) + k, group=i)
              for k in range(n)]
    dialogue.advance(new, key, settings=settings)
    for d in new:
      d.release()
      candidates[d.group].append(d)
      spent[d.group] += max(d.num_actions, 1)
    more = max(map(len, candidates))
  out = []
  for task, made in zip(tasks, candidates):
    tokens = np.cumsum([d.num_actions for d in made])
    out.append([Found(int(t), made[c].response) for t, c in zip(tokens, choose(task, made))])
  return out


def expected_best(rewards: Sequence[float], gold: Sequence[float], n: int) -> float:
  """What the best of n by reward is worth, expected over all subsets of N >= n samples.

  sum_i C(i - 1, n - 1) / C(N, n) gold_(i), gold sorted by ascending reward; unbiased, and of less
  variance than cutting the samples into groups of n. With gold = reward = correctness: pass@n.

  Raises:
    ValueError: n is outside 1..N.
  """
  N = len(rewards)
  if not 1 <= n <= N:
    raise ValueError(f"best of {n} needs 1 <= n <= {N} samples")
  order = np.argsort(np.asarray(rewards, float), kind="stable")
  below = np.ones(N)  # P(the best of n is among the i + 1 lowest) = C(i + 1, n) / C(N, n)
  for i in range(N):
    k = np.arange(n)
    below[i] = np.prod(np.maximum(i + 1 - k, 0) / (N - k))
  weight = np.diff(np.concatenate([[0.0], below]))
  return float(weight @ np.asarray(gold, float)[order])
