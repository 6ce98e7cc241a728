"""Losses of reward models: scores of a scalar head, of K heads, per response or per segment.

Where the scores are: a head speaks at every action, as `stats.value_BT` [B, T] (scalar) or
`stats.extras["heads_BTK"]` [B, T, K]. The score of a response is the output at its *last unmasked
action* (its end token), as a critic's would be; a segment's is the output at the segment's last
action. Several responses may also share one row (YOJO): column `position_BN` gives the action at
which each of the N scores is read, -1 where there is none.

Units are adjacent rows (`rows.py`): a chosen response and its rejected one are rows 2i, 2i+1; N
answers to one prompt are N adjacent rows. Columns of `batch.extras` (what belongs to a pair is read
at its first row):
  margin, p, weight   [B], of a pair: as in `preference`
  rank                [B], of a row: 1 = best, ties share a rank         (all_pairs, listwise)
  rank_BN             [B, N], the same for responses that share a row    (listwise with size=0)
  label               [B] in [0, 1]                                      (bce)
  target              [B] float                                          (regression)
  label_BD            [B, D] int class of each dimension, -1 = unknown   (classify)
  p_BK                [B, K], of a pair: P(chosen better) by criterion, NaN = unknown  (multi_head)
  segment_label_BTK   [B, T, K] in [0, 1] at the last action of a segment, NaN elsewhere  (segments)
"""

import jax
import jax.numpy as jnp

from rljax import nums, types
from rljax.objectives import rows
from rljax.types import Array, Batch, Loss, TokenStats

ABSENT = -1e30  # a score that takes no part in a softmax; -inf would make the gradient NaN


def _scores(**_):
  return {"scores"}


def _last_action(batch: Batch) -> Array:
  """Index of the last unmasked action, int [B]; 0 for a row without any."""
  place_T = jnp.arange(batch.mask_BT.shape[1])
  return jnp.max(jnp.where(batch.mask_BT > 0, place_T[None, :], 0), axis=1)


def _read(x_BT: Array, index_BN: Array, valid_B: Array) -> Array:
  """`x_BT[b, index_BN[b, n]]`, 0 in rows that do not count. A trailing axis K stays."""
  trailing = (1,) * (x_BT.ndim - 2)
  out = jnp.take_along_axis(x_BT, index_BN.reshape(*index_BN.shape, *trailing), axis=1)
  return jnp.where(valid_B.reshape(-1, 1, *trailing) > 0, out, 0)


def _heads(stats: TokenStats) -> Array:
  if "heads_BTK" not in stats.extras:
    raise ValueError("this objective needs stats.extras['heads_BTK'] (a head with K outputs)")
  return stats.extras["heads_BTK"]


def scores(stats: TokenStats, batch: Batch) -> Array:
  """The scalar score of each response, float [B]; 0 for rows that do not count.

  Raises:
    ValueError: the model has no scalar head.
  """
  if stats.value_BT is None:
    raise ValueError("this objective needs stats.value_BT (a scalar head)")
  return _read(stats.value_BT, _last_action(batch)[:, None], rows.valid(batch))[:, 0]


def _cross_entropy(u: Array, p) -> Array:
  """`-p log sg(u) - (1-p) log sg(-u)`."""
  return p * jax.nn.softplus(-u) + (1.0 - p) * jax.nn.softplus(u)


# --- pairs ----------------------------------------------------------------------------------------


