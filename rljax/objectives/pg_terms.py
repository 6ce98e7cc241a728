"""Pieces of policy-gradient losses that do not reduce: the view, surrogates, and the finish.

Every algorithm in `pg.py` is: a view of the arrays, a surrogate per token, `finish`.
"""

import dataclasses
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.types import Array, Batch, Loss, TokenStats


@dataclasses.dataclass(frozen=True)
class View:
  """Arrays [B, T] that are finite (0) wherever `mask_BT` is 0, padding rows included.

  No gradient passes where the mask is 0, and `nums.aggregate` ignores what stands there, so later
  terms need no masking of their own.

  Attributes:
    logp_BT: current log-probabilities, the only input with a gradient.
    old_BT: log-probabilities in the ratio's denominator.
    behav_BT: the sampler's.
    adv_BT: advantages, stop-gradient.
    mask_BT: float 0/1.
    log_ratio_BT: logp - old, not clamped; `ratio_BT` is.
  """

  logp_BT: Array
  old_BT: Array
  behav_BT: Array
  adv_BT: Array
  mask_BT: Array
  log_ratio_BT: Array

  @property
  def ratio_BT(self) -> Array:
    return nums.ratio(self.log_ratio_BT)


def view(stats: TokenStats, batch: Batch) -> View:
  """What every policy-gradient loss reads.

  Without `old_logp_BT` the denominator is the current log-probability itself: right for exactly one
  update per batch.
  """
  chex.assert_rank(stats.logp_BT, 2)
  chex.assert_equal_shape([stats.logp_BT, batch.adv_BT, batch.mask_BT, batch.behav_logp_BT])
  mask_BT = batch.mask_BT * batch.valid_B[:, None]

  def clean(x_BT):  # before anything nonlinear: 0 * NaN is NaN in a gradient
    return jnp.where(mask_BT > 0, x_BT, 0.0)
  logp_BT = stats.logp_BT
  old_BT = logp_BT if batch.old_logp_BT is None else batch.old_logp_BT
  old_BT, adv_BT = jax.lax.stop_gradient((old_BT, batch.adv_BT))
  return View(clean(logp_BT), clean(old_BT), clean(batch.behav_logp_BT), clean(adv_BT), mask_BT,
              clean(logp_BT - old_BT))


def clip_masks(ratio_BT: Array, adv_BT: Array, *, clip_low: float,
               clip_high: float) -> tuple[Array, Array]:
  """bool [B, T] twice: where the lower (A < 0) and the upper (A > 0) clip remove the gradient."""
  return (ratio_BT < 1.0 - clip_low) & (adv_BT < 0), (ratio_BT > 1.0 + clip_high) & (adv_BT > 0)


def clipped(ratio_BT: Array, adv_BT: Array, *, clip_low: float, clip_high: float,
            dual_clip: float | None = None) -> Array:
  """max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), for A < 0 at most -dual_clip A.

  Written as -A times the ratio that wins: at least 1 - clip_low for A < 0, at most 1 + clip_high
  for A > 0.
  """
  low_BT, high_BT = clip_masks(ratio_BT, adv_BT, clip_low=clip_low, clip_high=clip_high)
  ratio_BT = jnp.where(high_BT, 1.0 + clip_high, jnp.where(low_BT, 1.0 - clip_low, ratio_BT))
  if dual_clip is not None:
    ratio_BT = jnp.where((adv_BT < 0) & (ratio_BT > dual_clip), dual_clip, ratio_BT)
  return -adv_BT * ratio_BT


def sequence_log_ratio(v: View) -> Array:
  """float [B, 1]: mean_t (logp - old) over the row's tokens; 0 for an empty row."""
  tokens_B1 = jnp.sum(v.mask_BT, axis=-1, keepdims=True)
  log_ratio_BT = jnp.clip(v.log_ratio_BT, -nums.LOG_RATIO_LIMIT, nums.LOG_RATIO_LIMIT)
  return jnp.sum(log_ratio_BT * v.mask_BT, axis=-1, keepdims=True) / jnp.maximum(tokens_B1, 1.0)


def log_smax(x_BT: Array, floor: float) -> Array:
  """log(max(x, floor)) with the gradient of x / max(x, floor): a clamp that lets gradients pass."""
  top_BT = jax.lax.stop_gradient(jnp.maximum(x_BT, floor))
  return jnp.log(top_BT) + (x_BT - jax.lax.stop_gradient(x_BT)) / top_BT


def clip_metrics(ratio_BT: Array, v: View, *, clip_low: float, clip_high: float) -> dict:
  """Shares of tokens whose gradient the clip removed, and the ratio's mean and largest value."""
  low_BT, high_BT = clip_masks(ratio_BT, v.adv_BT, clip_low=clip_low, clip_high=clip_high)
  return {
      "pg/clip_fraction": share(low_BT | high_BT, v.mask_BT),
      "pg/clip_high_fraction": share(high_BT, v.mask_BT),
      **ratio_metrics(ratio_BT, v),
  }


