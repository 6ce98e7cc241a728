"""Pieces of advantages: who belongs together, centring, whitening."""

import jax
import jax.numpy as jnp

from rljax import nums
from rljax.types import Array, Batch


def trained(batch: Batch) -> Array:
  """float [B, T]: 1 at trained tokens of valid rows."""
  return batch.mask_BT * batch.valid_B[:, None]


def paid(batch: Batch) -> Array:
  """float [B, T]: token rewards, 0 in invalid rows (which may hold NaN)."""
  return jnp.where(batch.valid_B[:, None] > 0, batch.reward_BT, 0.0)


def rewards(batch: Batch, column: str = "") -> Array:
  """float [B]: the sum of a row's token rewards, or the column of `extras`.

  Rewards at untrained tokens count: a response masked out of the loss was still answered.
  """
  return batch.extras[column] if column else jnp.sum(batch.reward_BT, axis=-1)


def group_ids(batch: Batch, by: tuple[str, ...]) -> Array:
  """int [B]: dense ids in [0, B) of the rows that agree in every column; B for invalid rows.

  Args:
    batch: with the columns.
    by: "group_B" or names of integer columns in `extras`; () puts all rows in one group.
  """
  rows = batch.valid_B.shape[0]
  columns = [batch.group_B if name == "group_B" else batch.extras[name] for name in by]
  if not columns:
    ids_B = jnp.zeros(rows, jnp.int32)
  elif tuple(by) == ("group_B",):
    ids_B = batch.group_B
  else:  # sort, count the changes, and put the counts back
    order_B = jnp.lexsort(columns)
    new_B = jnp.zeros(rows, bool)
    for column_B in columns:
      sorted_B = column_B[order_B]
      new_B |= jnp.concatenate([jnp.zeros(1, bool), sorted_B[1:] != sorted_B[:-1]])
    ids_B = jnp.zeros(rows, jnp.int32).at[order_B].set(jnp.cumsum(new_B).astype(jnp.int32))
  return jnp.where(batch.valid_B > 0, ids_B, rows)


def centre(x_N: Array, ids_N: Array, size: int) -> tuple[Array, Array, Array]:
  """Per element: x minus its group's mean, the group's sum of squared deviations, its count.

  Args:
    x_N: float [N], finite.
    ids_N: int [N] in [0, size]; bin `size` is a group like the others, for what is to be ignored.
    size: number of groups at most.
  """
  def over_group(values_N):
    return jax.ops.segment_sum(values_N, ids_N, size + 1)[ids_N]
  count_N = over_group(jnp.ones_like(x_N))
  # Shifting by the minimum makes all-equal groups exactly 0 and helps rewards far from 0.
  shifted_N = x_N - jax.ops.segment_min(x_N, ids_N, size + 1)[ids_N]
  centred_N = shifted_N - over_group(shifted_N) / count_N
  return centred_N, over_group(centred_N**2), count_N


def standardise(centred_N: Array, squares_N: Array, count_N: Array, *, eps: float, ddof: int,
                zero_std: float = 1e-6) -> Array:
  """centred / (std + eps); 0 where the spread is below `zero_std` (rounding, not signal)."""
  std_N = jnp.sqrt(squares_N / jnp.maximum(count_N - ddof, 1.0))
  return jnp.where(std_N < zero_std, 0.0, centred_N / (std_N + eps))


def per_token(batch: Batch, adv_B: Array) -> Array:
  """float [B, T]: the row's advantage at every trained token, 0 elsewhere."""
  return jnp.where(trained(batch) > 0, adv_B[:, None], 0.0)


def whitened(x_BT: Array, mask_BT: Array, ids_B: Array, *, shift: bool, eps: float) -> Array:
  """(x - mean) / sqrt(var + eps) over the trained tokens of each group of rows, var unbiased.

  Args:
    x_BT: entries under a zero mask are ignored; the result is 0 there.
    mask_BT: float 0/1.
    ids_B: int [B] in [0, B]; rows of bin B should have no trained token.
    shift: False divides only, so that the mean stays.
    eps: inside the root.
  """
  rows = mask_BT.shape[0]
  on_BT = mask_BT > 0

  def over_group(values_BT):
    return jax.ops.segment_sum(jnp.sum(values_BT, axis=-1), ids_B, rows + 1)[ids_B][:, None]
  low_B = jnp.min(jnp.where(on_BT, x_BT, jnp.inf), axis=-1)
  low_B1 = jax.ops.segment_min(low_B, ids_B, rows + 1)[ids_B][:, None]
  shifted_BT = jnp.where(on_BT, x_BT - low_B1, 0.0)  # exactly 0 where all are equal
  count_B1 = over_group(mask_BT)
  mean_B1 = over_group(shifted_BT) / jnp.maximum(count_B1, 1.0)
  centred_BT = jnp.where(on_BT, shifted_BT - mean_B1, 0.0)
  var_B1 = over_group(centred_BT**2) / jnp.maximum(count_B1 - 1.0, 1.0)
  if not shift:
    centred_BT = centred_BT + jnp.where(on_BT, mean_B1 + low_B1, 0.0)
  return centred_BT * jax.lax.rsqrt(var_B1 + eps)


def kl_estimate(batch: Batch, estimator: str) -> Array:
  """float [B, T]: `nums.kl(old, reference)` at trained tokens, 0 elsewhere.

  Raises:
    ValueError: the batch lacks old_logp_BT or ref_logp_BT.
  """
  if batch.old_logp_BT is None or batch.ref_logp_BT is None:
    raise ValueError("a KL in the reward needs old_logp_BT and ref_logp_BT before the advantage")
  on_BT = trained(batch) > 0
  old_BT, ref_BT = (jnp.where(on_BT, x, 0.0) for x in (batch.old_logp_BT, batch.ref_logp_BT))
  return nums.kl(old_BT, ref_BT, estimator)
