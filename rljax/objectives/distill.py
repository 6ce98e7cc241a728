"""Distillation: divergences from a teacher, per token or response, exact on a support or sampled.

Sampled forms read `extras["teacher_logp_BT"]` [B, T], the teacher's log-probability of each action.
Exact forms compare two distributions over K stated tokens plus one bucket for the rest, so that no
[B, T, V] array exists:
  extras["ids_BTK"]           [B, T, K] int, the teacher's (or anyone's) top K token ids, -1 = none
  extras["teacher_logp_BTK"]  [B, T, K] the teacher's log-probabilities there
  stats.extras["logp_BTK"]    [B, T, K] the student's, normalised over the whole vocabulary
With the bucket the value is a lower bound of the divergence over the vocabulary (data processing),
and exact when K covers both distributions. Gradients never flow into the teacher.
"""

import jax
import jax.numpy as jnp

from rljax import nums
from rljax.objectives import rows
from rljax.types import Array, Batch, Loss, TokenStats

TAILS = ("bucket", "renormalise")
LEVELS = ("token", "sequence")
LEAST = -1e4  # stands for -inf: its exponential is 0, its products stay finite


def _support(stats: TokenStats, batch: Batch, tail: str) -> tuple[Array, Array]:
  """(student, teacher) log-probabilities over the stated tokens, [B, T, K or K + 1 (bucket)]."""
  if tail not in TAILS:
    raise ValueError(f"unknown tail {tail!r}; one of {', '.join(TAILS)}")
  if "logp_BTK" not in stats.extras:
    raise ValueError("this objective needs stats.extras['logp_BTK'] (the student at ids_BTK)")
  counted_BT1 = (batch.mask_BT * batch.valid_B[:, None] > 0)[..., None]
  present_BTK = (rows.column(batch, "ids_BTK") >= 0) & counted_BT1
  teacher_BTK = rows.column(batch, "teacher_logp_BTK")
  def over_support(logp_BTK):
    logp_BTK = jnp.where(present_BTK, jnp.maximum(logp_BTK, LEAST), LEAST)
    if tail == "renormalise":
      return jax.nn.log_softmax(logp_BTK, axis=-1)
    inside_BT1 = jnp.sum(jnp.exp(logp_BTK), axis=-1, keepdims=True)
    rest_BT1 = jnp.log(jnp.maximum(1.0 - inside_BT1, 1e-7))
    return jnp.concatenate([logp_BTK, rest_BT1], axis=-1)
  return over_support(stats.extras["logp_BTK"]), over_support(teacher_BTK)


def _kl(logp: Array, logq: Array) -> Array:
  """`sum_k p (log p - log q)`, over the last axis."""
  return jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1)


def _finish(loss_BT, batch, aggregation, constant, name):
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  metrics = {f"distill/{name}": nums.mean_metric(loss_BT, mask_BT)}
  return nums.aggregate(loss_BT, mask_BT, aggregation, constant=constant, metrics=metrics)


