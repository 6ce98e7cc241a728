"""Advantages: `(batch, *, hyperparameters) -> Batch` with `adv_BT` set. Pure, on the whole batch.

An advantage sees the global batch (before any micro-batch split), so statistics over groups, roles
or all tokens belong here and never in an objective. Rows with `valid_B == 0` enter no statistic and
get advantage 0. Groups may have any sizes, in any order of rows; `by` names the columns that define
them: "group_B" and integer columns of `extras` (a view, a role, a turn). `reward` names a column of
`extras` [B] that replaces the summed `reward_BT`.

A group of one has no baseline: its advantage is 0, not an error, because sizes are known at run
time only, and a NaN reward may shrink any group. `pg/zero_adv_rows` of every objective shows what
that costs. All-equal groups give exactly 0. State (a moving baseline) is data in `extras`.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from rljax import advantage_terms as terms
from rljax import nums, ops, types
from rljax.types import Batch

# --- one advantage per row ------------------------------------------------------------------------


def reinforce(batch: Batch, *, baseline: str = "none", reward: str = "") -> Batch:
  """A_i = r_i - b, the same at every token; b is 0 or the mean over the batch.

  Williams 1992, https://doi.org/10.1007/BF00992696.

  Args:
    batch: `reward_BT` [B, T].
    baseline: "none" or "batch-mean".
    reward: see the module.

  Raises:
    ValueError: unknown baseline.
  """
  adv_B = terms.rewards(batch, reward)
  if baseline == "batch-mean":
    adv_B, _, _ = terms.centre(adv_B, terms.group_ids(batch, ()), adv_B.shape[0])
  elif baseline != "none":
    raise ValueError(f"unknown baseline {baseline!r}; none or batch-mean")
  return batch.replace(adv_BT=terms.per_token(batch, adv_B))


def group_norm(batch: Batch, *, scale_by_std: bool = True, eps: float = 1e-6, ddof: int = 1,
               by: tuple[str, ...] = ("group_B",), reward: str = "") -> Batch:
  """A_i = (r_i - mean_g r) / (std_g r + eps); without the division it is Dr. GRPO's.

  GRPO: https://arxiv.org/abs/2402.03300 section 4.1.2; Dr. GRPO: https://arxiv.org/abs/2503.20783.
  A spread below 1e-6 gives 0. TRL's eps is 1e-4, verl's 1e-6, both with ddof 1. In a group of one
  TRL gives 0 and verl the reward itself.

  Args:
    batch: `reward_BT` [B, T], group ids [B].
    scale_by_std: False subtracts the mean only.
    eps: added to the standard deviation.
    ddof: 1 for the unbiased standard deviation, 0 for the population's.
    by, reward: see the module.
  """
  return batch.replace(adv_BT=ops.group_advantages(
      terms.rewards(batch, reward), terms.group_ids(batch, by), batch.mask_BT,
      valid_B=batch.valid_B, scale_by_std=scale_by_std, eps=eps, ddof=ddof))


def leave_one_out(batch: Batch, *, by: tuple[str, ...] = ("group_B",), reward: str = "") -> Batch:
  """A_i = r_i - mean_{j != i} r_j = G / (G - 1) (r_i - mean r); 0 in a group of one.

  RLOO: https://arxiv.org/abs/2402.14740 section 3. As TRL's and verl's for G >= 2; verl gives the
  reward itself in a group of one.

  Args:
    batch: `reward_BT` [B, T], group ids [B].
    by, reward: see the module.
  """
  return batch.replace(adv_BT=ops.group_advantages(
      terms.rewards(batch, reward), terms.group_ids(batch, by), batch.mask_BT,
      valid_B=batch.valid_B, scale_by_std=False, leave_one_out=True))


def baseline(batch: Batch, *, column: str = "baseline_B", reward: str = "") -> Batch:
  """A_i = r_i - b_i with b a column of `extras`: a moving average per role, or a greedy answer's.

  SPIRAL's role-conditioned advantage, https://arxiv.org/abs/2506.24119 (with `ema_baselines`);
  self-critical training and ReMax when b is the reward of the greedy answer.

  Args:
    batch: `reward_BT` [B, T].
    column: name of b in `extras`, float [B].
    reward: see the module.
  """
  adv_B = terms.rewards(batch, reward) - batch.extras[column]
  return batch.replace(adv_BT=terms.per_token(batch, adv_B))


def ema_baselines(state: Mapping[str, float], keys: Sequence[str], rewards: Sequence[float], *,
                  decay: float = 0.95, start: float = 0.0,
                  update_first: bool = False) -> tuple[list[float], dict[str, float]]:
  """b[key] <- decay b[key] + (1 - decay) r, in order; the baseline of each row, and the new state.

  Host code on plain floats: the state is JSON, owned by the loop, one entry per key such as
  "game/role". By default a row's baseline is the value before its own update (unbiased; SPIRAL's
  code); its paper's algorithm, https://arxiv.org/abs/2506.24119, updates first. A NaN reward leaves
  the state alone.

  Args:
    state: the baselines so far.
    keys: one per row.
    rewards: one per row.
    decay: of the moving average.
    start: value of a key not seen before.
    update_first: subtract the updated value instead.
  """
  state, out = dict(state), []
  for key, reward in zip(keys, rewards, strict=True):
    old = state.get(key, start)
    new = old if reward != reward else decay * old + (1.0 - decay) * reward
    state[key] = new
    out.append(new if update_first else old)
  return out, state


# --- one advantage per token ----------------------------------------------------------------------


@types.needs(lambda **_: {"value"})
def gae(batch: Batch, *, lam: float = 0.95, whitened: bool = True) -> Batch:
  """A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t, over trained tokens.

  https://arxiv.org/abs/1506.02438 equation 16. gamma is `discount_BT`. Also sets
  `extras["return_BT"]` = A + V, before whitening. Untrained tokens are stepped over: t + 1 means
  the next trained token, and a reward paid in between belongs to the token before. verl: lam 1;
  Tunix: 0.95, both whitened.

  Args:
    batch: value_BT, reward_BT, discount_BT [B, T].
    lam: 1 for Monte-Carlo returns minus V.
    whitened: to mean 0, variance 1 over all trained tokens (`whiten`).

  Raises:
    ValueError: the batch has no values.
  """
  if batch.value_BT is None:
    raise ValueError("gae needs value_BT")
  adv_BT, return_BT = ops.gae(batch.value_BT, terms.paid(batch), batch.discount_BT,
                              terms.trained(batch), lam=lam)
  extras = {**batch.extras, "return_BT": return_BT}
  batch = batch.replace(adv_BT=adv_BT, extras=extras)
  return whiten(batch) if whitened else batch


def returns(batch: Batch) -> Batch:
  """A_t = r_t + gamma A_{t+1}: the return from each action on, gamma from `discount_BT`.

  Turn-level returns are the same sum with a discount of 1 inside turns. Untrained tokens are not
  discounted, their rewards count.

  Args:
    batch: reward_BT, discount_BT [B, T].
  """
  mask_BT = terms.trained(batch)
  keep_BT = jnp.where(mask_BT > 0, batch.discount_BT, (batch.discount_BT > 0).astype(jnp.float32))
  return batch.replace(adv_BT=mask_BT * ops.recurrence(keep_BT, terms.paid(batch)))


def whiten(batch: Batch, *, by: tuple[str, ...] = (), shift: bool = True, eps: float = 1e-8,
           target: str = "adv") -> Batch:
  """A <- (A - mean A) / sqrt(var A + eps) over all trained tokens of the batch, or of each group.

  REINFORCE++, https://arxiv.org/abs/2501.03262; per task and role (`by`) it is AZR's,
  https://arxiv.org/abs/2505.03335. Unbiased variance, as verl's. Fewer than two tokens give 0.

  Args:
    batch: adv_BT [B, T].
    by: see the module; () is the whole batch.
    shift: False keeps the mean (as some PPO codes do with rewards).
    eps: inside the root.
    target: "adv" or "reward", the array to whiten.

  Raises:
    ValueError: unknown target.
  """
  if target not in ("adv", "reward"):
    raise ValueError(f"unknown target {target!r}; adv or reward")
  x_BT = batch.adv_BT if target == "adv" else batch.reward_BT
  x_BT = terms.whitened(
      x_BT, terms.trained(batch), terms.group_ids(batch, by), shift=shift, eps=eps)
  return batch.replace(adv_BT=x_BT) if target == "adv" else batch.replace(reward_BT=x_BT)


def reinforce_pp(batch: Batch, *, group_baseline: bool = False,
                 by: tuple[str, ...] = ("group_B",), eps: float = 1e-8) -> Batch:
  """Returns from each token on, whitened over the batch; "++-baseline" first subtracts group means.

  https://arxiv.org/abs/2501.03262. Put `kl_reward` before it for the KL in the reward.

  Args:
    batch: reward_BT, discount_BT [B, T].
    group_baseline: one centred reward per row, at all its tokens, then whitened.
    by: groups of the baseline, see the module.
    eps: of `whiten`.
  """
  batch = group_norm(batch, scale_by_std=False, by=by) if group_baseline else returns(batch)
  return whiten(batch, eps=eps)


def segment_norm(batch: Batch, *, key: str = "", to_go: bool = False, scale_by_std: bool = True,
                 eps: float = 1e-6, ddof: int = 1) -> Batch:
  """Rewards of segments (steps, sentences, messages), normalised over the group's segments.

  Every token gets its segment's value, or with `to_go` the sum of its own and later ones: process
  supervision of https://arxiv.org/abs/2402.03300 section 4.1.3. `key` compares only segments with
  one label, say (turn, role): SPOC, https://arxiv.org/abs/2506.06923.

  Args:
    batch: reward_BT; `extras["segment_BT"]` int [B, T], in [0, T), growing in time, -1 for none.
    key: a column of `extras`, int [B, T] in [0, T), constant within a segment; "" compares all.
    to_go: sum over this and later segments of the row.
    scale_by_std, eps, ddof: as in `group_norm`.
  """
  B, T = batch.mask_BT.shape
  segment_BT = batch.extras["segment_BT"]
  inside_BT = (segment_BT >= 0) & (batch.valid_B[:, None] > 0)
  slot_BT = jnp.where(inside_BT, segment_BT + T * jnp.arange(B)[:, None], B * T).reshape(-1)
  reward_N = jax.ops.segment_sum(batch.reward_BT.reshape(-1), slot_BT, B * T + 1)[:-1]
  exists_N = jax.ops.segment_max(inside_BT.reshape(-1).astype(jnp.int32), slot_BT, B * T + 1)[:-1]
  group_N = jnp.repeat(batch.group_B, T) * T
  if key:
    group_N += jax.ops.segment_max(batch.extras[key].reshape(-1), slot_BT, B * T + 1)[:-1]
  ids_N = jnp.where(exists_N > 0, group_N, B * T)
  stats = terms.centre(reward_N, ids_N, B * T)
  value_N = terms.standardise(*stats, eps=eps, ddof=ddof) if scale_by_std else stats[0]
  value_BT = value_N.reshape(B, T)
  if to_go:
    value_BT = jnp.cumsum(value_BT[:, ::-1], axis=1)[:, ::-1]
  adv_BT = jnp.take_along_axis(value_BT, jnp.maximum(segment_BT, 0), axis=1)
  return batch.replace(adv_BT=jnp.where(inside_BT & (batch.mask_BT > 0), adv_BT, 0.0))


# --- before, after and between --------------------------------------------------------------------


@types.needs(lambda **_: {"old_logp", "ref_logp"})
def kl_reward(batch: Batch, *, coef: float = 0.001, estimator: str = "k1") -> Batch:
  """r_t <- r_t - coef KL_t, KL_t = old_t - ref_t for k1: the KL penalty inside the reward.

  A column `kl_weight_BT` of `extras` scales the coefficient per token. verl: coef 0.001; TRL's
  RLOO: 0.05, on the row's sum. Put an advantage after it (`chain`).

  Args:
    batch: reward_BT, old_logp_BT, ref_logp_BT [B, T].
    coef: weight of the penalty.
    estimator: k1, k2 or k3 (see `nums.kl`).

  Raises:
    ValueError: no old or reference log-probabilities, or an unknown estimator.
  """
  penalty_BT = coef * terms.kl_estimate(batch, estimator)
  if "kl_weight_BT" in batch.extras:
    weight_BT = batch.extras["kl_weight_BT"]
    penalty_BT = penalty_BT * jnp.where(terms.trained(batch) > 0, weight_BT, 0.0)
  return batch.replace(reward_BT=batch.reward_BT - penalty_BT)


def three_sigma(batch: Batch, *, limit: float = 3.0, max_abs: float = 10.0) -> Batch:
  """A_t <- 0 where it is not finite, |A_t - mean| > limit std, or |A_t| > max_abs.

  R1-Reward, https://arxiv.org/abs/2505.02835. Mean and unbiased std are over the finite advantages
  of trained tokens. With n tokens |z| cannot pass (n - 1) / sqrt(n): below 11 nothing is dropped.

  Args:
    batch: adv_BT [B, T]; put it after `whiten`.
    limit: in standard deviations.
    max_abs: bound of the advantage itself.
  """
  finite_BT = jnp.isfinite(batch.adv_BT) & (terms.trained(batch) > 0)
  z_BT = terms.whitened(
      batch.adv_BT, finite_BT.astype(jnp.float32), terms.group_ids(batch, ()), shift=True, eps=0.0)
  keep_BT = finite_BT & ~(jnp.abs(z_BT) > limit) & (jnp.abs(batch.adv_BT) <= max_abs)
  return batch.replace(adv_BT=jnp.where(keep_BT, batch.adv_BT, 0.0))


@types.needs(lambda **_: {"old_logp"})
def reweight(batch: Batch, *, weight: Callable, normalise: bool = False) -> Batch:
  """A_t <- w_t A_t with importance weights of sampler against trainer, of mean 1 if `normalise`.

  All clipped losses are linear in a positive factor of A, so this is the `correction` of an
  objective; only here, over the whole batch, can the weights be normalised.

  Args:
    batch: adv_BT, old_logp_BT, behav_logp_BT [B, T].
    weight: `nums.truncated_weight` or `nums.masked_weight`, or another of that form.
    normalise: divide by the mean weight over all trained tokens.

  Raises:
    ValueError: no old log-probabilities.
  """
  if batch.old_logp_BT is None:
    raise ValueError("reweight needs old_logp_BT before the advantage")
  mask_BT = terms.trained(batch)
  weight_BT = weight(batch.old_logp_BT, batch.behav_logp_BT, mask_BT)
  if normalise:
    weight_BT = weight_BT / jnp.maximum(nums.masked_mean(weight_BT, mask_BT), 1e-6)
  return batch.replace(adv_BT=batch.adv_BT * weight_BT)


def group_accuracy(batch: Batch, *, threshold: float = 0.5, by: tuple[str, ...] = ("group_B",),
                   reward: str = "") -> Batch:
  """extras["correct_B"] = r_i > threshold, extras["accuracy_B"] = its mean in the group.

  What `pg.nft` reads. Invalid rows have 0 and enter no mean; adv_BT stays.

  Args:
    batch: `reward_BT` [B, T], group ids [B].
    threshold: a reward above it is a success.
    by, reward: see the module.
  """
  right_B = (terms.rewards(batch, reward) > threshold) * batch.valid_B
  ids_B, rows = terms.group_ids(batch, by), right_B.shape[0]
  hits_B, count_B = (jax.ops.segment_sum(x, ids_B, rows + 1)[ids_B]
                     for x in (right_B, batch.valid_B))
  accuracy_B = hits_B / jnp.maximum(count_B, 1.0)
  return batch.replace(extras={**batch.extras, "correct_B": right_B, "accuracy_B": accuracy_B})


@types.needs(lambda **_: {"old_logp"})
def covariance_stats(batch: Batch, *, cov_low: float = 1.0, cov_high: float = 5.0,
                     cov_fraction: float = 2e-4) -> Batch:
  """Whole-batch statistics for `pg.clip_cov`, so that any micro-batch split gives the same.

  Sets `cov_adv_mean_B`, `cov_logp_mean_B` and `cov_rate_B` (drop probability of a candidate) in
  `extras`, from the log-probabilities before the first update. Put it after the advantage.

  Args:
    batch: adv_BT, old_logp_BT [B, T].
    cov_low, cov_high, cov_fraction: those of `pg.clip_cov`.

  Raises:
    ValueError: no old log-probabilities.
  """
  if batch.old_logp_BT is None:
    raise ValueError("covariance_stats needs old_logp_BT before the advantage")
  mask_BT = terms.trained(batch)
  adv_BT, logp_BT = (jnp.where(mask_BT > 0, x, 0.0) for x in (batch.adv_BT, batch.old_logp_BT))
  adv_mean, logp_mean = (nums.masked_mean(x, mask_BT) for x in (adv_BT, logp_BT))
  cov_BT = (adv_BT - adv_mean) * (logp_BT - logp_mean)
  candidates = jnp.sum(((cov_BT > cov_low) & (cov_BT < cov_high)) * mask_BT)
  wanted = jnp.maximum(cov_fraction * jnp.sum(mask_BT), 1.0)
  values = {"cov_adv_mean_B": adv_mean, "cov_logp_mean_B": logp_mean,
            "cov_rate_B": jnp.minimum(wanted / jnp.maximum(candidates, 1.0), 1.0)}
  columns = {k: jnp.full(batch.valid_B.shape, x) for k, x in values.items()}
  return batch.replace(extras={**batch.extras, **columns})


def _needs_of_all(steps):
  return set().union(*map(types.needs_of, steps))


@types.needs(lambda *, steps: _needs_of_all(steps))
def chain(batch: Batch, *, steps: tuple[Callable, ...]) -> Batch:
  """Applies several in order, for example (kl_reward, reinforce_pp, three_sigma)."""
  for step in steps:
    batch = step(batch)
  return batch


@types.needs(lambda *, parts, weights: _needs_of_all(parts))
def combine(batch: Batch, *, parts: tuple[Callable, ...], weights: tuple[float, ...]) -> Batch:
  """A = sum_k weights[k] A^k: several rewards, each normalised on its own, then added.

  Args:
    batch: what the parts read; each sees the original.
    parts: advantages, for example `group_norm` with different `reward` columns.
    weights: one per part.
  """
  total = sum(w * part(batch).adv_BT for w, part in zip(weights, parts, strict=True))
  return batch.replace(adv_BT=total)
