"""Preference losses: on (chosen, rejected) pairs of adjacent rows (`rows.py`), or on labelled rows.

Notation: D = sum_t (logp - ref_logp) of a response, h = D_chosen - D_rejected, lbar = the mean
log-probability per token, sg = sigmoid. Log-probabilities are sums over the response unless a line
says otherwise: beta of DPO and of SimPO differ by a factor of the length. Shapes: `stats.logp_BT`,
`batch.mask_BT` and, where `needs` says so, `batch.ref_logp_BT` are [B, T], B = 2P for P pairs.

Columns of `batch.extras`, one entry per row, read at the chosen row (2i) of a pair:
  p         probability that the chosen response is better, in [0, 1]   (soft_label, osp)
  margin    how much better it is, in units of beta * h                 (dpo with margin > 0)
  weight    multiplies the loss of the pair                             (weighted)
and one per row, of its own:
  win_rate  P(response beats the policy's own samples), in [0, 1]       (sppo, dno)
  label     1 desirable, 0 undesirable                                  (kto)
  z0        estimate of KL(policy || reference) for the whole batch     (kto with group=0)
  own_wins  1 if the model's own response is the chosen one             (selm)

Every pair loss is summed over pairs and weighs one per pair. What must be an error and depends on
data (identical responses, empty ones, no mismatched partner) is checked on the host by
`rljax.data.pairs.check_pairs`.
"""

import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.objectives import rows
from rljax.types import Array, Batch, Loss, TokenStats


def _reference(**_):
  return {"ref_logp"}


def _nothing(**_):
  return ()


def _soft_cross_entropy(u: Array, p) -> Array:
  """`-p log sg(u) - (1-p) log sg(-u)`."""
  return p * jax.nn.softplus(-u) + (1.0 - p) * jax.nn.softplus(u)


def _metrics(pairs: rows.Pairs, h_P: Array) -> dict:
  """D and lengths of both sides apart: DPO can lower both log-probabilities while h grows."""
  mean = lambda x_P: nums.mean_metric(x_P, pairs.valid_P)  # noqa: E731
  metrics = {
      "pref/accuracy": rows.accuracy(h_P, pairs.valid_P),
      "pref/margin": mean(h_P),
      "pref/length_chosen": mean(pairs.len_w_P),
      "pref/length_rejected": mean(pairs.len_l_P),
      "pref/logp_chosen": mean(pairs.logp_w_P / jnp.maximum(pairs.len_w_P, 1.0)),
      "pref/logp_rejected": mean(pairs.logp_l_P / jnp.maximum(pairs.len_l_P, 1.0)),
  }
  if pairs.ratio_w_P is not None:
    metrics["pref/log_ratio_chosen"] = mean(pairs.ratio_w_P)
    metrics["pref/log_ratio_rejected"] = mean(pairs.ratio_l_P)
    metrics["pref/log_ratio_chosen_per_token"] = mean(
        pairs.ratio_w_P / jnp.maximum(pairs.len_w_P, 1.0))
    # 0 before the first update of a fresh reference, or dropout was on in one of the two passes
    metrics["pref/log_ratio_max"] = rows.max_metric(
        jnp.stack([pairs.ratio_w_P, pairs.ratio_l_P]), jnp.stack([pairs.valid_P] * 2))
  return metrics


def _difference(pairs: rows.Pairs, length_norm: bool = False) -> Array:
  """h, of sums or of means per token."""
  if not length_norm:
    return pairs.ratio_w_P - pairs.ratio_l_P
  return (pairs.ratio_w_P / jnp.maximum(pairs.len_w_P, 1.0)
          - pairs.ratio_l_P / jnp.maximum(pairs.len_l_P, 1.0))


def _finish(loss_P: Array, h_P: Array, pairs: rows.Pairs, weight_P: Array | None = None) -> Loss:
  return rows.reduce(loss_P, pairs.valid_P, _metrics(pairs, h_P), weight_P)


# --- pairs, with a reference ----------------------------------------------------------------------