def forward_kl(stats: TokenStats, batch: Batch, *, tail: str = "bucket",
               aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """Forward KL per token: `sum_k t_k (log t_k - log s_k)`, t teacher, s student; covers all modes.

  https://arxiv.org/abs/1503.02531 (without its temperature: give logps at the temperature wanted).

  Args:
    stats: extras logp_BTK [B, T, K].
    batch: mask_BT [B, T]; columns ids_BTK, teacher_logp_BTK [B, T, K].
    tail: "bucket": the rest of the vocabulary is one more token; "renormalise": over the K alone.
    aggregation: see `nums.aggregate`.
    constant: the divisor of the two "constant" aggregations, else None.

  Raises:
    ValueError: unknown tail, a missing column, or as `nums.aggregate`.
  """
  student, teacher = _support(stats, batch, tail)
  return _finish(_kl(teacher, student), batch, aggregation, constant, "forward_kl")


def reverse_kl(stats: TokenStats, batch: Batch, *, tail: str = "bucket",
               aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """Reverse KL per token: `sum_k s_k (log s_k - log t_k)`; seeks one mode. Arguments: `forward_kl`.

  MiniLLM's divergence (https://arxiv.org/abs/2306.08543), exact per token, without its
  long-horizon term.
  """
  student, teacher = _support(stats, batch, tail)
  return _finish(_kl(student, teacher), batch, aggregation, constant, "reverse_kl")


def jsd(stats: TokenStats, batch: Batch, *, beta: float = 0.5, tail: str = "bucket",
        aggregation: str = "token-mean", constant: float | None = None) -> Loss:
  """Generalised JSD: `beta KL(t || m) + (1-beta) KL(s || m)`, m = beta t + (1-beta) s.

  https://arxiv.org/abs/2306.13649 (GKD), eq. 1. jsd / beta -> forward KL for beta -> 0, and
  jsd / (1 - beta) -> reverse KL for beta -> 1. TRL's GKD: beta 0.5; its 0 and 1 *are* the two KLs.

  Args:
    stats, batch, tail, aggregation, constant: as in `forward_kl`.
    beta: share of the teacher in the mixture, strictly between 0 and 1.

  Raises:
    ValueError: beta not in (0, 1), or as `forward_kl`.
  """
  if not 0.0 < beta < 1.0:
    raise ValueError(f"beta must lie in (0, 1), not {beta}; its ends are forward_kl and reverse_kl")
  student, teacher = _support(stats, batch, tail)
  mixture = jnp.logaddexp(teacher + jnp.log(beta), student + jnp.log1p(-beta))
  loss_BT = beta * _kl(teacher, mixture) + (1.0 - beta) * _kl(student, mixture)
  return _finish(loss_BT, batch, aggregation, constant, "jsd")


def _teacher_gap(stats: TokenStats, batch: Batch) -> Array:
  """`logp - teacher_logp` of the sampled tokens, [B, T]; 0 where nothing counts (NaN may be there).
  """
  gap_BT = stats.logp_BT - rows.column(batch, "teacher_logp_BT")
  return jnp.where(batch.mask_BT * batch.valid_B[:, None] > 0, gap_BT, 0)


def forward_kl_sampled(stats: TokenStats, batch: Batch, *, aggregation: str = "token-mean",
                       constant: float | None = None) -> Loss:
  """Forward KL from responses of the *teacher*: `teacher_logp_t - logp_t`, gradient = that of SFT.

  Sequence-level distillation (https://arxiv.org/abs/1606.07947) is this on teacher samples;
  aggregation="seq-mean-token-sum" estimates KL(teacher || student) of whole responses.

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T]; column teacher_logp_BT [B, T].
    aggregation: see `nums.aggregate`.
    constant: the divisor of the two "constant" aggregations, else None.

  Raises:
    ValueError: a missing column, or as `nums.aggregate`.
  """
  return _finish(-_teacher_gap(stats, batch), batch, aggregation, constant, "forward_kl")


def reverse_kl_sampled(stats: TokenStats, batch: Batch, *, estimator: str = "k2",
                       level: str = "token", aggregation: str = "token-mean",
                       constant: float | None = None) -> Loss:
  """Reverse KL from responses of the *student*, by an estimator of `nums.kl` (k2: `d^2 / 2`).

  d = logp - teacher_logp per token. On policy the gradient of k2 (and k3+) averages to that of
  KL(student || teacher) at each token, that of k1 to zero, that of k3 to the forward KL's.
  level="sequence": `D^2 / 2` with D = sum_t d, whose gradient D grad log p(y) averages to that of
  the KL between whole responses (more variance; estimator and aggregation stay at their defaults).

  Args:
    stats: logp_BT [B, T].
    batch: mask_BT [B, T]; column teacher_logp_BT [B, T].
    estimator: k1, k2, k3 or k3+; per token d is clamped to +-20 there.
    level: "token" or "sequence".
    aggregation: see `nums.aggregate`; used by level="token".
    constant: the divisor of the two "constant" aggregations, else None.

  Raises:
    ValueError: unknown level or estimator, an option that the level ignores, a missing column.
  """
  if level not in LEVELS:
    raise ValueError(f"unknown level {level!r}; one of {', '.join(LEVELS)}")
  gap_BT = _teacher_gap(stats, batch)
  mask_BT = batch.mask_BT * batch.valid_B[:, None]
  metrics = {"distill/reverse_kl": nums.mean_metric(gap_BT, mask_BT)}
  if level == "token":
    loss_BT = nums.kl(gap_BT, jnp.zeros_like(gap_BT), estimator)
    return nums.aggregate(loss_BT, mask_BT, aggregation, constant=constant, metrics=metrics)
  if (estimator, aggregation, constant) != ("k2", "token-mean", None):
    raise ValueError("level='sequence' knows neither another estimator nor an aggregation")
  return rows.reduce(0.5 * rows.token_sum(gap_BT, batch) ** 2, rows.valid(batch), metrics)