@types.needs(_scores, unit=2)
def bradley_terry(stats: TokenStats, batch: Batch, *, margin: float = 0.0, soft_label: bool = False,
                  label_smoothing: float = 0.0, centering: float = 0.0, l2: float = 0.0,
                  length: float = 0.0, lm: float = 0.0, weighted: bool = False) -> Loss:
  """Bradley-Terry: `-log sg(r_w - r_l - margin)`; with a soft label p, the cross-entropy of p.

  InstructGPT, https://arxiv.org/abs/2203.02155, eq. 1 for K = 2. With u = r_w - r_l - margin *
  column "margin" (Llama 2, https://arxiv.org/abs/2307.09288, eq. 2; Secrets II 3d) the loss is
  `-p log sg(u) - (1-p) log sg(-u) + centering (r_w + r_l)^2 + l2 (r_w^2 + r_l^2) - lm lbar_w`.
  TRL: the same with its "margin" column, centering off.

  Args:
    stats: value_BT [2P, T]; logp_BT for lm.
    batch: mask_BT [2P, T]; columns p, margin, weight when asked for.
    margin: multiplies column "margin"; 0 = do not read it.
    soft_label: read column p, else p = 1 - label_smoothing.
    label_smoothing: probability that a label is wrong.
    centering: weight of (r_w + r_l)^2, 0.01 where used (https://arxiv.org/abs/2312.09244).
    l2: weight of r_w^2 + r_l^2 (BaseReward found it harmful).
    length: r is replaced by r - length * log(tokens) (BaseReward found it harmful).
    lm: weight of the likelihood per token of the chosen response (Secrets II, self-reference).
    weighted: multiply each pair's loss by column "weight".

  Raises:
    ValueError: both smoothing and soft labels, no scalar head, or a missing column.
  """
  if soft_label and label_smoothing:
    raise ValueError("soft_label and label_smoothing both set the label; use one")
  r_B = scores(stats, batch)
  if length:
    r_B = r_B - length * jnp.log(jnp.maximum(rows.lengths(batch), 1.0))
  r_P2, valid_P = rows.units(r_B, 2), rows.valid(batch, 2)
  r_w_P, r_l_P = r_P2[:, 0], r_P2[:, 1]
  gap_P = u_P = r_w_P - r_l_P
  if margin:
    u_P = u_P - margin * rows.column(batch, "margin", 2)
  p = rows.column(batch, "p", 2) if soft_label else 1.0 - label_smoothing
  loss_P = _cross_entropy(u_P, p)
  loss_P = loss_P + centering * (r_w_P + r_l_P) ** 2 + l2 * (r_w_P**2 + r_l_P**2)
  if lm:
    loss_P = loss_P - lm * rows.units(rows.token_mean(stats.logp_BT, batch), 2)[:, 0]
  weight_P = rows.column(batch, "weight", 2) if weighted else None
  return rows.reduce(loss_P, valid_P, _pair_metrics(r_w_P, r_l_P, gap_P, valid_P), weight_P)


def _pair_metrics(r_w_P, r_l_P, gap_P, valid_P) -> dict:
  return {"rm/accuracy": rows.accuracy(gap_P, valid_P),
          "rm/margin": nums.mean_metric(gap_P, valid_P),
          "rm/score_chosen": nums.mean_metric(r_w_P, valid_P),
          "rm/score_rejected": nums.mean_metric(r_l_P, valid_P),
          "rm/margin_max": rows.max_metric(gap_P, valid_P)}


@types.needs(_scores, unit=2)
def multi_head(stats: TokenStats, batch: Batch, *, label_smoothing: float = 0.0) -> Loss:
  """K criteria: Bradley-Terry on each of K heads, `-p_k log sg(d_k) - (1-p_k) log sg(-d_k)`.

  Mean over the criteria that are known (p_BK not NaN), of all pairs together. K = 1 with p = 1 is
  `bradley_terry`.

  Args:
    stats: extras heads_BTK [2P, T, K].
    batch: mask_BT [2P, T]; column p_BK [2P, K].
    label_smoothing: e; p becomes (1 - e) p + e (1 - p).

  Raises:
    ValueError: no heads, or a missing column.
  """
  heads_BK = _read(_heads(stats), _last_action(batch)[:, None], rows.valid(batch))[:, 0]
  d_PK = rows.units(heads_BK, 2)[:, 0] - rows.units(heads_BK, 2)[:, 1]
  p_PK = rows.column(batch, "p_BK", 2)
  known_PK = ~jnp.isnan(p_PK) & (rows.valid(batch, 2) > 0)[:, None]
  p_PK = jnp.nan_to_num(p_PK)
  smooth_PK = (1.0 - label_smoothing) * p_PK + label_smoothing * (1.0 - p_PK)
  known_PK = known_PK.astype(d_PK.dtype)
  margin_PK = d_PK * jnp.sign(p_PK - 0.5)
  metrics = {"rm/accuracy": rows.accuracy(margin_PK, known_PK * (p_PK != 0.5)),
             "rm/margin": nums.mean_metric(margin_PK, known_PK)}
  return rows.reduce(_cross_entropy(d_PK, smooth_PK), known_PK, metrics)


# --- N responses of one prompt --------------------------------------------------------------------


def _ranked(stats: TokenStats, batch: Batch, size: int) -> tuple[Array, Array, Array]:
  """(scores, ranks, present) of every list, each [U, N]; a list is N rows, or a row if size = 0."""
  if size:
    present_UN = rows.units(rows.valid(batch), size) > 0
    r_UN = rows.units(scores(stats, batch), size)
    return r_UN, rows.units(rows.column(batch, "rank"), size), present_UN
  if stats.value_BT is None:
    raise ValueError("this objective needs stats.value_BT (a scalar head)")
  position_BN, valid_B = rows.column(batch, "position_BN"), rows.valid(batch)
  present_BN = (position_BN >= 0) & (valid_B > 0)[:, None]
  r_BN = _read(stats.value_BT, jnp.maximum(position_BN, 0), valid_B)
  return jnp.where(present_BN, r_BN, 0), rows.column(batch, "rank_BN"), present_BN


