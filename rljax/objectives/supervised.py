"""Supervised objectives: a row is one response, `mask_BT` says which of its tokens are trained on.

`valid_B == 0` rows are padding and count nowhere, neither in the sum nor in the weight.

Columns of `batch.extras`:
  weight        [B] float, weight of the response                          (weighted_sft)
  negative_BT   [B, T] 1 where the token is to become less likely           (unlikelihood)
  ids_BTK       [B, T, K] int, token ids whose probability is asked for, -1 = none; the answer is
                `stats.extras["logp_BTK"]`, normalised over the whole vocabulary  (unlikelihood)
  copy_of_BT    [B, T] int, the action this one repeats, -1 = none          (ditto)
"""

import jax
import jax.numpy as jnp

from rljax import nums
from rljax.objectives import rows
from rljax.types import Array, Batch, Loss, TokenStats

DITTO_FORMS = ("log", "mse", "log-above")


def sft(stats: TokenStats, batch: Batch, *, aggregation: str = "token-mean",
        constant: float | None = None) -> Loss:
  """Maximum likelihood: `aggregate(-logp_BT, mask_BT)`.

  TRL's SFTTrainer also averages over the tokens of the global batch. "seq-mean-token-mean" gives
  every response the same weight, whatever its length.

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T], valid_B [B].
    aggregation: see `nums.aggregate`.
    constant: the divisor of the two "constant" aggregations, else None.

  Raises:
    ValueError: unknown aggregation, or a constant that is missing or not used.
  """
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  metrics = {"sft/nll": nums.mean_metric(-stats.logp_BT, mask_BT)}
  return nums.aggregate(-stats.logp_BT, mask_BT, aggregation, constant=constant, metrics=metrics)


def weighted_sft(stats: TokenStats, batch: Batch, *, aggregation: str = "seq-mean-token-mean",
                 constant: float | None = None, normalise: str = "count") -> Loss:
  """Weighted likelihood: `aggregate(-w_B logp_BT, mask_BT)`, w = column "weight", no gradient.

  The kept responses of RAFT (https://arxiv.org/abs/2304.06767), expert iteration and ReST-EM
  (https://arxiv.org/abs/2312.06585) have weight 1, the others 0, with normalise="weight"; RISE
  (https://arxiv.org/abs/2407.18219) has exp(reward / tau) over the number of rows.

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T], valid_B [B]; column weight [B].
    aggregation: see `nums.aggregate`.
    constant: the divisor of the two "constant" aggregations, else None.
    normalise: "count" divides by what `aggregate` divides by; "weight" counts every row (token) w
      times there, so that the scale of the weights cancels ("token-sum-constant", which divides by
      nothing else, knows only "count").

  Raises:
    ValueError: unknown aggregation or normalisation, or a constant that does not fit.
  """
  if normalise not in ("count", "weight") or (
      normalise == "weight" and aggregation == "token-sum-constant"):
    raise ValueError(f"normalise={normalise!r} does not go with aggregation {aggregation!r}; "
                     "one of count, weight")
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  w_B = rows.column(batch, "weight")
  metrics = {"sft/nll": nums.mean_metric(-stats.logp_BT, mask_BT),
             "sft/weight": nums.mean_metric(w_B, rows.valid(batch))}
  loss = nums.aggregate(-w_B[:, None] * stats.logp_BT, mask_BT, aggregation, constant=constant,
                        metrics=metrics)
  if normalise == "count":
    return loss
  counted_B = rows.lengths(batch) if aggregation == "token-mean" else rows.valid(batch)
  return loss.replace(weight=jnp.sum(w_B * counted_B))


def _log1mexp(logp: Array) -> Array:
  """`log(1 - exp(logp))`, at least log(1e-7): a probability of 1 has a finite loss, no gradient."""
  return jnp.log(jnp.maximum(-jnp.expm1(logp), 1e-7))


