"""Views of a batch whose rows belong together: pairs, sets of N responses, examples with partners.

The one convention: a *unit* is N adjacent rows, and rows `[i*N, (i+1)*N)` are unit i. A chosen and
its rejected response are rows 2i and 2i+1. Adjacent rows stay together when a batch is cut into
micro-batches of contiguous equal slices, as long as N divides the micro-batch; a batch with
[chosen..., rejected...] halves would be torn apart. A quantity of a unit (weight, margin, soft
label) is a column of `batch.extras` with one entry per row, read at the first row of the unit.

A row counts when `valid_B` is 1 and at least one of its tokens is unmasked; a pair counts when both
of its rows do. Everything else is excluded from sums, weights and metrics.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import nums
from rljax.types import Array, Batch, Loss, Max, TokenStats


class Pairs(NamedTuple):
  """P pairs. `ratio` sums logp - ref_logp over the response (None without a reference)."""

  valid_P: Array
  logp_w_P: Array
  logp_l_P: Array
  len_w_P: Array
  len_l_P: Array
  ratio_w_P: Array | None
  ratio_l_P: Array | None


def units(x_B: Array, size: int) -> Array:
  """`[B, ...] -> [B / size, size, ...]`.

  Raises:
    ValueError: `size` does not divide the number of rows.
  """
  rows = x_B.shape[0]
  if size < 1 or rows % size:
    raise ValueError(f"{rows} rows do not form units of {size} adjacent rows")
  return x_B.reshape(rows // size, size, *x_B.shape[1:])


def column(batch: Batch, name: str, size: int = 1) -> Array:
  """A column of `extras`: one entry per row, or per unit of `size` rows (read at its first row).

  Entries of rows (units) that do not count become 0: padding may hold NaN, a gradient may not. No
  gradient flows into a column.

  Raises:
    ValueError: the batch has no such column.
  """
  if name not in batch.extras:
    raise ValueError(f"this objective needs batch.extras[{name!r}]; there is: "
                     f"{', '.join(sorted(batch.extras)) or 'nothing'}")
  x_U = jax.lax.stop_gradient(units(jnp.asarray(batch.extras[name]), size)[:, 0])
  valid_U = valid(batch, size).reshape(-1, *[1] * (x_U.ndim - 1))
  return jnp.where(valid_U > 0, x_U, jnp.zeros_like(x_U))


def lengths(batch: Batch) -> Array:
  """Unmasked tokens per row, float [B]; 0 for rows that do not count."""
  return jnp.sum(batch.mask_BT, axis=-1) * batch.valid_B


def valid(batch: Batch, size: int = 1) -> Array:
  """1 where a row (or every row of a unit) counts, float [B / size]."""
  row_B = (lengths(batch) > 0).astype(batch.mask_BT.dtype)
  return jnp.min(units(row_B, size), axis=1)


def token_sum(x_BT: Array, batch: Batch) -> Array:
  """Sum over the unmasked tokens of each row; entries under the mask may be NaN. Float [B]."""
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  return jnp.sum(jnp.where(mask_BT > 0, x_BT, 0.0), axis=-1)


def token_mean(x_BT: Array, batch: Batch) -> Array:
  """Mean over the unmasked tokens of each row, 0 for a row without any. Float [B]."""
  return token_sum(x_BT, batch) / jnp.maximum(lengths(batch), 1.0)


def log_ratio(stats: TokenStats, batch: Batch) -> Array:
  """`D = sum_t m_t (logp_t - ref_logp_t)`, float [B]; differences first, they are small.

  Raises:
    ValueError: the batch has no reference log-probabilities.
  """
  if batch.ref_logp_BT is None:
    raise ValueError("this objective needs batch.ref_logp_BT (a reference role)")
  return token_sum(stats.logp_BT - jax.lax.stop_gradient(batch.ref_logp_BT), batch)


def pairs(stats: TokenStats, batch: Batch, *, reference: bool = True, size: int = 2,
          token_weight_BT: Array | None = None) -> Pairs:
  """The first two rows of every unit as (chosen, rejected) pairs.

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T], valid_B [B], and ref_logp_BT when `reference`.
    reference: whether to compute the log-ratios.
    size: rows per unit; all of them must count for the pair to.
    token_weight_BT: multiplies both log-probabilities token by token.
  """
  if token_weight_BT is not None:
    stats = stats.replace(logp_BT=token_weight_BT * stats.logp_BT)
    if reference and batch.ref_logp_BT is not None:
      batch = batch.replace(ref_logp_BT=token_weight_BT * batch.ref_logp_BT)
  logp_PN = units(token_sum(stats.logp_BT, batch), size)
  len_PN = units(lengths(batch), size)
  ratio_PN = units(log_ratio(stats, batch), size) if reference else None
  return Pairs(valid(batch, size), logp_PN[:, 0], logp_PN[:, 1], len_PN[:, 0], len_PN[:, 1],
               ratio_PN[:, 0] if reference else None, ratio_PN[:, 1] if reference else None)


def reduce(loss_U: Array, valid_U: Array, metrics: dict, weight_U: Array | None = None) -> Loss:
  """Sum over the units that count, weight = their number. `weight_U` multiplies the sum only."""
  loss_U = jnp.where(valid_U > 0, loss_U, 0.0)
  if weight_U is not None:
    loss_U = loss_U * weight_U
  return Loss(jnp.sum(loss_U), jnp.sum(valid_U), metrics)


def max_metric(x: Array, mask: Array) -> Max:
  """Largest |x| where the mask is 1; 0 if nowhere."""
  return Max(jnp.max(jnp.where(mask > 0, jnp.abs(jax.lax.stop_gradient(x)), 0.0), initial=0.0))


def accuracy(margin_P: Array, valid_P: Array):
  """Share of pairs with a positive margin, ties count one half."""
  return nums.mean_metric(0.5 * (1.0 + jnp.sign(margin_P)), valid_P)


def take(stats: TokenStats, batch: Batch, *, size: int,
         at: tuple[int, ...]) -> tuple[TokenStats, Batch]:
  """The rows at the given places of every unit, for a loss of several parts.

  A row of the result is valid only if *all* rows of its unit are, so that parts computed on other
  places have weights in a fixed ratio and `add` is exact under any split. `inputs` is dropped.
  """
  whole_B = jnp.repeat(valid(batch, size), size)
  batch = batch.replace(inputs=None, valid_B=whole_B)
  def pick(x_B):
    x_UN = units(jnp.asarray(x_B), size)
    x_UN = jnp.stack([x_UN[:, i] for i in at], axis=1)
    return x_UN.reshape(-1, *x_UN.shape[2:])
  return jax.tree.map(pick, stats), jax.tree.map(pick, batch)


def add(first: Loss, other: Loss, *, coefficient: float, per: float) -> Loss:
  """`first + coefficient * other` as one sum and one weight.

  Args:
    first, other: losses on parts of the same units (see `take`).
    coefficient: multiplies the mean of `other`.
    per: how many times the weight of `first` that of `other` is (a static fact of the layout).
  """
  return Loss(first.total + coefficient / per * other.total, first.weight,
              {**first.metrics, **other.metrics})