@types.needs(_scores, unit=lambda size, **_: size)
def all_pairs(stats: TokenStats, batch: Batch, *, size: int = 4, centering: float = 0.0) -> Loss:
  """K-way ranking: mean of `-log sg(r_i - r_j)` over the pairs rank_i < rank_j, then over prompts.

  InstructGPT, https://arxiv.org/abs/2203.02155, eq. 1: the K responses of a prompt are one element,
  so that its pairs are never split. Ties form no pair; a prompt without a pair does not count.

  Args:
    stats: value_BT [B, T], B a multiple of size.
    batch: mask_BT [B, T]; column rank (or rank_BN, position_BN).
    size: K, rows per prompt; 0 = the responses share a row.
    centering: weight of the mean of (r_i + r_j)^2 over the same pairs.

  Raises:
    ValueError: size does not divide B, no scalar head, or a missing column.
  """
  r_UN, rank_UN, present_UN = _ranked(stats, batch, size)
  pair_UNN = ((rank_UN[:, :, None] < rank_UN[:, None, :])
              & present_UN[:, :, None] & present_UN[:, None, :]).astype(r_UN.dtype)
  gap_UNN = r_UN[:, :, None] - r_UN[:, None, :]
  loss_UNN = jax.nn.softplus(-gap_UNN) + centering * (r_UN[:, :, None] + r_UN[:, None, :]) ** 2
  pairs_U = jnp.sum(pair_UNN, axis=(1, 2))
  loss_U = jnp.sum(loss_UNN * pair_UNN, axis=(1, 2)) / jnp.maximum(pairs_U, 1.0)
  metrics = {"rm/accuracy": rows.accuracy(gap_UNN, pair_UNN),
             "rm/margin": nums.mean_metric(gap_UNN, pair_UNN)}
  return rows.reduce(loss_U, (pairs_U > 0).astype(r_UN.dtype), metrics)


@types.needs(_scores, unit=lambda size, **_: size)
def listwise(stats: TokenStats, batch: Batch, *, size: int = 4, top: int = 0) -> Loss:
  """Plackett-Luce: `-sum_k [r_k - logsumexp_{rank_j >= rank_k} r_j]`, summed over a list's ranks.

  ListMLE (Xia et al., ICML 2008). A tied response competes with its whole tie (Breslow). With top=n
  only the n best have terms; `best_of_n` is the usual loss for one winner. A mean over the lists of
  at least two responses.

  Args:
    stats: value_BT [B, T], B a multiple of size.
    batch: mask_BT [B, T]; column rank (or rank_BN, position_BN).
    size: responses per list as rows; 0 = they share a row.
    top: only responses of rank <= top have a term; 0 = all.

  Raises:
    ValueError: size does not divide B, no scalar head, or a missing column.
  """
  r_UN, rank_UN, present_UN = _ranked(stats, batch, size)
  below_UNN = present_UN[:, None, :] & (rank_UN[:, None, :] >= rank_UN[:, :, None])
  rest_UN = jax.nn.logsumexp(jnp.where(below_UNN, r_UN[:, None, :], ABSENT), axis=-1)
  counted_UN = present_UN & (rank_UN <= top) if top else present_UN
  loss_U = jnp.sum(jnp.where(counted_UN, rest_UN - r_UN, 0.0), axis=-1)
  return _reduce_lists(loss_U, r_UN, rank_UN, present_UN)


@types.needs(_scores, unit=lambda size, **_: size)
def best_of_n(stats: TokenStats, batch: Batch, *, size: int = 4) -> Loss:
  """N-way softmax: `-log(sum_{i best} exp r_i / sum_j exp r_j)`; for N = 2, Bradley-Terry.

  YOJO (papers/yojo.md 4; the treatment of ties is ours): all responses of the lowest rank are best.

  Args:
    stats: value_BT [B, T], B a multiple of size.
    batch: mask_BT [B, T]; column rank (or rank_BN, position_BN).
    size: responses per list as rows; 0 = they share a row.

  Raises:
    ValueError: size does not divide B, no scalar head, or a missing column.
  """
  r_UN, rank_UN, present_UN = _ranked(stats, batch, size)
  best_UN = present_UN & (rank_UN == _lowest(rank_UN, present_UN)[:, None])
  everyone_U = jax.nn.logsumexp(jnp.where(present_UN, r_UN, ABSENT), axis=-1)
  winners_U = jax.nn.logsumexp(jnp.where(best_UN, r_UN, ABSENT), axis=-1)
  return _reduce_lists(everyone_U - winners_U, r_UN, rank_UN, present_UN)