@types.needs(_reference, unit=2)
def dpo(stats: TokenStats, batch: Batch, *, beta: float = 0.1, label_smoothing: float = 0.0,
        soft_label: bool = False, margin: float = 0.0, length_norm: bool = False,
        weighted: bool = False) -> Loss:
  """DPO: `-log sg(beta h)`, h = D_w - D_l. https://arxiv.org/abs/2305.18290, eq. 7.

  cDPO: `-(1-e) log sg(beta h) - e log sg(-beta h)` with e = label_smoothing
  (https://ericmitchell.ai/cdpo.pdf). Soft label: column p takes the place of 1 - e; p = 1 is DPO.
  Offset (https://arxiv.org/abs/2402.10571): beta h - margin * column "margin". TRL and Tunix: beta
  0.1 and sums, too; no soft labels. TRL's "sigmoid" ignores its label_smoothing.

  Args:
    beta: strength of the pull to the reference; 0.01 is common on policy.
    label_smoothing: probability that a label is wrong, in [0, 0.5).
    soft_label: read column p.
    margin: multiplies column "margin"; 0 = do not read it.
    length_norm: D per token instead of its sum (beta then wants to be about the length larger).
    weighted: multiply each pair's loss by column "weight".

  Raises:
    ValueError: both smoothing and soft labels, or a column is missing.
  """
  if soft_label and label_smoothing:
    raise ValueError("soft_label and label_smoothing both set the label; use one")
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs, length_norm)
  u_P = beta * h_P
  if margin:
    u_P = u_P - margin * rows.column(batch, "margin", 2)
  p = rows.column(batch, "p", 2) if soft_label else 1.0 - label_smoothing
  weight_P = rows.column(batch, "weight", 2) if weighted else None
  return _finish(_soft_cross_entropy(u_P, p), h_P, pairs, weight_P)


@types.needs(_reference, unit=2)
def dpo_nll(stats: TokenStats, batch: Batch, *, beta: float = 0.1, nll: float = 1.0) -> Loss:
  """DPO + NLL: `-log sg(beta h) - nll * lbar_w`. https://arxiv.org/abs/2404.19733, eq. 1.

  The likelihood is a mean per response, then per pair, as in the paper. TRL sums the losses
  "sigmoid" and "sft"; its "sft" is a mean over the tokens of the micro-batch.
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  lbar_P = pairs.logp_w_P / jnp.maximum(pairs.len_w_P, 1.0)
  return _finish(jax.nn.softplus(-beta * h_P) - nll * lbar_P, h_P, pairs)


@types.needs(_reference, unit=2)
def robust_dpo(stats: TokenStats, batch: Batch, *, beta: float = 0.1,
               label_smoothing: float = 0.1) -> Loss:
  """Robust DPO: `[-(1-e) log sg(beta h) + e log sg(-beta h)] / (1 - 2e)`.

  https://arxiv.org/abs/2403.00409: unbiased for the clean loss when a share e of the labels is
  flipped. Not bounded below. TRL's default e is 0, which is DPO.

  Args:
    beta: as in `dpo`.
    label_smoothing: e, the flip rate, in [0, 0.5).

  Raises:
    ValueError: e outside [0, 0.5).
  """
  if not 0.0 <= label_smoothing < 0.5:
    raise ValueError(f"label_smoothing must lie in [0, 0.5), not {label_smoothing}")
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  clean_P, flipped_P = jax.nn.softplus(-beta * h_P), jax.nn.softplus(beta * h_P)
  loss_P = (1.0 - label_smoothing) * clean_P - label_smoothing * flipped_P
  return _finish(loss_P / (1.0 - 2.0 * label_smoothing), h_P, pairs)


@types.needs(_reference, unit=2)
def ipo(stats: TokenStats, batch: Batch, *, beta: float = 0.1, length_norm: bool = False) -> Loss:
  """IPO: `(h - 1/(2 beta))^2`. https://arxiv.org/abs/2310.12036, eq. 17 (beta is its tau).

  The paper writes sums, as here; TRL always divides by the length (`length_norm=True`), which it
  says the authors did too.
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs, length_norm)
  return _finish((h_P - 0.5 / beta) ** 2, h_P, pairs)