def unlikelihood(stats: TokenStats, batch: Batch, *, alpha: float = 1.0, candidates: bool = False,
                 aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """Unlikelihood: `-log p(y_t)` or, where marked negative, `-alpha log(1 - p(y_t))`.

  https://arxiv.org/abs/1908.04319, eq. 7 (sequence level: tokens of repeated n-grams are marked in
  column negative_BT). candidates=True is its token level, eq. 4-5: every token has
  `-log p(y_t) - alpha sum_k log(1 - p(c_k))`, c = ids_BTK (the tokens before, say), and
  `stats.extras["logp_BTK"]` their log-probabilities. 1 - p is kept above 1e-7.

  Args:
    stats: logp_BT [B, T]; extras logp_BTK [B, T, K] with candidates.
    batch: mask_BT [B, T], valid_B [B]; column negative_BT, or ids_BTK with candidates.
    alpha: weight of the unlikelihood part.
    candidates: token level instead of sequence level.
    aggregation: see `nums.aggregate`.
    constant: the divisor of the two "constant" aggregations, else None.

  Raises:
    ValueError: a missing column, or as `nums.aggregate`.
  """
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  nll_BT = jnp.where(mask_BT > 0, -stats.logp_BT, 0)
  if candidates:
    present_BTK = (rows.column(batch, "ids_BTK") >= 0) & (mask_BT > 0)[..., None]
    logp_BTK = jnp.where(present_BTK, stats.extras["logp_BTK"], 0)
    unlikely_BT = -jnp.sum(jnp.where(present_BTK, _log1mexp(logp_BTK), 0.0), axis=-1)
    loss_BT, negative_BT = nll_BT + alpha * unlikely_BT, jnp.any(present_BTK, axis=-1)
  else:
    negative_BT = (rows.column(batch, "negative_BT") > 0) & (mask_BT > 0)
    unlikely_BT = -_log1mexp(-nll_BT)
    loss_BT = jnp.where(negative_BT, alpha * unlikely_BT, nll_BT)
  metrics = {"sft/nll": nums.mean_metric(nll_BT, mask_BT),
             "sft/unlikelihood": nums.mean_metric(unlikely_BT, mask_BT * negative_BT)}
  return nums.aggregate(loss_BT, mask_BT, aggregation, constant=constant, metrics=metrics)


def ditto(stats: TokenStats, batch: Batch, *, gamma: float = 0.5, form: str = "log") -> Loss:
  """DITTO: `-log(1 - |p_t - gamma stop_gradient(p_s)|)`, s = copy_of_BT the token that t repeats.

  https://arxiv.org/abs/2206.02369; papers/ditto.md. Only tokens of a row that repeat an earlier one
  are trained (its prefix and first copy are not); a row that repeats nothing is plain likelihood:
  a batch may mix both. Token mean over everything trained; the logarithm's argument is at least
  1e-20.

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T], valid_B [B]; column copy_of_BT.
    gamma: decay of a token's probability from one copy to the next; 1 = no decay (control).
    form: "log"; "mse": 3 (p - gamma p_s)^2; "log-above": "log" only where p > gamma p_s. These are
      the three of the authors' code.

  Raises:
    ValueError: unknown form or a missing column.
  """
  if form not in DITTO_FORMS:
    raise ValueError(f"unknown form {form!r}; one of {', '.join(DITTO_FORMS)}")
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  source_BT = rows.column(batch, "copy_of_BT")
  repeats_BT = (source_BT >= 0) & (mask_BT > 0)
  pseudo_BT = jnp.broadcast_to(jnp.any(repeats_BT, axis=1, keepdims=True), mask_BT.shape)
  nll_BT = jnp.where(mask_BT > 0, -stats.logp_BT, 0)
  p_BT = jnp.exp(-nll_BT)
  # the first copy may be masked: only its probability is needed
  copied_BT = jnp.exp(jnp.take_along_axis(stats.logp_BT, jnp.maximum(source_BT, 0), axis=1))
  copied_BT = jax.lax.stop_gradient(jnp.where(repeats_BT, copied_BT, 0))
  gap_BT = p_BT - gamma * copied_BT
  if form == "mse":
    penalty_BT = 3.0 * gap_BT**2
  else:
    gap_BT = jnp.maximum(gap_BT, 0.0) if form == "log-above" else jnp.abs(gap_BT)
    penalty_BT = -jnp.log(jnp.maximum(1.0 - gap_BT, 1e-20))
  loss_BT = jnp.where(pseudo_BT, penalty_BT, nll_BT)
  trained_BT = mask_BT * jnp.where(pseudo_BT, repeats_BT, True)
  metrics = {"sft/nll": nums.mean_metric(nll_BT, mask_BT * ~pseudo_BT),
             "sft/ditto": nums.mean_metric(penalty_BT, mask_BT * repeats_BT),
             "sft/repeat_p": nums.mean_metric(p_BT, mask_BT * repeats_BT)}
  return nums.aggregate(loss_BT, trained_BT, "token-mean", metrics=metrics)
