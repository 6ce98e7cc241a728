"""pass@k from n samples per problem, and what else a set of graded samples says."""

from collections.abc import Sequence

import numpy as np

from rljax.types import Episode


def pass_at_k(correct_MN: np.ndarray, k: int) -> float:
  """Mean over problems of 1 - C(n - c, k) / C(n, k), the unbiased estimate of solving in k tries.

  https://arxiv.org/abs/2107.03374 equation 1, as a product, so that nothing overflows.

  Args:
    correct_MN: bool [M problems, n samples]. k: 1 <= k <= n.

  Raises:
    ValueError: k is outside 1..n.
  """
  M, n = correct_MN.shape
  if not 1 <= k <= n:
    raise ValueError(f"pass@{k} needs 1 <= k <= n = {n}")
  c_M = correct_MN.sum(axis=1)
  i = np.arange(k)
  fail_M = np.prod(np.maximum(n - c_M[:, None] - i[None, :], 0) / (n - i[None, :]), axis=1)
  return float(np.mean(1.0 - fail_M))


def summary(correct_MN: np.ndarray) -> dict[str, float]:
  """pass_at_1, and pass_at_n when there are several samples."""
  n = correct_MN.shape[1]
  out = {"pass_at_1": pass_at_k(correct_MN, 1)}
  if n > 1:
    out[f"pass_at_{n}"] = pass_at_k(correct_MN, n)
  return out


def measure(episodes: Sequence[Episode], problems: int, ctx, *, score: str = "correct"
            ) -> dict[str, float]:
  """`summary` of an evaluation: a sample is right when its score is 1.

  Args:
    episodes: as many per problem, those of one problem adjacent.
    problems: how many there are; one that has no episodes (its prompt was too long) is not solved.
    score: name of the score.
  """
  del ctx
  tried = len({e.group for e in episodes})
  right = np.asarray([e.scores[score] >= 1.0 - 1e-6 for e in episodes]).reshape(tried, -1)
  graded = np.zeros((problems, right.shape[1]), bool)
  graded[:tried] = right
  return summary(graded)
