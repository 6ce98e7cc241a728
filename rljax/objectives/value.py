"""Losses of a value head, one value per action: `(stats, batch, *, hyperparameters) -> Loss`."""

import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.types import Batch, Loss, TokenStats


@types.needs(lambda **_: {"value"})
def clipped(stats: TokenStats, batch: Batch, *, clip: float | None = 0.2, coef: float = 1.0,
            aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """coef / 2 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2), R the lambda-return.

  The clipped value loss that came with PPO's code (https://arxiv.org/abs/1707.06347 itself has the
  squared error, `clip=None`). verl: clip 0.5; Tunix: clip 0.2, coefficient 1.

  Args:
    stats: value_BT, with a gradient.
    batch: `value_BT` when sampled (None: one update per batch, the clip cannot bind) and
      `extras["return_BT"]` (`advantages.gae`), [B, T].
    clip: None for the plain squared error.
    coef: multiplies the loss.
    aggregation, constant: see `nums.aggregate`.

  Raises:
    ValueError: no value head, or no returns.
  """
  if stats.value_BT is None or "return_BT" not in batch.extras:
    raise ValueError("the value loss needs stats.value_BT and batch.extras['return_BT']")
  mask_BT = batch.mask_BT * batch.valid_B[:, None]

  def clean(x_BT):
    return jnp.where(mask_BT > 0, x_BT, 0.0)
  value_BT = clean(stats.value_BT)
  old_BT = jax.lax.stop_gradient(value_BT) if batch.value_BT is None else clean(batch.value_BT)
  return_BT = jax.lax.stop_gradient(clean(batch.extras["return_BT"]))
  loss_BT = jnp.square(value_BT - return_BT)
  bound_BT = jnp.zeros(mask_BT.shape, bool)
  if clip is not None:
    moved_BT = jnp.clip(value_BT, old_BT - clip, old_BT + clip)
    far_BT = jnp.square(moved_BT - return_BT)
    bound_BT = far_BT > loss_BT
    loss_BT = jnp.maximum(loss_BT, far_BT)
  metrics = {
      "value/mean": nums.mean_metric(value_BT, mask_BT),
      "value/return_mean": nums.mean_metric(return_BT, mask_BT),
      "value/error": nums.mean_metric(jnp.square(value_BT - return_BT), mask_BT),
      "value/clip_fraction": nums.mean_metric(bound_BT.astype(jnp.float32), mask_BT),
  }
  return nums.aggregate(0.5 * coef * loss_BT, mask_BT, aggregation, constant=constant,
                        metrics=metrics)