def _lowest(rank_UN, present_UN):
  return jnp.min(jnp.where(present_UN, rank_UN.astype(jnp.float32), jnp.inf), axis=-1)


def _reduce_lists(loss_U, r_UN, rank_UN, present_UN) -> Loss:
  """Mean over the lists that hold at least two responses."""
  valid_U = (jnp.sum(present_UN, axis=-1) >= 2).astype(r_UN.dtype)
  top_U = jnp.argmax(jnp.where(present_UN, r_UN, ABSENT), axis=-1)
  picked_U = jnp.take_along_axis(rank_UN, top_U[:, None], axis=-1)[:, 0]
  hit_U = (picked_U == _lowest(rank_UN, present_UN)).astype(r_UN.dtype)
  return rows.reduce(loss_U, valid_U, {"rm/best_accuracy": nums.mean_metric(hit_U, valid_U)})


@types.needs(_scores, unit=lambda size, **_: size)
def difference(stats: TokenStats, batch: Batch, *, size: int = 4) -> Loss:
  """MetaRM's inner step: `-2/k^2 sum_{i<j} sg(|r_i - r_j|)`, least when the scores differ.

  Secrets of RLHF II, https://arxiv.org/abs/2401.06080; papers/secrets-rlhf-2.md 5. Lists are the k
  responses of the *current* policy to one prompt; a step down this loss is the inner ascent
  phi' = phi + eta grad J, after which `bradley_terry` is differentiated at phi' and applied at phi.
  Equal scores have no gradient. A mean over lists with at least two responses (k counts those).

  Args:
    stats: value_BT [B, T], B a multiple of size.
    batch: mask_BT [B, T].
    size: rows per prompt.

  Raises:
    ValueError: size < 2 or not a divisor of B, or no scalar head.
  """
  if size < 2:
    raise ValueError(f"size={size}: a difference needs at least two responses")
  r_UN = rows.units(scores(stats, batch), size)
  present_UN = rows.units(rows.valid(batch), size)
  pair_UNN = present_UN[:, :, None] * present_UN[:, None, :]
  pair_UNN = pair_UNN * jnp.triu(jnp.ones((size, size)), 1).astype(r_UN.dtype)[None]
  gap_UNN = r_UN[:, :, None] - r_UN[:, None, :]
  gap_UNN = gap_UNN * jnp.sign(gap_UNN)  # |gap|, but without a slope at 0
  k_U = jnp.sum(present_UN, axis=-1)
  j_U = 2.0 / jnp.maximum(k_U, 1.0) ** 2 * jnp.sum(jax.nn.sigmoid(gap_UNN) * pair_UNN, axis=(1, 2))
  metrics = {"rm/difference": nums.mean_metric(gap_UNN, pair_UNN)}
  return rows.reduce(-j_U, (k_U >= 2).astype(r_UN.dtype), metrics)


# --- single responses, dimensions, segments -------------------------------------------------------


@types.needs(_scores)
def bce(stats: TokenStats, batch: Batch, *, positive_weight: float = 1.0) -> Loss:
  """Classifier: `-w y log sg(r) - (1-y) log sg(-r)`, y = column label; mean over responses.

  Cooper's verifier, SPCT's meta model, adversarial imitation's discriminator (1 = demonstration).

  Args:
    stats: value_BT [B, T].
    batch: mask_BT [B, T]; column label [B].
    positive_weight: w, for rare positives.

  Raises:
    ValueError: no scalar head, or a missing column.
  """
  r_B, valid_B, y_B = scores(stats, batch), rows.valid(batch), rows.column(batch, "label")
  loss_B = positive_weight * y_B * jax.nn.softplus(-r_B) + (1.0 - y_B) * jax.nn.softplus(r_B)
  hit_B = ((r_B > 0) == (y_B > 0.5)).astype(r_B.dtype)
  metrics = {"rm/accuracy": nums.mean_metric(hit_B, valid_B),
             "rm/score": nums.mean_metric(r_B, valid_B)}
  return rows.reduce(loss_B, valid_B, metrics)


