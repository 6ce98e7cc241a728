"""Advantages: `(batch, *, hyperparameters) -> Batch` with `adv_BT` set. Pure, on the whole batch.

An advantage sees the global batch (before any micro-batch split), so statistics over groups, roles
or all tokens belong here and never in an objective. Rows with `valid_B == 0` enter no statistic and
get advantage 0. Group ids may have any sizes and any order.

A group of one has no baseline: its advantage is 0 (not an error: sizes are only known at run time,
and a NaN reward may shrink a group). `pg/zero_adv_rows` of every objective shows how many rows that
costs. All-equal groups give exactly 0, not 1e-8 / 1e-6: rewards are shifted by the group's minimum
before anything is summed.
"""

import jax
import jax.numpy as jnp

from rljax import types
from rljax.types import Array, Batch

ZERO_STD = 1e-6  # a spread below this is rounding, not signal


# --- shared pieces --------------------------------------------------------------------------------


def rewards(batch: Batch, column: str = "") -> Array:
  """float [B]: the sum of a row's token rewards, or the column of `extras`; 0 for invalid rows."""
  total_B = batch.extras[column] if column else jnp.sum(batch.reward_BT, axis=-1)
  return jnp.where(batch.valid_B > 0, total_B, 0.0)


def group_ids(batch: Batch, by: tuple[str, ...]) -> Array:
  """int [B]: dense ids in [0, B) of the rows that agree in every column; B for invalid rows.

  Args:
    batch: with the columns.
    by: "group_B" or names of integer columns in `extras`; () puts all rows in one group.
  """
  rows = batch.valid_B.shape[0]
  columns = [batch.group_B if name == "group_B" else batch.extras[name] for name in by]
  valid_B = batch.valid_B > 0
  if not columns:
    ids_B = jnp.zeros(rows, jnp.int32)
  elif tuple(by) == ("group_B",):
    ids_B = batch.group_B
  else:
    order_B = jnp.lexsort(columns)
    new_B = jnp.zeros(rows, bool)
    for column_B in columns:
      sorted_B = column_B[order_B]
      new_B |= jnp.concatenate([jnp.zeros(1, bool), sorted_B[1:] != sorted_B[:-1]])
    ids_B = jnp.zeros(rows, jnp.int32).at[order_B].set(jnp.cumsum(new_B).astype(jnp.int32))
  return jnp.where(valid_B & (ids_B >= 0), ids_B, rows)


def centre(x_N: Array, ids_N: Array, size: int) -> tuple[Array, Array, Array]:
  """Per element: x minus its group's mean, the group's sum of squared deviations, its count.

  Args:
    x_N: float [N], finite.
    ids_N: int [N] in [0, size]; elements of bin `size` are excluded (all three outputs are 0).
    size: number of groups at most.
  """
  def spread(values_K):
    return values_K[ids_N]
  keep_N = (ids_N < size).astype(x_N.dtype)
  count_N = spread(jax.ops.segment_sum(keep_N, ids_N, size + 1))
  # Shifting by the minimum makes all-equal groups exactly 0 and helps rewards far from 0.
  shifted_N = x_N - spread(jax.ops.segment_min(x_N, ids_N, size + 1))
  mean_N = spread(jax.ops.segment_sum(shifted_N, ids_N, size + 1)) / jnp.maximum(count_N, 1.0)
  centred_N = (shifted_N - mean_N) * keep_N
  squares_N = spread(jax.ops.segment_sum(centred_N**2, ids_N, size + 1))
  return centred_N, squares_N, count_N


def per_token(batch: Batch, adv_B: Array) -> Array:
  """float [B, T]: the row's advantage at every trained token, 0 elsewhere."""
  on_BT = batch.mask_BT * batch.valid_B[:, None] > 0
  return jnp.where(on_BT, adv_B[:, None], 0.0)


# --- one advantage per row ------------------------------------------------------------------------


def reinforce(batch: Batch, *, baseline: str = "none", reward: str = "") -> Batch:
  """A_i = r_i - b, the same at every token; b is 0 or the mean over the batch.

  Williams 1992, https://doi.org/10.1007/BF00992696.

  Args:
    batch: `reward_BT` [B, T].
    baseline: "none" or "batch-mean".
    reward: a column of `extras` [B] to use instead of the summed `reward_BT`.

  Raises:
    ValueError: unknown baseline.
  """
  adv_B = rewards(batch, reward)
  if baseline == "batch-mean":
    adv_B, _, _ = centre(adv_B, group_ids(batch, ()), adv_B.shape[0])
  elif baseline != "none":
    raise ValueError(f"unknown baseline {baseline!r}; none or batch-mean")
  return batch.replace(adv_BT=per_token(batch, adv_B))


def group_norm(batch: Batch, *, scale_by_std: bool = True, eps: float = 1e-6, ddof: int = 1,
               by: tuple[str, ...] = ("group_B",), reward: str = "") -> Batch:
  """A_i = (r_i - mean_g r) / (std_g r + eps); without the division it is Dr. GRPO's.

  GRPO: https://arxiv.org/abs/2402.03300 section 4.1.2; Dr. GRPO: https://arxiv.org/abs/2503.20783.
  A spread below 1e-6 gives 0. TRL's eps is 1e-4, verl's 1e-6; both use ddof 1.

  Args:
    batch: `reward_BT` [B, T], group ids [B].
    scale_by_std: False subtracts the mean only.
    eps: added to the standard deviation.
    ddof: 1 for the unbiased standard deviation, 0 for the population's.
    by: what defines a group: "group_B" and integer columns of `extras` (per view, per role, ...).
    reward: a column of `extras` [B] to use instead of the summed `reward_BT`.
  """
  reward_B = rewards(batch, reward)
  adv_B, squares_B, count_B = centre(reward_B, group_ids(batch, by), reward_B.shape[0])
  if scale_by_std:
    std_B = jnp.sqrt(squares_B / jnp.maximum(count_B - ddof, 1.0))
    adv_B = jnp.where(std_B < ZERO_STD, 0.0, adv_B / (std_B + eps))
  return batch.replace(adv_BT=per_token(batch, adv_B))


def leave_one_out(batch: Batch, *, by: tuple[str, ...] = ("group_B",), reward: str = "") -> Batch:
  """A_i = r_i - mean_{j != i} r_j = G / (G - 1) (r_i - mean r); 0 in a group of one.

  RLOO: https://arxiv.org/abs/2402.14740 equation 7. Same as TRL's and verl's for G >= 2.

  Args:
    batch: `reward_BT` [B, T], group ids [B].
    by: what defines a group: "group_B" and integer columns of `extras`.
    reward: a column of `extras` [B] to use instead of the summed `reward_BT`.
  """
  reward_B = rewards(batch, reward)
  adv_B, _, count_B = centre(reward_B, group_ids(batch, by), reward_B.shape[0])
  adv_B = adv_B * count_B / jnp.maximum(count_B - 1.0, 1.0)
  return batch.replace(adv_BT=per_token(batch, adv_B))
