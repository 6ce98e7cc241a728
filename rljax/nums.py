"""Numerical pieces shared by objectives, advantages and metrics. Sums before means, always float32.

Masks are float 0/1 arrays. Everything here is pure and safe under jit and grad.
"""

import math

import jax
import jax.numpy as jnp

from rljax.types import Array, Loss, Mean

LOG_RATIO_LIMIT = 20.0  # exp(20) is finite in float32 and bfloat16; larger ratios carry no signal
AGGREGATIONS = (
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant", "token-sum-constant")


def masked_mean(x: Array, mask: Array) -> Array:
  """Mean of `x` where `mask` is 1; 0 if nowhere."""
  return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_quantile(x: Array, mask: Array, q: float) -> Array:
  """The `q`-quantile of `x` where `mask` is 1, linear between neighbours; 0 if nowhere."""
  ranked = jnp.sort(jnp.where(mask > 0, x, jnp.inf), axis=None)
  n = jnp.sum(mask > 0)
  at = q * jnp.maximum(n - 1, 0)
  low = jnp.floor(at).astype(jnp.int32)
  high = jnp.minimum(low + 1, jnp.maximum(n - 1, 0))
  return jnp.where(n > 0, ranked[low] + (at - low) * (ranked[high] - ranked[low]), 0.0)


def mean_metric(x: Array, mask: Array) -> Mean:
  """A `Mean` over masked entries; entries under a zero mask may be NaN."""
  x = jax.lax.stop_gradient(x)
  return Mean(jnp.sum(jnp.where(mask > 0, x, 0.0) * mask), jnp.sum(mask))


def log_ratio(logp: Array, other: Array) -> Array:
  """`logp - other`, clamped to +-20 so that its exponential is finite, gradient 0 outside."""
  return jnp.clip(logp - other, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


@jax.custom_jvp
def ratio(log_ratio: Array) -> Array:
  """exp of a log-ratio clamped to +-20, gradient 0 outside.

  The same as `exp(clip(x))`, but the derivative is read off the result: the backward pass of a loss
  then needs one array less.
  """
  return jnp.exp(jnp.clip(log_ratio, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


@ratio.defjvp
def _ratio_jvp(primals, tangents):
  r = ratio(*primals)
  top = math.exp(LOG_RATIO_LIMIT) * (1.0 - 1e-6)  # below what a clamped log-ratio rounds to
  return r, jnp.where((r < top) & (r > 1.0 / top), r, 0.0) * tangents[0]


def kl(logp: Array, ref_logp: Array, estimator: str) -> Array:
  """Per-token estimates of KL(policy || reference) from samples of the policy.

  With d = logp - ref_logp: k1 = d; k2 = d^2 / 2; k3 = exp(-d) - 1 + d (clipped to +-10);
  "k3+" has the value of k3 and the gradient of k2. In a loss, on policy, the gradient of k1
  averages to 0, that of k2 to the gradient of KL(policy || reference), that of k3 to the gradient
  of KL(reference || policy). Source: http://joschu.net/blog/kl-approx.html.

  Raises:
    ValueError: unknown estimator.
  """
  d = log_ratio(logp, ref_logp)
  if estimator == "k1":
    return d
  if estimator == "k2":
    return 0.5 * d * d
  k3 = jnp.clip(jnp.exp(-d) - 1.0 + d, -10.0, 10.0)
  if estimator == "k3":
    return k3
  if estimator == "k3+":
    k2 = 0.5 * d * d
    return jax.lax.stop_gradient(k3 - k2) + k2
  raise ValueError(f"unknown KL estimator {estimator!r}; one of k1, k2, k3, k3+")


def truncated_weight(old_BT: Array, behav_BT: Array, mask_BT: Array, *, cap: float = 2.0,
                     level: str = "token") -> Array:
  """w = min(exp(old - behav), cap): truncated importance sampling for sampler/trainer mismatch.

  https://fengyao.notion.site/off-policy-rl (TIS). `cap`: TRL's default is 3. Stop-gradient.

  Args:
    old_BT, behav_BT: log-probabilities [B, T] under the trainer and under the sampler.
    mask_BT: float [B, T] of 0/1.
    cap: the largest weight.
    level: see `importance_ratio`.
  """
  return jnp.minimum(importance_ratio(old_BT, behav_BT, mask_BT, level=level), cap)


def masked_weight(old_BT: Array, behav_BT: Array, mask_BT: Array, *, low: float = 0.5,
                  high: float = 5.0, level: str = "token") -> Array:
  """w = exp(old - behav) where it lies in [low, high], else 0 (IcePop). Arguments as above."""
  w_BT = importance_ratio(old_BT, behav_BT, mask_BT, level=level)
  return jnp.where((w_BT >= low) & (w_BT <= high), w_BT, 0.0)


def importance_ratio(old_BT: Array, behav_BT: Array, mask_BT: Array, *, level: str) -> Array:
  """exp(old - behav) per token, or one value per row: of the sum over the row ("sequence") or of
  the mean ("geometric"). Stop-gradient; log-ratios are clamped to +-20.

  Raises:
    ValueError: unknown level.
  """
  d_BT = jax.lax.stop_gradient(jnp.where(mask_BT > 0, old_BT - behav_BT, 0.0))
  if level != "token":
    d_B1 = jnp.sum(d_BT, axis=-1, keepdims=True)
    if level == "geometric":
      d_B1 = d_B1 / jnp.maximum(jnp.sum(mask_BT, axis=-1, keepdims=True), 1.0)
    elif level != "sequence":
      raise ValueError(f"unknown level {level!r}; one of token, sequence, geometric")
    d_BT = jnp.broadcast_to(d_B1, d_BT.shape)
  return jnp.exp(jnp.clip(d_BT, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def aggregate(loss_BT: Array, mask_BT: Array, how: str, *, constant: float | None = None,
              metrics: dict | None = None) -> Loss:
  """Reduces per-token losses to a sum and a weight; the step divides once, over the global batch.

  N counts rows with at least one unmasked token, T_i the unmasked tokens of row i.
    token-mean            sum_it m l / sum_it m                     (DAPO)
    seq-mean-token-mean   1/N sum_i 1/T_i sum_t m l                 (GRPO)
    seq-mean-token-sum    1/N sum_i sum_t m l                       (RLOO, REINFORCE)
    constant              sum_it m l / (N * constant)               (Dr. GRPO; constant = L_max)
    token-sum-constant    sum_it m l / constant                     (weight 0: see below)

  A weight of 0 means "already normalised": the step divides by `where(weight > 0, weight, 1)`,
  which also makes the loss of a batch without any valid row 0 instead of NaN.

  Args:
    loss_BT: float [B, T]; entries under a zero mask are ignored even when not finite.
    mask_BT: float [B, T] of 0/1.
    how: one of the names above.
    constant: required by the last two.

  Raises:
    ValueError: unknown name, or a constant missing or not used.
  """
  if how not in AGGREGATIONS:
    raise ValueError(f"unknown aggregation {how!r}; one of {', '.join(AGGREGATIONS)}")
  if (constant is not None) != how.endswith("constant"):
    raise ValueError(f"aggregation {how!r} and constant={constant} do not go together")
  loss_BT = jnp.where(mask_BT > 0, loss_BT, 0.0)
  row_B = jnp.sum(loss_BT, axis=-1)
  tokens_B = jnp.sum(mask_BT, axis=-1)
  rows = jnp.sum(tokens_B > 0).astype(jnp.float32)
  if how == "token-mean":
    total, weight = jnp.sum(row_B), jnp.sum(tokens_B)
  elif how == "seq-mean-token-mean":
    total, weight = jnp.sum(row_B / jnp.maximum(tokens_B, 1.0)), rows
  elif how == "seq-mean-token-sum":
    total, weight = jnp.sum(row_B), rows
  elif how == "constant":
    total, weight = jnp.sum(row_B) / constant, rows
  else:
    total, weight = jnp.sum(row_B) / constant, jnp.zeros(())
  return Loss(total, weight, metrics or {})
