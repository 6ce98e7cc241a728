"""Policy-gradient losses: `(stats, batch, *, hyperparameters) -> Loss`, each a surrogate per token.

Hyperparameters with one meaning in every function:
  clip_low, clip_high   the ratio is clipped to [1 - clip_low, 1 + clip_high]
  correction     None, or a function (old_BT, behav_BT, mask_BT) -> weight_BT that multiplies the
                 surrogate: `rljax.nums:truncated_weight` (TIS), `rljax.nums:masked_weight` (IcePop)
  kl_coef        weight of the KL penalty to the reference, added to the loss; 0 needs no reference
  kl_estimator   k1, k2, k3, k3+ (see `nums.kl`), or "ratio-k3" etc. to multiply by the ratio
  entropy_coef   weight of the entropy bonus
  aggregation, constant   see `nums.aggregate`
KL and entropy are reduced like the surrogate, and not multiplied by the correction. The advantage
is chosen separately (`rljax.advantages`); a name here never implies one. Without `old_logp_BT` the
ratio's denominator is the current policy: right for one update per batch. Every function raises
ValueError for an unknown name or a term whose array is None. Arrays are [B, T].
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.objectives import pg_terms, value
from rljax.types import Batch, Loss, TokenStats


def _needs(*, kl_coef, entropy_coef, ratio=True, value_coef=0.0, **_):
  wanted = {"old_logp": ratio, "ref_logp": kl_coef, "entropy_grad": entropy_coef,
            "value": value_coef}
  return {"adv"} | {name for name, use in wanted.items() if use}


# --- without a clip -------------------------------------------------------------------------------


@types.needs(_needs)
def reinforce(stats: TokenStats, batch: Batch, *, ratio: bool = False, correction=None,
              kl_coef: float = 0.0, kl_estimator: str = "k3", entropy_coef: float = 0.0,
              aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """loss_t = -A_t logp_t; with `ratio`, -A_t exp(logp_t - old_t), unclipped.

  Williams 1992, https://doi.org/10.1007/BF00992696. Without `ratio`, one update per batch only.
  """
  v = pg_terms.view(stats, batch)
  loss_BT = -v.adv_BT * (v.ratio_BT if ratio else v.logp_BT)
  return pg_terms.finish(
      v, stats, batch, loss_BT, pg_terms.ratio_metrics(v.ratio_BT, v) if ratio else {},
      correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator,
      entropy_coef=entropy_coef, aggregation=aggregation, constant=constant)


@types.needs(_needs)
def rloo(stats: TokenStats, batch: Batch, *, ratio: bool = False, correction=None,
         kl_coef: float = 0.0, kl_estimator: str = "k3", entropy_coef: float = 0.0,
         aggregation: str = "seq-mean-token-sum", constant: float | None = None) -> Loss:
  """loss_i = -A_i sum_t logp_t: REINFORCE on whole sequences, for `advantages.leave_one_out`.

  https://arxiv.org/abs/2402.14740 section 3. TRL instead clips one ratio per sequence (0.2) and
  has a KL of 0.05 in the reward (here: `advantages.kl_reward`).
  """
  return reinforce(
      stats, batch, ratio=ratio, correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator,
      entropy_coef=entropy_coef, aggregation=aggregation, constant=constant)


@types.needs(_needs)
def cispo(stats: TokenStats, batch: Batch, *, cap: float = 5.0, floor: float | None = None,
          correction=None, kl_coef: float = 0.0, kl_estimator: str = "k3",
          entropy_coef: float = 0.0, aggregation: str = "token-mean",
          constant: float | None = None) -> Loss:
  """loss_t = -sg(clip(r_t, floor, cap)) A_t logp_t: the weight is capped, no gradient is removed.

  https://arxiv.org/abs/2506.13585 equations 4-5. `cap` and `floor` are the ratio's own bounds. TRL:
  the same form without a floor, `epsilon_high` being the cap; verl: floor 0.8, cap 1.2.
  """
  v = pg_terms.view(stats, batch)
  ratio_BT = jax.lax.stop_gradient(v.ratio_BT)
  weight_BT = jnp.clip(ratio_BT, floor, cap)
  metrics = {"pg/clip_fraction": pg_terms.share(weight_BT != ratio_BT, v.mask_BT),
             **pg_terms.ratio_metrics(ratio_BT, v)}
  return pg_terms.finish(
      v, stats, batch, -weight_BT * v.adv_BT * v.logp_BT, metrics, correction=correction,
      kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)


# --- the clipped ratio ----------------------------------------------------------------------------


@types.needs(_needs)
def grpo(stats: TokenStats, batch: Batch, *, clip_low: float = 0.2, clip_high: float = 0.2,
         dual_clip: float | None = None, correction=None, kl_coef: float = 0.0,
         kl_estimator: str = "k3", entropy_coef: float = 0.0,
         aggregation: str = "seq-mean-token-mean", constant: float | None = None) -> Loss:
  """loss_t = max(-A_t r_t, -A_t clip(r_t, 1 - clip_low, 1 + clip_high)), r = exp(logp - old).

  https://arxiv.org/abs/2402.03300 equation 3, where kl_coef is 0.04 (Tunix's default; TRL's is 0).
  TRL's default aggregation is the token mean, verl's too. `dual_clip` c bounds the loss by -c A for
  A < 0 (https://arxiv.org/abs/1912.09729); verl's default is 3, TRL's and Tunix's none.
  """
  v = pg_terms.view(stats, batch)
  ratio_BT = v.ratio_BT
  loss_BT = pg_terms.clipped(
      ratio_BT, v.adv_BT, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
  metrics = pg_terms.clip_metrics(ratio_BT, v, clip_low=clip_low, clip_high=clip_high)
  return pg_terms.finish(
      v, stats, batch, loss_BT, metrics, correction=correction, kl_coef=kl_coef,
      kl_estimator=kl_estimator, entropy_coef=entropy_coef, aggregation=aggregation,
      constant=constant)


@types.needs(_needs)
def ppo(stats: TokenStats, batch: Batch, *, clip_low: float = 0.2, clip_high: float = 0.2,
        dual_clip: float | None = None, value_coef: float = 0.0, value_clip: float | None = 0.2,
        correction=None, kl_coef: float = 0.0, kl_estimator: str = "k3",
        entropy_coef: float = 0.0, aggregation: str = "token-mean",
        constant: float | None = None) -> Loss:
  """grpo's clipped loss over the token mean, plus value_coef * `value.clipped` on a shared trunk.

  https://arxiv.org/abs/1707.06347 equations 7 and 9. A separate critic uses value_coef 0 and an
  update of its own with `value.clipped`. For `advantages.gae`.
  """
  loss = grpo(
      stats, batch, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip,
      correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)
  if not value_coef:
    return loss
  critic = value.clipped(
      stats, batch, clip=value_clip, coef=value_coef, aggregation=aggregation, constant=constant)
  return Loss(loss.total + critic.total, loss.weight, {**loss.metrics, **critic.metrics})


@types.needs(_needs)
def reinforce_pp(stats: TokenStats, batch: Batch, *, clip_low: float = 0.2, clip_high: float = 0.2,
                 dual_clip: float | None = None, correction=None, kl_coef: float = 0.0,
                 kl_estimator: str = "k2", entropy_coef: float = 0.0,
                 aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """grpo's clipped loss over the token mean, for `advantages.reinforce_pp`.

  https://arxiv.org/abs/2501.03262. Plain: k1 in the reward (`advantages.kl_reward`). "++-baseline":
  group baseline in the advantage and k2 here. TRL has no such trainer.
  """
  return grpo(
      stats, batch, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip,
      correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)


@types.needs(_needs)
def dr_grpo(stats: TokenStats, batch: Batch, *, constant: float, clip_low: float = 0.2,
            clip_high: float = 0.2, dual_clip: float | None = None, correction=None,
            kl_coef: float = 0.0, kl_estimator: str = "k3", entropy_coef: float = 0.0,
            aggregation: str = "constant") -> Loss:
  """grpo's clipped loss summed over tokens, divided by rows * `constant` (the length limit).

  https://arxiv.org/abs/2503.20783; with `advantages.group_norm(scale_by_std=False)`.
  TRL's loss_type "dr_grpo" divides alike, by max_completion_length; its rows include empty ones.
  """
  return grpo(
      stats, batch, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip,
      correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)


@types.needs(_needs)
def dapo(stats: TokenStats, batch: Batch, *, clip_low: float = 0.2, clip_high: float = 0.28,
         dual_clip: float | None = None, correction=None, kl_coef: float = 0.0,
         kl_estimator: str = "k3", entropy_coef: float = 0.0, aggregation: str = "token-mean",
         constant: float | None = None) -> Loss:
  """grpo's loss with a higher upper clip and the token mean over the batch.

  https://arxiv.org/abs/2503.14476 equation 8. The rest of DAPO: `data.select.dynamic_sampling`,
  `rewards.length.soft_overlong`. TRL's loss_type "dapo" keeps epsilon_high at epsilon (0.2).
  """
  return grpo(
      stats, batch, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip,
      correction=correction, kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)


@types.needs(_needs)
def gspo(stats: TokenStats, batch: Batch, *, level: str = "sequence", clip_low: float = 3e-4,
         clip_high: float = 4e-4, dual_clip: float | None = None, correction=None,
         kl_coef: float = 0.0, kl_estimator: str = "k3", entropy_coef: float = 0.0,
         aggregation: str = "seq-mean-token-mean", constant: float | None = None) -> Loss:
  """loss_t = max(-A_t s, -A_t clip(s)), s_i = exp(mean_t (logp - old)): one ratio per row.

  https://arxiv.org/abs/2507.18071 equations 5-7; `level="token"` is GSPO-token (equations 13-14),
  s_t = sg(s) exp(logp_t - sg(logp_t)): the same value; the same gradient too when a row has one
  advantage. TRL (importance_sampling_level="sequence") and Tunix keep the clip at 0.2 unless told.
  """
  v = pg_terms.view(stats, batch)
  log_B1 = pg_terms.sequence_log_ratio(v)
  if level == "sequence":
    ratio_BT = jnp.broadcast_to(jnp.exp(log_B1), v.mask_BT.shape)
  elif level == "token":
    log_B1 = jax.lax.stop_gradient(log_B1)
    ratio_BT = jnp.exp(log_B1 + (v.logp_BT - jax.lax.stop_gradient(v.logp_BT)))
  else:
    raise ValueError(f"unknown level {level!r}; sequence or token")
  loss_BT = pg_terms.clipped(
      ratio_BT, v.adv_BT, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
  metrics = pg_terms.clip_metrics(ratio_BT, v, clip_low=clip_low, clip_high=clip_high)
  return pg_terms.finish(
      v, stats, batch, loss_BT, metrics, correction=correction, kl_coef=kl_coef,
      kl_estimator=kl_estimator, entropy_coef=entropy_coef, aggregation=aggregation,
      constant=constant)


@types.needs(_needs)
def stable_reinforce(stats: TokenStats, batch: Batch, *, ratio_limit: float = 1e3,
                     clip_low: float = 0.2, clip_high: float = 0.2, correction=None,
                     kl_coef: float = 0.0, kl_estimator: str = "k3", entropy_coef: float = 0.0,
                     aggregation: str = "seq-mean-token-mean",
                     constant: float | None = None) -> Loss:
  """grpo's clipped loss on a ratio clamped to [1 / ratio_limit, ratio_limit] beforehand.

  R1-Reward's StableReinforce, https://arxiv.org/abs/2505.02835; its other half is
  `advantages.three_sigma`. For A < 0 the loss is at most -ratio_limit A, gradient 0 beyond.
  """
  v = pg_terms.view(stats, batch)
  limit = math.log(ratio_limit)
  ratio_BT = nums.ratio(jnp.clip(v.log_ratio_BT, -limit, limit))
  loss_BT = pg_terms.clipped(ratio_BT, v.adv_BT, clip_low=clip_low, clip_high=clip_high)
  metrics = pg_terms.clip_metrics(ratio_BT, v, clip_low=clip_low, clip_high=clip_high)
  return pg_terms.finish(
      v, stats, batch, loss_BT, metrics, correction=correction, kl_coef=kl_coef,
      kl_estimator=kl_estimator, entropy_coef=entropy_coef, aggregation=aggregation,
      constant=constant)


@types.needs(_needs)
def clip_cov(stats: TokenStats, batch: Batch, *, cov_low: float = 1.0, cov_high: float = 5.0,
             cov_fraction: float = 2e-4, clip_low: float = 0.2, clip_high: float = 0.2,
             dual_clip: float | None = None, correction=None, kl_coef: float = 0.0,
             kl_estimator: str = "k3", entropy_coef: float = 0.0, aggregation: str = "token-mean",
             constant: float | None = None) -> Loss:
  """grpo's loss, 0 at a random few of the unclipped tokens with cov_low < cov < cov_high.

  cov = (A - mean A)(logp - mean logp); a share `cov_fraction` of all tokens (at least one) is meant
  to be dropped, each candidate independently. Clip-Cov, https://arxiv.org/abs/2505.22617;
  SPEAR (https://arxiv.org/abs/2509.22601) uses 1, 40, 0.02 and dual_clip 10. verl has the same
  numbers, draws exactly that many and per micro-batch; put `advantages.covariance_stats` after the
  advantage to make micro-batches agree with the whole batch.
  """
  v = pg_terms.view(stats, batch)
  ratio_BT, clip = v.ratio_BT, dict(clip_low=clip_low, clip_high=clip_high)
  low_BT, high_BT = pg_terms.clip_masks(ratio_BT, v.adv_BT, **clip)
  cov_BT = pg_terms.covariance(v, batch.extras)
  candidate_BT = (cov_BT > cov_low) & (cov_BT < cov_high) & ~low_BT & ~high_BT & (v.mask_BT > 0)
  if "cov_rate_B" in batch.extras:
    rate = batch.extras["cov_rate_B"][:, None]
  else:
    rate = pg_terms.drop_rate(candidate_BT, v.mask_BT, cov_fraction)
  drop_BT = candidate_BT & (pg_terms.token_uniform(v.behav_BT, batch.actions_BT) < rate)
  loss_BT = pg_terms.clipped(ratio_BT, v.adv_BT, dual_clip=dual_clip, **clip)
  metrics = {**pg_terms.clip_metrics(ratio_BT, v, **clip),
             "pg/cov_candidates": pg_terms.share(candidate_BT, v.mask_BT),
             "pg/cov_dropped": pg_terms.share(drop_BT, v.mask_BT)}
  return pg_terms.finish(
      v, stats, batch, jnp.where(drop_BT, 0.0, loss_BT), metrics, correction=correction,
      kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef,
      aggregation=aggregation, constant=constant)


# --- likelihood of both sides ---------------------------------------------------------------------


@types.needs(lambda **h: _needs(**h) - {"adv"})
def nft(stats: TokenStats, batch: Batch, *, negative_weight: float = 1.0,
        prompt_weight: str = "hard", floor: float = 1.0, accuracy_clip: float = 0.02,
        log_ratio_max: float = 10.0, correction=None, kl_coef: float = 0.0,
        kl_estimator: str = "k3", entropy_coef: float = 0.0,
        aggregation: str = "token-sum-constant", constant: float | None = 1000.0) -> Loss:
  """Right: -w log r_t; wrong: -w negative_weight log max((1 - q r_t) / (1 - q), floor).

  q is the group's accuracy, r the ratio; the maximum is straight-through. Negative-aware
  fine-tuning, https://arxiv.org/abs/2505.18116. It reads `correct_B` and `accuracy_B`
  of `extras` (`advantages.group_accuracy`), no advantage. At r = 1 its gradient is Dr. GRPO's
  ("hard") or GRPO's ("grpo"). Rows of all-right or all-wrong groups are left out, as the paper
  filters them; `pg/nft_unfiltered` is their share. TRL and verl have no such loss.

  Args:
    stats, batch: arrays [B, T].
    negative_weight: 0 is rejection-sampling fine-tuning.
    prompt_weight: w = 1 ("uniform"), 1 - q ("hard"), sqrt((1 - q) / q) ("grpo").
    floor: of the implicit negative policy's ratio.
    accuracy_clip: q is clamped to [accuracy_clip, 1 - accuracy_clip].
    log_ratio_max: upper clamp of log r.
  """
  v = pg_terms.view(stats, batch)
  q_B, right_B1 = batch.extras["accuracy_B"], batch.extras["correct_B"][:, None] > 0
  mixed_B = ((q_B > 0) & (q_B < 1)).astype(jnp.float32)
  v = dataclasses.replace(v, mask_BT=v.mask_BT * mixed_B[:, None])
  q_B1 = jnp.clip(q_B, accuracy_clip, 1.0 - accuracy_clip)[:, None]
  weights = {"uniform": jnp.ones_like(q_B1), "hard": 1.0 - q_B1,
             "grpo": jnp.sqrt((1.0 - q_B1) / q_B1)}
  if prompt_weight not in weights:
    raise ValueError(f"unknown prompt_weight {prompt_weight!r}; one of {', '.join(weights)}")
  log_ratio_BT = jnp.clip(v.log_ratio_BT, -nums.LOG_RATIO_LIMIT, log_ratio_max)
  negative_BT = (1.0 - q_B1 * jnp.exp(log_ratio_BT)) / (1.0 - q_B1)
  loss_BT = -weights[prompt_weight] * jnp.where(
      right_B1, log_ratio_BT, negative_weight * pg_terms.log_smax(negative_BT, floor))
  metrics = {**pg_terms.ratio_metrics(v.ratio_BT, v),
             "pg/nft_unfiltered": nums.mean_metric(1.0 - mixed_B, batch.valid_B)}
  return pg_terms.finish(
      v, stats, batch, loss_BT, metrics, correction=correction, kl_coef=kl_coef,
      kl_estimator=kl_estimator, entropy_coef=entropy_coef, aggregation=aggregation,
      constant=constant)