@types.needs(_scores)
def regression(stats: TokenStats, batch: Batch, *, delta: float = 0.0) -> Loss:
  """Regression: `(r - target)^2`, or Huber's `delta (|e| - delta/2)` for errors above delta.

  The Huber branch below delta is `e^2 / 2` (its usual scale); delta = 0 is the square without 1/2.

  Args:
    stats: value_BT [B, T].
    batch: mask_BT [B, T]; column target [B].
    delta: where the square turns into a line; 0 = never.

  Raises:
    ValueError: no scalar head, or a missing column.
  """
  valid_B, error_B = rows.valid(batch), scores(stats, batch) - rows.column(batch, "target")
  size_B = jnp.abs(error_B)
  if delta:
    loss_B = jnp.where(size_B <= delta, 0.5 * error_B**2, delta * (size_B - 0.5 * delta))
  else:
    loss_B = error_B**2
  metrics = {"rm/error": nums.mean_metric(size_B, valid_B),
             "rm/bias": nums.mean_metric(error_B, valid_B)}
  return rows.reduce(loss_B, valid_B, metrics)


@types.needs(_scores)
def classify(stats: TokenStats, batch: Batch, *, classes: int = 2) -> Loss:
  """Probes: `-log softmax(logits_d)[label_d]` for D dimensions, mean over the labelled ones.

  MRMBench's probes (D dimensions, C = 2 or 3), the degree head of SPO (D = 1, C = degrees).
  The K = D * C outputs of the head are read dimension-major.

  Args:
    stats: extras heads_BTK [B, T, D * classes].
    batch: mask_BT [B, T]; column label_BD [B, D] int, -1 = unknown.
    classes: C.

  Raises:
    ValueError: no heads, heads that are not D * classes, or a missing column.
  """
  valid_B = rows.valid(batch)
  heads_BK = _read(_heads(stats), _last_action(batch)[:, None], valid_B)[:, 0]
  label_BD = rows.column(batch, "label_BD").astype(jnp.int32)
  if heads_BK.shape[1] != label_BD.shape[1] * classes:
    raise ValueError(f"{heads_BK.shape[1]} outputs are not {label_BD.shape[1]} x {classes} classes")
  logp_BDC = jax.nn.log_softmax(heads_BK.reshape(*label_BD.shape, classes), axis=-1)
  known_BD = ((label_BD >= 0) & (valid_B > 0)[:, None]).astype(heads_BK.dtype)
  index_BD1 = jnp.maximum(label_BD, 0)[..., None]
  loss_BD = -jnp.take_along_axis(logp_BDC, index_BD1, axis=-1)[..., 0]
  hit_BD = (jnp.argmax(logp_BDC, axis=-1) == label_BD).astype(heads_BK.dtype)
  metrics = {"rm/accuracy": nums.mean_metric(hit_BD, known_BD)}
  return rows.reduce(loss_BD, known_BD, metrics)


@types.needs(_scores)
def segments(stats: TokenStats, batch: Batch, *, positive_weight: float = 1.0) -> Loss:
  """Per segment: `-w y log sg(h) - (1-y) log sg(-h)` at the last action of each labelled segment.

  Fine-grained RLHF (https://arxiv.org/abs/2306.01693: categories k, each with its own segments) and
  TRM's sentence labels. A two-class head is the difference of its logits. Mean over all labels.

  Args:
    stats: extras heads_BTK [B, T, K].
    batch: mask_BT [B, T]; column segment_label_BTK [B, T, K], NaN where no segment of k ends or its
      label is to be ignored.
    positive_weight: w, for rare positives (TRM's bonus for the rare class).

  Raises:
    ValueError: no heads, or a missing column.
  """
  heads_BTK = _heads(stats)
  y_BTK = rows.column(batch, "segment_label_BTK")
  known_BTK = ~jnp.isnan(y_BTK) & ((batch.mask_BT * batch.valid_B[:, None]) > 0)[..., None]
  y_BTK, h_BTK = jnp.where(known_BTK, y_BTK, 0), jnp.where(known_BTK, heads_BTK, 0)
  loss = positive_weight * y_BTK * jax.nn.softplus(-h_BTK) + (1.0 - y_BTK) * jax.nn.softplus(h_BTK)
  known_BTK = known_BTK.astype(h_BTK.dtype)
  hit_BTK = ((h_BTK > 0) == (y_BTK > 0.5)).astype(h_BTK.dtype)
  positive_BTK = known_BTK * (y_BTK > 0.5)
  metrics = {"rm/accuracy": nums.mean_metric(hit_BTK, known_BTK),
             "rm/recall": nums.mean_metric(hit_BTK, positive_BTK),
             "rm/labels_positive": nums.mean_metric((y_BTK > 0.5).astype(h_BTK.dtype), known_BTK)}
  return rows.reduce(loss, known_BTK, metrics)
