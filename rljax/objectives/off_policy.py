"""Losses on batches that mix the policy's own tokens with tokens sampled in another context.

The column `guided_B` of `extras` is 1 for rows of the second kind: `behav_logp_BT` is what the
sampler said of their tokens in *its* context (a prompt with a hint), the model reads the plain one.
Their ratio w = exp(logp - behav) is 1 only where both contexts agree. Arrays are [B, T]; shared
hyperparameters are those of `rljax.objectives.pg`.
"""

import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.objectives import pg_terms
from rljax.types import Batch, Loss, TokenStats


@types.needs(lambda **_: {"old_logp"})
def shaping_scale(batch: Batch, *, quantile: float = 0.9, floor: float = 1e-4) -> Batch:
  """gamma = max(quantile of w over the guided tokens, floor), in the column `gamma_B`; 1 if none.

  To be put after the advantage (`advantages.chain`), so that any micro-batch split gives the same;
  w is that of the weights before the first update. Guide, https://arxiv.org/abs/2506.13923, takes
  the quantile in every minibatch anew. Without the floor f = w / (w + gamma) could become 1
  everywhere, which has no gradient.

  Args:
    batch: old_logp_BT, behav_logp_BT [B, T], column guided_B [B].
    quantile, floor: see above.

  Raises:
    ValueError: no old log-probabilities.
  """
  if batch.old_logp_BT is None:
    raise ValueError("shaping_scale needs old_logp_BT before the advantage")
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  guided_BT = jnp.where(mask_BT > 0, batch.extras["guided_B"][:, None], 0.0) > 0
  w_BT = nums.ratio(jnp.where(guided_BT, batch.old_logp_BT - batch.behav_logp_BT, 0.0))
  gamma = jnp.maximum(nums.masked_quantile(w_BT, guided_BT, quantile), floor)
  gamma = jax.lax.stop_gradient(jnp.where(jnp.any(guided_BT), gamma, 1.0))
  return batch.replace(extras={**batch.extras, "gamma_B": jnp.full(batch.valid_B.shape, gamma)})


@types.needs(lambda *, kl_coef, entropy_coef, **_: {"adv", "old_logp"} | {
    name for name, use in (("ref_logp", kl_coef), ("entropy_grad", entropy_coef)) if use})
def guide(stats: TokenStats, batch: Batch, *, weight: str = "shaped", clip_low: float = 0.2,
          clip_high: float = 0.2, kl_coef: float = 0.0, kl_estimator: str = "k3",
          entropy_coef: float = 0.0, aggregation: str = "token-mean",
          constant: float | None = None) -> Loss:
  """Guided tokens: -A f(w), f = w / (w + gamma), without a clip; plain ones: grpo's clipped loss.

  Guide, https://arxiv.org/abs/2506.13923. df/dlogp = gamma w / (w + gamma)^2: largest at w = gamma,
  where it is 1/4, small for tokens that need no hint. All tokens share one mean.

  Args:
    stats, batch: arrays [B, T], column guided_B [B]; gamma_B [B] for "shaped" (`shaping_scale`).
    weight: of guided tokens: "shaped"; "clipped", the clipped loss with w as its ratio; "none",
      -A logp, as if they had been sampled without the hint.

  Raises:
    ValueError: an unknown weight.
  """
  v = pg_terms.view(stats, batch)
  guided_BT = jnp.where(v.mask_BT > 0, batch.extras["guided_B"][:, None], 0.0) > 0
  log_w_BT = jnp.where(guided_BT, v.logp_BT - v.behav_BT, 0.0)
  clip = dict(clip_low=clip_low, clip_high=clip_high)
  if weight == "shaped":
    log_gamma_BT = jnp.where(v.mask_BT > 0, jnp.log(batch.extras["gamma_B"])[:, None], 0.0)
    guided_loss_BT = -v.adv_BT * jax.nn.sigmoid(log_w_BT - log_gamma_BT)
  elif weight == "clipped":
    guided_loss_BT = pg_terms.clipped(nums.ratio(log_w_BT), v.adv_BT, **clip)
  elif weight == "none":
    guided_loss_BT = -v.adv_BT * v.logp_BT
  else:
    raise ValueError(f"unknown weight {weight!r}; shaped, clipped or none")
  loss_BT = jnp.where(guided_BT, guided_loss_BT, pg_terms.clipped(v.ratio_BT, v.adv_BT, **clip))
  w_BT, guided_mask_BT = nums.ratio(log_w_BT), guided_BT.astype(jnp.float32)
  metrics = {**pg_terms.clip_metrics(v.ratio_BT, v, **clip),
             "pg/guided_tokens": pg_terms.share(guided_BT, v.mask_BT),
             "pg/guided_weight": nums.mean_metric(w_BT, guided_mask_BT),
             "pg/guided_weight_max": types.Max(jnp.max(w_BT * guided_mask_BT))}
  return pg_terms.finish(v, stats, batch, loss_BT, metrics, correction=None, kl_coef=kl_coef,
                         kl_estimator=kl_estimator, entropy_coef=entropy_coef,
                         aggregation=aggregation, constant=constant)
