"""pass@k from n samples per problem, and what else a set of graded samples says."""

from collections.abc import Sequence

import numpy as np


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


def by_value(correct_MN: np.ndarray, values_M: Sequence[str]) -> dict[str, float]:
  """`summary` over the problems of each value, as "<value>/pass_at_1"; "worst/" is the least.

  Args:
    correct_MN: bool [M problems, n samples]. values_M: one per problem; [] gives {}.
  """
  rows: dict[str, list[int]] = {}
  for i, value in enumerate(values_M):
    rows.setdefault(value, []).append(i)
  found = {value: summary(correct_MN[some]) for value, some in rows.items()}
  if found:
    metrics = next(iter(found.values()))
    found["worst"] = {k: min(numbers[k] for numbers in found.values()) for k in metrics}
  return {f"{value}/{k}": x for value, numbers in found.items() for k, x in numbers.items()}