def ratio_metrics(ratio_BT: Array, v: View) -> dict:
  return {
      "pg/ratio_mean": nums.mean_metric(ratio_BT, v.mask_BT),
      "pg/ratio_max": types.Max(jnp.max(jnp.where(v.mask_BT > 0, ratio_BT, 0.0))),
  }


def share(flag_BT: Array, mask_BT: Array) -> types.Mean:
  """The share of tokens with a flag."""
  return nums.mean_metric(flag_BT.astype(jnp.float32), mask_BT)


# --- covariance clipping --------------------------------------------------------------------------


def covariance(v: View, extras: dict) -> Array:
  """(A - mean A) (logp - mean logp) per token.

  The means are those of the rows in this call, unless `advantages.covariance_stats` put those of
  the whole batch into `extras` (then micro-batches agree with the whole).
  """
  if "cov_adv_mean_B" in extras:
    adv_mean, logp_mean = (extras[k][:, None] for k in ("cov_adv_mean_B", "cov_logp_mean_B"))
  else:
    adv_mean = nums.masked_mean(v.adv_BT, v.mask_BT)
    logp_mean = nums.masked_mean(v.logp_BT, v.mask_BT)
  return (v.adv_BT - adv_mean) * (v.logp_BT - logp_mean)


def drop_rate(candidate_BT: Array, mask_BT: Array, fraction: float) -> Array:
  """The probability that drops `fraction` of all tokens (at least one), by dropping candidates.

  Above 1 when there are too few of them: then all go.
  """
  wanted = jnp.maximum(fraction * jnp.sum(mask_BT), 1.0)
  return wanted / jnp.maximum(jnp.sum(candidate_BT.astype(jnp.float32)), 1.0)


def token_uniform(behav_BT: Array, actions_BT: Array) -> Array:
  """float [B, T] in [0, 1): a hash of the sampler's logp and the token id (no key, no state).

  The same token always draws the same number, whatever the batch is cut into.
  """
  bits_BT = jax.lax.bitcast_convert_type(behav_BT.astype(jnp.float32), jnp.uint32)
  h_BT = bits_BT ^ (actions_BT.astype(jnp.uint32) * jnp.uint32(0x9E3779B1))
  for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # murmur3's finaliser
    h_BT = (h_BT ^ (h_BT >> jnp.uint32(shift))) * jnp.uint32(factor)
  h_BT = h_BT ^ (h_BT >> jnp.uint32(16))
  return (h_BT >> jnp.uint32(8)).astype(jnp.float32) * 2.0**-24


# --- penalty and reduction ------------------------------------------------------------------------


def penalty(v: View, batch: Batch, *, kl_coef: float, kl_estimator: str) -> tuple[Array, dict]:
  """kl_coef * KL estimate per token; "ratio-k3" etc. multiply the estimate by the ratio.

  A column `kl_weight_BT` of `extras` scales the coefficient per token (per turn, per role).

  Raises:
    ValueError: no reference log-probabilities, or an unknown estimator.
  """
  if batch.ref_logp_BT is None:
    raise ValueError("kl_coef is not 0 but the batch has no ref_logp_BT")
  kl_BT = nums.kl(v.logp_BT, batch.ref_logp_BT, kl_estimator.removeprefix("ratio-"))
  metrics = {"kl/penalty": nums.mean_metric(kl_BT, v.mask_BT)}
  if kl_estimator.startswith("ratio-"):
    kl_BT = v.ratio_BT * kl_BT
  if "kl_weight_BT" in batch.extras:
    kl_BT = kl_BT * batch.extras["kl_weight_BT"]
  return kl_coef * kl_BT, metrics


def finish(v: View, stats: TokenStats, batch: Batch, loss_BT: Array, metrics: dict, *,
           correction: Callable | None, kl_coef: float, kl_estimator: str, entropy_coef: float,
           aggregation: str, constant: float | None) -> Loss:
  """Weighs the surrogate, adds KL penalty and entropy bonus, and reduces all of them alike.

  Raises:
    ValueError: a term asks for an array that the batch or the stats do not have.
  """
  metrics = dict(metrics)
  zero_B = jnp.all(v.adv_BT == 0, axis=-1).astype(jnp.float32)
  metrics["pg/zero_adv_rows"] = nums.mean_metric(zero_B, batch.valid_B)
  metrics["kl/behav"] = nums.mean_metric(v.behav_BT - v.logp_BT, v.mask_BT)
  if correction is not None:
    weight_BT = correction(v.old_BT, v.behav_BT, v.mask_BT)
    metrics["pg/tis_weight_mean"] = nums.mean_metric(weight_BT, v.mask_BT)
    loss_BT = loss_BT * weight_BT
  if kl_coef:
    kl_BT, kl_metrics = penalty(v, batch, kl_coef=kl_coef, kl_estimator=kl_estimator)
    loss_BT, metrics = loss_BT + kl_BT, metrics | kl_metrics
  if entropy_coef:
    if stats.entropy_BT is None:
      raise ValueError("entropy_coef is not 0 but the model gave no entropy_BT")
    loss_BT = loss_BT - entropy_coef * stats.entropy_BT
  return nums.aggregate(loss_BT, v.mask_BT, aggregation, constant=constant, metrics=metrics)
