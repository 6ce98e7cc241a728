"""Rewards that are differentiated: the reference answer's likelihood, as reward and as loss.

A row holds prompt, reasoning z and reference a* (`rljax.rollouts.reference.spliced`); the column
`reference` [B] says how many of its last actions are a*. The likelihood is read from the row's own
forward pass, so the gradient of the reward costs nothing more.
"""

import jax
import jax.numpy as jnp

from rljax import advantage_terms, nums, types
from rljax.objectives import pg_terms, rows
from rljax.types import Array, Batch, Loss, TokenStats

FORMS = ("prob", "avgprob", "logprob", "avglogprob", "weighted")


def answer_mask(batch: Batch) -> Array:
  """float [B, T]: 1 at the tokens of a*, the last `reference` actions of a row."""
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  place_BT = jnp.cumsum(mask_BT, axis=-1)
  first_B1 = jnp.sum(mask_BT, axis=-1, keepdims=True) - rows.column(batch, "reference")[:, None]
  return mask_BT * (place_BT > first_B1)


@types.needs(lambda *, kl_coef, **_: {"adv"} | ({"ref_logp"} if kl_coef else set()))
def reference(stats: TokenStats, batch: Batch, *, form: str = "logprob", reward_coef: float = 1.0,
              kl_coef: float = 0.0, kl_estimator: str = "k3",
              aggregation: str = "seq-mean-token-sum", constant: float | None = None) -> Loss:
  """loss_i = -A_i sum_{t in z} logp_t - reward_coef R_i, differentiated through R_i.

  "Likelihood-based reward designs for general LLM reasoning" (2026), equation of the loss; with
  l = log-probabilities of a*: prob R = exp(sum l) (VeriFree, https://arxiv.org/abs/2505.21493),
  avgprob mean exp(l), logprob sum l (its gradient is plain SFT on a*), avglogprob mean l, weighted
  w_i sum l with the column `weight` (JEPO). One update per batch. A product of many probabilities
  underflows to 0 in float32, gradient included; that is the method, not an accident.

  Args:
    stats, batch: arrays [B, T]; column reference [B], and weight [B] for "weighted".
    form: of R.
    reward_coef: 0 leaves the policy gradient alone.

  Raises:
    ValueError: an unknown form.
  """
  if form not in FORMS:
    raise ValueError(f"unknown form {form!r}; one of {', '.join(FORMS)}")
  v = pg_terms.view(stats, batch)
  answer_BT = answer_mask(batch)
  tokens_B1 = jnp.maximum(jnp.sum(answer_BT, axis=-1, keepdims=True), 1.0)
  logp_BT = jnp.where(answer_BT > 0, v.logp_BT, 0.0)
  if form == "prob":  # the row's one number, spread over its tokens so that they sum to it
    reward_BT = jnp.exp(jnp.sum(logp_BT, axis=-1, keepdims=True)) / tokens_B1
  elif form == "avgprob":
    reward_BT = jnp.exp(logp_BT) / tokens_B1
  elif form == "weighted":
    reward_BT = jax.lax.stop_gradient(rows.column(batch, "weight"))[:, None] * logp_BT
  else:
    reward_BT = logp_BT / (tokens_B1 if form == "avglogprob" else 1.0)
  loss_BT = -jnp.where(answer_BT > 0, reward_coef * reward_BT, v.adv_BT * v.logp_BT)
  metrics = {"likelihood/reference": nums.mean_metric(logp_BT, answer_BT)}
  return pg_terms.finish(
      v, stats, batch, loss_BT, metrics, correction=None, kl_coef=kl_coef,
      kl_estimator=kl_estimator, entropy_coef=0.0, aggregation=aggregation, constant=constant)


def jepo_advantage(batch: Batch) -> Batch:
  """A_i = log mean_j p_j - log mean_{j != i} p_j, w_i = G p_i / sum_j p_j, p = exp(reward).

  JEPO, https://arxiv.org/abs/2503.19618, on the reward log pi(a* | p, z_i), all in log space. With
  the column `weight` = w and form "weighted" the supervised part is the gradient of the group's
  log-mean. A group of one has advantage 0.

  Args:
    batch: reward_BT [B, T], the sum over a row is log p; group ids [B].
  """
  logp_B = jnp.sum(advantage_terms.paid(batch), axis=-1)
  ids_B = advantage_terms.group_ids(batch, ("group_B",))
  same_BB = (ids_B[:, None] == ids_B[None, :]) & (batch.valid_B > 0)[None, :]
  others_BB = same_BB & ~jnp.eye(len(ids_B), dtype=bool)

  def log_mean(mask_BB):
    count_B = jnp.sum(mask_BB, axis=-1)
    total_B = jax.nn.logsumexp(
        jnp.where(mask_BB, logp_B[None, :], -jnp.inf), axis=-1, where=mask_BB)
    return jnp.where(count_B > 0, total_B - jnp.log(jnp.maximum(count_B, 1)), 0.0), count_B
  all_B, count_B = log_mean(same_BB)
  rest_B, rest_count_B = log_mean(others_BB)
  adv_B = jnp.where(rest_count_B > 0, all_B - rest_B, 0.0)
  weight_B = jnp.where(count_B > 0, jnp.exp(logp_B - all_B), 0.0)
  batch = batch.replace(extras={**batch.extras, "weight": weight_B})
  return batch.replace(adv_BT=advantage_terms.per_token(batch, adv_B))