@types.needs(_reference, unit=2)
def hinge(stats: TokenStats, batch: Batch, *, beta: float = 0.1, margin: float = 1.0) -> Loss:
  """Hinge on the log-ratios: `max(0, margin - beta h)`. SLiC-HF, https://arxiv.org/abs/2305.10425.

  The paper has no reference and a margin in nats; the form with D is the common one (TRL's, with
  margin 1).
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  return _finish(jax.nn.relu(margin - beta * h_P), h_P, pairs)


@types.needs(_reference, unit=2)
def spin(stats: TokenStats, batch: Batch, *, beta: float = 0.1) -> Loss:
  """SPIN: `-log sg(beta (D_data - D_own))`. https://arxiv.org/abs/2401.01335, eq. 4.7.

  DPO (beta: the paper's lambda) whose chosen row is the data's response and whose rejected row is a
  sample of the opponent: the policy of the last iteration, also the reference. Such pairs come from
  `data.pairs.by_source`.
  """
  return dpo(stats, batch, beta=beta)


@types.needs(_reference, unit=2)
def osp(stats: TokenStats, batch: Batch, *, beta: float = 0.1, clip: float = 1e-3) -> Loss:
  """Soft preferences: `-p log sg(beta h) - (1-p) log sg(-beta h)`, least at beta h = logit(p).

  https://arxiv.org/abs/2405.14103; the exact loss of the paper is not confirmed (papers/osp.md). p:
  the self-judged strength; pairs with p = 1/2 stay, as a pull towards the reference.

  Args:
    beta: as in `dpo`.
    clip: p is kept in [clip, 1 - clip], so that the target of h is finite.
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  p_P = rows.column(batch, "p", 2)
  loss = _finish(_soft_cross_entropy(beta * h_P, jnp.clip(p_P, clip, 1.0 - clip)), h_P, pairs)
  undecided = nums.mean_metric((p_P == 0.5).astype(h_P.dtype), pairs.valid_P)
  return loss.replace(metrics={**loss.metrics, "pref/undecided": undecided})


@types.needs(_reference, unit=2)
def dno(stats: TokenStats, batch: Batch, *, eta: float = 0.1, scale: float = 1.0) -> Loss:
  """DNO, conceptual: `-q log sg(eta h) - (1-q) log sg(-eta h)`, q = sg(scale (r_1 - r_2)).

  https://arxiv.org/abs/2404.03715, Algorithm 1. r: win rate against samples of the current policy
  (column win_rate of both rows), which is also the reference; at the optimum eta h = scale (r_1 -
  r_2). The order of the pair does not matter. The practical algorithm (DNO-Prct) is `dpo` with
  beta = eta on large-margin pairs.

  Args:
    eta: inverse temperature.
    scale: multiplies r in [0, 1]; scale it together with eta.
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  rate_P2 = rows.units(rows.column(batch, "win_rate"), 2)
  q_P = jax.nn.sigmoid(scale * (rate_P2[:, 0] - rate_P2[:, 1]))
  return _finish(_soft_cross_entropy(eta * h_P, q_P), h_P, pairs)


@types.needs(_reference, unit=3)
def selm(stats: TokenStats, batch: Batch, *, beta: float = 0.01, alpha: float = 1e-3,
         floor: float | None = None, skip_if_winner: bool = False) -> Loss:
  """SELM: `-log sg(beta h) + alpha beta D_own`. https://arxiv.org/abs/2405.19332.

  Units of three adjacent rows: chosen, rejected, the model's own (greedy) response. The second term
  lowers the likelihood of what the policy says already; alpha = 0 is DPO. It has no lower bound:
  `floor` stops it. Defaults are those of the authors' Zephyr run.

  Args:
    beta: as in `dpo`.
    alpha: strength of optimism.
    floor: D_own below this (nats) is not lowered further; None = no floor, as in the paper.
    skip_if_winner: drop the optimism term where the own response is the chosen one (ours).
  """
  pairs = rows.pairs(stats, batch, size=3)
  h_P = _difference(pairs)
  own_P = rows.units(rows.log_ratio(stats, batch), 3)[:, 2]
  term_P = own_P if floor is None else jnp.maximum(own_P, floor)
  if skip_if_winner:
    term_P = term_P * (1.0 - rows.column(batch, "own_wins", 3))
  loss = _finish(jax.nn.softplus(-beta * h_P) + alpha * beta * term_P, h_P, pairs)
  own_metric = nums.mean_metric(own_P, pairs.valid_P)
  return loss.replace(metrics={**loss.metrics, "pref/log_ratio_own": own_metric})


@types.needs(_reference, unit=2)
def ld_dpo(stats: TokenStats, batch: Batch, *, beta: float = 0.1, alpha: float = 0.5) -> Loss:
  """Length-desensitised DPO: tokens after the shorter length count alpha in both log-probabilities.

  With n = min(|y_w|, |y_l|): `D = sum_{t<=n} d_t + alpha sum_{t>n} d_t`, loss `-log sg(beta h)`.
  https://arxiv.org/abs/2409.06411. alpha in [0, 1]; 1 is DPO. TRL: `ld_alpha`, off by
  default.
  """
  shorter_B = jnp.repeat(jnp.min(rows.units(rows.lengths(batch), 2), axis=1), 2)
  place_BT = jnp.cumsum(batch.mask_BT, axis=1)
  weight_BT = jnp.where(place_BT <= shorter_B[:, None], 1.0, alpha)
  pairs = rows.pairs(stats, batch, token_weight_BT=weight_BT)
  h_P = _difference(pairs)
  return _finish(jax.nn.softplus(-beta * h_P), h_P, pairs)


@types.needs(_reference, unit=2)
def r_dpo(stats: TokenStats, batch: Batch, *, beta: float = 0.1, alpha: float = 0.01) -> Loss:
  """Length-regularised DPO: `-log sg(beta h + alpha (|y_w| - |y_l|))`.

  https://arxiv.org/abs/2403.19159: DPO for the reward r(y) - alpha |y|, so that a chosen response
  which is longer has less to prove. alpha is in units of beta * h per token; 0 is DPO.
  """
  pairs = rows.pairs(stats, batch)
  h_P = _difference(pairs)
  u_P = beta * h_P + alpha * (pairs.len_w_P - pairs.len_l_P)
  return _finish(jax.nn.softplus(-u_P), h_P, pairs)


# --- pairs, without a reference -------------------------------------------------------------------


@types.needs(_nothing, unit=2)
def simpo(stats: TokenStats, batch: Batch, *, beta: float = 2.0, gamma: float = 1.0) -> Loss:
  """SimPO: `-log sg(beta (lbar_w - lbar_l) - gamma)`. https://arxiv.org/abs/2405.14734, eq. 6.

  TRL (CPO trainer): beta 0.1, gamma 0.5.

  Args:
    beta: multiplies log-probabilities *per token*.
    gamma: target margin; the paper's gamma / beta is 0.3 to 0.5.
  """
  pairs = rows.pairs(stats, batch, reference=False)
  h_P = (pairs.logp_w_P / jnp.maximum(pairs.len_w_P, 1.0)
         - pairs.logp_l_P / jnp.maximum(pairs.len_l_P, 1.0))
  return _finish(jax.nn.softplus(gamma - beta * h_P), h_P, pairs)


def log_odds(lbar: Array) -> Array:
  """`lbar - log(1 - exp(lbar))` for lbar <= -1e-6 (clipped there), exact at both ends."""
  lbar = jnp.minimum(lbar, -1e-6)
  near = lbar > -0.6931471805599453  # -log 2: which of the two forms keeps its digits
  log1mexp = jnp.where(near, jnp.log(-jnp.expm1(lbar)),
                       jnp.log1p(-jnp.exp(jnp.where(near, -1.0, lbar))))
  return lbar - log1mexp


@types.needs(_nothing, unit=2)
def orpo(stats: TokenStats, batch: Batch, *, lam: float = 0.1) -> Loss:
  """ORPO: `-lbar_w - lam log sg(log_odds(lbar_w) - log_odds(lbar_l))`.

  https://arxiv.org/abs/2403.07691, eq. 6-7. The likelihood is a mean per response, then per pair
  (TRL: over the tokens of the micro-batch); lam is TRL's `beta`, 0.1 in both.

  Args:
    lam: weight of the odds ratio.
  """
  pairs = rows.pairs(stats, batch, reference=False)
  lbar_w_P = pairs.logp_w_P / jnp.maximum(pairs.len_w_P, 1.0)
  lbar_l_P = pairs.logp_l_P / jnp.maximum(pairs.len_l_P, 1.0)
  odds_P = log_odds(lbar_w_P) - log_odds(lbar_l_P)
  return _finish(-lbar_w_P + lam * jax.nn.softplus(-odds_P), odds_P, pairs)


# --- single rows ----------------------------------------------------------------------------------


@types.needs(_reference)
def sppo(stats: TokenStats, batch: Batch, *, beta: float = 1e-3) -> Loss:
  """SPPO: `(D - (win_rate - 1/2) / beta)^2`, mean over rows. https://arxiv.org/abs/2405.00675, 4.7.

  Rows need no partner: the best and the worst of a group as two rows give the authors' pair loss
  `1/2 [(..)_w^2 + (..)_l^2]`. In their "single" variant the win rate of the winner is P(w > l) and
  that of the loser 1 - P. TRL's `sppo_hard` has targets +-1/(2 beta) and no factor 1/2.

  Args:
    beta: 1 / eta. 1e-3 (the authors') suits hundreds of tokens; 0.1 to 1 suits ten.
  """
  valid_B = rows.valid(batch)
  ratio_B = rows.log_ratio(stats, batch)
  rate_B = rows.column(batch, "win_rate")
  loss_B = (ratio_B - (rate_B - 0.5) / beta) ** 2
  metrics = {
      "pref/log_ratio_chosen": nums.mean_metric(ratio_B, valid_B * (rate_B > 0.5)),
      "pref/log_ratio_rejected": nums.mean_metric(ratio_B, valid_B * (rate_B < 0.5)),
      "pref/loss_max": rows.max_metric(loss_B, valid_B),
  }
  return rows.reduce(loss_B, valid_B, metrics)


@types.needs(_reference, unit=lambda group, **_: max(1, 2 * group))
def kto(stats: TokenStats, batch: Batch, *, beta: float = 0.1, desirable: float = 1.0,
        undesirable: float = 1.0, group: int = 4) -> Loss:
  """KTO: `desirable (1 - sg(u))` if label = 1, else `undesirable (1 - sg(-u))`, u = beta (D - z0).

  https://arxiv.org/abs/2402.01306. z0 = max(0, mean D of mismatched prompt/response pairs), no
  gradient. A mean over "the batch" would change with the micro-batch, so z0 belongs to a *unit* of
  2 * group adjacent rows: `group` examples, then `group` rows with the prompt of example i and the
  response of example i+1 (`data.pairs.mismatched` builds them; they carry no loss). group = half of
  the batch is the paper's estimate. group=0: every row is an example, z0 is column "z0". TRL: the
  same weights, one z0 for the batch of all devices.

  Args:
    stats: logp_BT [B, T], B a multiple of 2 * group.
    beta: risk aversion and pull to the reference.
    desirable, undesirable: weights; choose desirable n_d / (undesirable n_u) in [1, 4/3].
    group: examples that share one z0; at least 2, or 0.

  Raises:
    ValueError: group = 1 (no mismatched pair exists), or a missing column.
  """
  if group == 1 or group < 0:
    raise ValueError(f"group={group}: z0 needs at least two examples to mismatch (or 0: a column)")
  valid_B, ratio_B = rows.valid(batch), rows.log_ratio(stats, batch)
  label_B = rows.column(batch, "label")
  if group:
    z0_B = _mismatched_kl(ratio_B, valid_B, group)
    example_B = jnp.tile(jnp.arange(2 * group) < group, ratio_B.shape[0] // (2 * group))
    valid_B = valid_B * example_B
  else:
    z0_B = rows.column(batch, "z0")
  u_B = beta * (ratio_B - jax.lax.stop_gradient(z0_B))
  loss_B = jnp.where(label_B > 0, desirable * jax.nn.sigmoid(-u_B),
                     undesirable * jax.nn.sigmoid(u_B))
  metrics = {
      "pref/log_ratio_chosen": nums.mean_metric(ratio_B, valid_B * (label_B > 0)),
      "pref/log_ratio_rejected": nums.mean_metric(ratio_B, valid_B * (label_B <= 0)),
      "pref/desirable": nums.mean_metric((label_B > 0).astype(ratio_B.dtype), valid_B),
      "pref/z0": nums.mean_metric(z0_B, valid_B),
  }
  return rows.reduce(loss_B, valid_B, metrics)


def _mismatched_kl(ratio_B: Array, valid_B: Array, group: int) -> Array:
  """z0 of each unit (its last `group` rows), repeated for its rows."""
  ratio_UG = rows.units(ratio_B, 2 * group)[:, group:]
  valid_UG = rows.units(valid_B, 2 * group)[:, group:]
  mean_U = jnp.sum(ratio_UG * valid_UG, axis=1) / jnp.maximum(jnp.sum(valid_UG, axis=1), 1.0)
  return jnp.repeat(jnp.maximum(mean_U, 0.0), 2 * group)
