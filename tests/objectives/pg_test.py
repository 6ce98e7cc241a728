"""Policy-gradient losses: reference, by hand, identities, invariances, extremes, every knob."""

import dataclasses
import functools
import inspect

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from rljax import advantages, nums, types
from rljax.objectives import pg, pg_terms
from tests.objectives import cases
from tests.objectives import pg_reference as ref
from tests.objectives.cases import x64  # noqa: F401

pytestmark = cases.X64

REQUIRED = {"dr_grpo": {"constant": 7.0}}
# Settings that make every branch of a function matter in the random batch (GSPO's own range is
# 3e-4: at the spread of these batches everything would be clipped).
ACTIVE = {"gspo": {"clip_low": 0.1, "clip_high": 0.15}, "stable_reinforce": {"ratio_limit": 1.7},
          "cispo": {"cap": 1.3}, "clip_cov": {"cov_low": 0.0, "cov_fraction": 0.4},
          "nft": {"floor": 0.5, "log_ratio_max": 0.5}}
ALL = cases.public_functions(pg)


def fn(name, **h):
  """The objective as it is now (looked up late: the mutation run replaces functions)."""
  return functools.partial(getattr(pg, name), **{**REQUIRED.get(name, {}), **h})


def shared_keys(name, h):
  full = {**cases.hyperparameters(getattr(pg, name)), **REQUIRED.get(name, {}), **h}
  shared = {k: full.pop(k) for k in ("correction", "kl_coef", "kl_estimator", "entropy_coef",
                                     "aggregation", "constant")}
  return full, shared


SURROGATES = {
    "reinforce": ref.policy_gradient, "rloo": ref.policy_gradient, "cispo": ref.cispo,
    "grpo": ref.clipped, "reinforce_pp": ref.clipped, "dr_grpo": ref.clipped, "dapo": ref.clipped,
    "gspo": ref.gspo, "stable_reinforce": ref.stable, "nft": ref.nft, "ppo": ref.clipped}


def expected(name, stats, batch, **h):
  settings, shared = shared_keys(name, h)
  settings.pop("value_coef", None), settings.pop("value_clip", None)
  if shared["correction"] is not None:
    f = shared["correction"]
    full = {**cases.hyperparameters(f.func), **f.keywords}
    kind = f.func.__name__.removesuffix("_weight")
    shared["correction"] = (kind, full["level"], full.get("low"), full.get("high", full.get("cap")))
  return ref.total(SURROGATES[name], stats, batch, settings, **shared)


def check(name, stats, batch, **h):
  loss, grad = expected(name, stats, batch, **h)
  ours, our_grad = cases.value_and_gradient(fn(name, **h), stats, batch)
  np.testing.assert_allclose(ours, loss, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(our_grad, grad, rtol=1e-8, atol=1e-12)
  assert abs(loss) > 1e-4 and np.abs(grad).max() > 1e-4  # a comparison of zeros shows nothing


# --- 1. the papers' equations, one token at a time ------------------------------------------------

TRUNCATED = functools.partial(nums.truncated_weight, cap=1.2)
MASKED = functools.partial(nums.masked_weight, low=0.6, high=1.5)
SHARED = {
    "default": {},
    "k1": {"kl_coef": 0.3, "kl_estimator": "k1"},
    "k2": {"kl_coef": 0.3, "kl_estimator": "k2"},
    "k3": {"kl_coef": 0.3, "kl_estimator": "k3"},
    "k3+": {"kl_coef": 0.3, "kl_estimator": "k3+"},
    "ratio-k3": {"kl_coef": 0.3, "kl_estimator": "ratio-k3"},
    "entropy": {"entropy_coef": 0.2},
    "tis": {"correction": TRUNCATED},
    "tis-sequence": {"correction": functools.partial(TRUNCATED, level="sequence")},
    "tis-geometric": {"correction": functools.partial(TRUNCATED, level="geometric")},
    "masked": {"correction": MASKED},
    "masked+kl": {"correction": functools.partial(MASKED, level="geometric"), "kl_coef": 0.1,
                  "entropy_coef": 0.1},
    "token-mean": {"aggregation": "token-mean", "constant": None},
    "seq-mean": {"aggregation": "seq-mean-token-mean", "constant": None},
    "seq-sum": {"aggregation": "seq-mean-token-sum", "constant": None},
    "constant": {"aggregation": "constant", "constant": 9.0},
    "sum-constant": {"aggregation": "token-sum-constant", "constant": 50.0},
}


@pytest.mark.parametrize("setting", SHARED)
@pytest.mark.parametrize("name", ["grpo", "reinforce", "gspo"])
def test_reference_of_shared_terms(name, setting):
  stats, batch = cases.random_batch(1)
  batch = batch.replace(valid_B=np.array([1.0, 1, 1, 1, 0, 1]))
  check(name, stats, batch, **{**ACTIVE.get(name, {}), **SHARED[setting]})


OWN = [
    ("reinforce", {"ratio": True}), ("rloo", {}), ("rloo", {"ratio": True}),
    ("grpo", {}), ("grpo", {"clip_low": 0.1, "clip_high": 0.4}), ("grpo", {"dual_clip": 1.3}),
    ("ppo", {}), ("ppo", {"dual_clip": 1.3}), ("reinforce_pp", {}), ("dr_grpo", {}), ("dapo", {}),
    ("cispo", {}), ("cispo", {"cap": 1.3}), ("cispo", {"cap": 1.3, "floor": 0.8}),
    ("gspo", {"clip_low": 0.1, "clip_high": 0.15}), ("gspo", {}),
    ("gspo", {"clip_low": 0.1, "clip_high": 0.15, "level": "token"}),
    ("gspo", {"clip_low": 0.05, "clip_high": 0.15, "dual_clip": 1.1}),
    ("stable_reinforce", {}), ("stable_reinforce", {"ratio_limit": 1.7}),
    ("nft", {}), ("nft", {"prompt_weight": "grpo"}), ("nft", {"prompt_weight": "uniform"}),
    ("nft", {"floor": 0.2, "negative_weight": 0.5}), ("nft", {"log_ratio_max": 0.3}),
]


@pytest.mark.parametrize("name,h", OWN)
def test_reference_of_each_function(name, h):
  for seed in (2, 3):
    stats, batch = cases.random_batch(seed, spread=0.8)
    check(name, stats, batch, **h)


@pytest.mark.parametrize("weight", ["hard", "grpo"])
def test_nft_clamps_the_accuracy(weight):
  stats, batch = cases.random_batch(2)
  for accuracy in (0.995, 0.9, 0.1, 0.005):
    extras = {**batch.extras, "accuracy_B": np.full(cases.B, accuracy)}
    check("nft", stats, batch.replace(extras=extras), prompt_weight=weight, constant=10.0)
    check("nft", stats, batch.replace(extras=extras), accuracy_clip=0.2, constant=10.0, floor=0.1)


@pytest.mark.parametrize("name", ["grpo", "gspo", "cispo", "nft", "reinforce"])
def test_without_old_logp_the_current_policy_is_the_denominator(name):
  stats, batch = cases.random_batch(4, old=False)
  h = {"entropy_coef": 0.1, "correction": TRUNCATED}
  loss, grad = expected(name, stats, batch, **h)
  ours, our_grad = cases.value_and_gradient(fn(name, **h), stats, batch)
  np.testing.assert_allclose(ours, loss, rtol=1e-9)
  np.testing.assert_allclose(our_grad, grad, rtol=1e-8, atol=1e-15)


def test_advantages_per_token_are_used_per_token():
  stats, batch = cases.random_batch(5)
  batch = batch.replace(adv_BT=np.random.default_rng(5).standard_normal((cases.B, cases.T)))
  for name in ("grpo", "cispo", "reinforce", "stable_reinforce"):
    check(name, stats, batch)
  for level in ("sequence", "token"):
    check("gspo", stats, batch, level=level, clip_low=0.1, clip_high=0.15)


# --- 2. by hand -----------------------------------------------------------------------------------


def hand_batch(prob, old, adv):
  """One row per list of probabilities, in the common shape; the rest is invalid."""
  n, length = np.shape(prob)
  widths = [(0, cases.B - n), (0, cases.T - length)]

  def put(x):
    return np.pad(np.broadcast_to(np.array(x, float), (n, length)), widths)
  logp, old_logp, on = put(np.log(prob)), put(np.log(old)), put(1.0)
  batch = types.Batch(
      inputs=None, actions_BT=np.zeros(on.shape, np.int32), mask_BT=on, behav_logp_BT=old_logp,
      reward_BT=0 * on, discount_BT=on, adv_BT=put(np.array(adv)[:, None]), valid_B=on[:, 0],
      group_B=np.zeros(len(on), np.int32), old_logp_BT=old_logp)
  return types.TokenStats(logp), batch


def test_by_hand():
  # ratios 1.5 (up) and 0.5 (down), advantages 1 and -1, two tokens in two rows
  stats, batch = hand_batch([[0.6, 0.2], [0.6, 0.2]], [[0.4, 0.4], [0.4, 0.4]], [1.0, -1.0])
  # row 1: -min(1.5, 1.2) - min(0.5, 0.8) = -1.7; row 2: max(1.5, 1.2) + max(0.5, 0.8) = 2.3
  assert cases.value(pg.grpo, stats, batch) == pytest.approx((-1.7 + 2.3) / 4)
  assert cases.value(pg.dapo, stats, batch) == pytest.approx((-1.28 - 0.5 + 2.3) / 4)
  assert cases.value(pg.dr_grpo, stats, batch, constant=10.0) == pytest.approx(0.6 / 20)
  assert cases.value(pg.ppo, stats, batch) == pytest.approx(0.6 / 4)
  assert cases.value(pg.reinforce_pp, stats, batch) == pytest.approx(0.6 / 4)
  assert cases.value(pg.grpo, stats, batch, dual_clip=1.3) == pytest.approx((-1.7 + 1.3 + 0.8) / 4)
  # pre-clamp to [1/1.25, 1.25]: row 1 -1.2 - 0.8, row 2 1.25 + 0.8
  assert cases.value(pg.stable_reinforce, stats, batch, ratio_limit=1.25) == pytest.approx(0.05 / 4)
  # log 0.6 + log 0.2 = log 0.12
  first = cases.only(batch, [0])
  assert cases.value(pg.reinforce, stats, first) == pytest.approx(-np.log(0.12) / 2)
  assert cases.value(pg.rloo, stats, first) == pytest.approx(-np.log(0.12))
  # weights min(1.5, 1.2) and 0.5
  assert cases.value(pg.cispo, stats, first, cap=1.2) == pytest.approx(
      -(1.2 * np.log(0.6) + 0.5 * np.log(0.2)) / 2)
  # s = sqrt(1.5 * 0.5) = 0.866: row 1 -min(0.866, 0.9) = -0.866, row 2 max(0.866, 0.9) = 0.9
  assert cases.value(pg.gspo, stats, batch, clip_low=0.1, clip_high=0.1) == pytest.approx(
      (-np.sqrt(0.75) + 0.9) / 2)


def column(*values):
  return np.pad(np.array(values, float), (0, cases.B - len(values)))


def test_nft_by_hand():
  stats, batch = hand_batch([[0.6], [0.6]], [[0.4], [0.4]], [0.0, 0.0])
  batch = batch.replace(extras={"correct_B": column(1, 0), "accuracy_B": column(0.5, 0.5)})
  # right: -0.5 log 1.5; wrong: (1 - 0.75) / 0.5 = 0.5, floored to 1: 0, to 0.25: -0.5 log 0.5
  assert cases.value(pg.nft, stats, batch) == pytest.approx(-0.5 * np.log(1.5) / 1000)
  assert cases.value(pg.nft, stats, batch, floor=0.25) == pytest.approx(
      -0.5 * (np.log(1.5) + np.log(0.5)) / 1000)
  # the floor lets gradients pass: wrong, q / (1 - q) dR / 1 = 1.5, times w = 0.5
  grad = cases.gradient(pg.nft, stats, batch)
  np.testing.assert_allclose(grad[:2, 0], [-0.5 / 1000, 0.75 / 1000])


def test_metrics_by_hand():
  stats, batch = hand_batch([[0.6, 0.2, 0.44], [0.6, 0.2, 0.44]], [[0.4] * 3] * 2, [1.0, -1.0])
  batch.mask_BT[1, 2] = 0
  batch = batch.replace(behav_logp_BT=stats.logp_BT - np.log(2))
  loss = pg.grpo(stats, batch, correction=nums.truncated_weight)
  m = functools.partial(cases.metric, loss)
  assert m("pg/clip_fraction") == pytest.approx(2 / 5)  # 1.5 with A > 0 and 0.5 with A < 0
  assert m("pg/clip_high_fraction") == pytest.approx(1 / 5)
  assert m("pg/ratio_mean") == pytest.approx((1.5 + 0.5 + 1.1 + 1.5 + 0.5) / 5)
  assert m("pg/ratio_max") == pytest.approx(1.5)
  assert m("pg/tis_weight_mean") == pytest.approx((4 / 3 + 2 + 20 / 11 + 4 / 3 + 2) / 5)
  assert m("kl/behav") == pytest.approx(-np.log(2))
  assert m("pg/zero_adv_rows") == 0
  loss = pg.grpo(stats, batch.replace(ref_logp_BT=stats.logp_BT - 0.25), kl_coef=0.1,
                 kl_estimator="ratio-k1")
  assert cases.metric(loss, "kl/penalty") == pytest.approx(0.25)  # the estimate, not the product
  assert cases.metric(pg.cispo(stats, batch, cap=1.2), "pg/clip_fraction") == pytest.approx(2 / 5)
  batch.adv_BT[0] = 0
  batch.adv_BT[1, :2] = 0
  batch.adv_BT[1, 2] = 1  # its token is masked
  zero = pg.reinforce(stats, batch, ratio=True)
  assert cases.metric(zero, "pg/zero_adv_rows") == 1.0
  assert cases.metric(zero, "pg/ratio_mean") == pytest.approx(1.02)
  batch.adv_BT[1, 1] = 1
  assert cases.metric(pg.reinforce(stats, batch), "pg/zero_adv_rows") == 0.5
  extras = {"correct_B": column(1, 1), "accuracy_B": column(0.5, 1)}
  nft = pg.nft(stats, batch.replace(extras=extras))
  assert cases.metric(nft, "pg/nft_unfiltered") == 0.5


# --- 3. identities --------------------------------------------------------------------------------


def on_policy(seed=6):
  stats, batch = cases.random_batch(seed, old=False)
  return stats, batch.replace(old_logp_BT=stats.logp_BT.copy())


@pytest.mark.parametrize("name", [n for n in ALL if n not in ("nft", "clip_cov")])
def test_at_ratio_one_every_gradient_is_reinforce(name):
  stats, batch = on_policy()
  how = dict(aggregation="seq-mean-token-mean", constant=None)
  np.testing.assert_allclose(cases.gradient(fn(name, **how), stats, batch),
                             cases.gradient(fn("reinforce", **how), stats, batch), rtol=1e-9)


def test_nft_at_ratio_one_is_dr_grpo_or_grpo():
  stats, batch = on_policy()
  first = np.arange(cases.T) == 0
  batch = batch.replace(reward_BT=np.where(first, batch.extras["correct_B"][:, None], 0.0))
  batch = jax.tree.map(np.asarray, advantages.group_accuracy(batch))
  how = dict(aggregation="token-sum-constant", constant=10.0)
  for weight, normalised in (("hard", dict(scale_by_std=False)), ("grpo", dict(ddof=0, eps=0.0))):
    plain = advantages.group_norm(batch, **normalised)
    np.testing.assert_allclose(
        cases.gradient(fn("nft", prompt_weight=weight, **how), stats, batch),
        cases.gradient(fn("dr_grpo", **how), stats, plain), rtol=1e-9, atol=1e-12)


def test_rloo_is_dr_grpo_times_g_over_g_minus_one_and_g2_is_the_difference():
  stats, batch = cases.random_batch(7, group=2)
  rloo, dr = advantages.leave_one_out(batch), advantages.group_norm(batch, scale_by_std=False)
  a = cases.gradient(pg.rloo, stats, rloo)
  b = cases.gradient(pg.reinforce, stats, dr, aggregation="seq-mean-token-sum")
  np.testing.assert_allclose(a, 2 * b, rtol=1e-9)
  r = batch.reward_BT.sum(-1)
  np.testing.assert_allclose(rloo.adv_BT[0, 0], r[0] - r[1], rtol=1e-9)


def test_gspo_of_one_token_is_grpo_and_its_two_forms_agree():
  stats, batch = cases.random_batch(8)
  batch = batch.replace(mask_BT=(np.arange(cases.T) == 0) * np.ones((cases.B, 1)))
  h = dict(clip_low=0.1, clip_high=0.15)
  assert cases.value(pg.gspo, stats, batch, **h) == pytest.approx(
      cases.value(pg.grpo, stats, batch, **h))
  stats, batch = cases.random_batch(8)
  one, two = (functools.partial(pg.gspo, level=level, **h) for level in ("sequence", "token"))
  assert cases.value(one, stats, batch) == pytest.approx(cases.value(two, stats, batch))
  np.testing.assert_allclose(cases.gradient(one, stats, batch), cases.gradient(two, stats, batch))


def test_wide_clips_are_no_clip():
  stats, batch = cases.random_batch(9)
  how = dict(aggregation="token-mean")
  plain = cases.gradient(pg.reinforce, stats, batch, ratio=True)
  for f in (functools.partial(pg.grpo, clip_low=1.0, clip_high=1e4, **how),
            functools.partial(pg.cispo, cap=1e4)):
    np.testing.assert_allclose(cases.gradient(f, stats, batch), plain, rtol=1e-9)
  wide, exact = functools.partial(pg.stable_reinforce, ratio_limit=1e6), pg.grpo
  assert cases.value(wide, stats, batch) == pytest.approx(cases.value(exact, stats, batch))


def test_aggregations_agree_when_lengths_are_equal():
  stats, batch = cases.random_batch(10)
  batch = batch.replace(mask_BT=np.ones((cases.B, cases.T)))
  values = [cases.value(pg.grpo, stats, batch, **h) for h in (
      dict(aggregation="token-mean"), dict(aggregation="seq-mean-token-mean"),
      dict(aggregation="constant", constant=float(cases.T)),
      dict(aggregation="token-sum-constant", constant=float(cases.T * cases.B)))]
  np.testing.assert_allclose(values, values[0], rtol=1e-12)


def test_kl_gradients_in_expectation():
  """On policy, over all outcomes of a categorical: k1 -> 0, k2 -> KL(p|q), k3 -> KL(q|p).

  The outcomes are the tokens of one row, weighed by their probability under who sampled them.
  """
  p, q, o = np.random.default_rng(11).dirichlet(np.ones(cases.T), 3)

  def put(x):
    return np.tile(np.log(x), (cases.B, 1))
  stats, batch = cases.random_batch(11)
  stats = types.TokenStats(put(p))
  batch = cases.only(batch.replace(mask_BT=np.ones_like(batch.mask_BT), ref_logp_BT=put(q),
                                   adv_BT=0 * batch.adv_BT), [0])

  def of_logits(sampler, estimator):  # d logp_k / d logit_j = 1[j = k] - p_j
    b = batch.replace(old_logp_BT=put(sampler), extras={"kl_weight_BT": np.exp(put(sampler))})
    f = functools.partial(pg.grpo, kl_coef=1.0, kl_estimator=estimator,
                          aggregation="seq-mean-token-sum")
    g = cases.gradient(f, stats, b)[0]
    return g - p * g.sum(), cases.value(f, stats, b)
  reverse = np.sum(p * np.log(p / q))
  gradient_reverse = p * (np.log(p / q) - reverse)  # of KL(p | q)
  np.testing.assert_allclose(of_logits(p, "k1")[0], 0.0, atol=1e-12)
  np.testing.assert_allclose(of_logits(p, "k2")[0], gradient_reverse, atol=1e-12)
  np.testing.assert_allclose(of_logits(p, "k3")[0], p - q, atol=1e-12)  # of KL(q | p)
  np.testing.assert_allclose(of_logits(p, "k3+")[0], gradient_reverse, atol=1e-12)
  np.testing.assert_allclose(of_logits(o, "ratio-k3")[0], gradient_reverse, atol=1e-12)
  for sampler, estimator in ((p, "k1"), (p, "k3"), (p, "k3+"), (o, "ratio-k1"), (o, "ratio-k3")):
    assert of_logits(sampler, estimator)[1] == pytest.approx(reverse)


def test_ppo_adds_the_value_loss_of_a_shared_trunk():
  stats, batch = cases.random_batch(12)
  from rljax.objectives import value
  h = dict(value_coef=0.7, value_clip=0.4)
  both = cases.value(pg.ppo, stats, batch, **h)
  assert both == pytest.approx(cases.value(pg.ppo, stats, batch)
                               + cases.value(value.clipped, stats, batch, coef=0.7, clip=0.4))
  assert "value/mean" in pg.ppo(stats, batch, **h).metrics
  assert "pg/ratio_max" in pg.ppo(stats, batch, **h).metrics
  np.testing.assert_allclose(cases.gradient(pg.ppo, stats, batch, **h),
                             cases.gradient(pg.ppo, stats, batch))


# --- covariance clipping --------------------------------------------------------------------------


def uniform_loops(behav, actions):
  """The token hash with Python integers."""
  out = np.zeros(behav.shape)
  for i in np.ndindex(behav.shape):
    h = int(np.float32(behav[i]).view(np.uint32)) ^ (int(actions[i]) * 0x9E3779B1) % 2**32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
      h = ((h ^ (h >> shift)) * factor) % 2**32
    out[i] = ((h ^ (h >> 16)) >> 8) / 2**24
  return out


def clip_cov_loops(stats, batch, low, high, fraction):
  """Which tokens lose their loss."""
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  A, lp = batch.adv_BT, stats.logp_BT
  cov = (A - A[on].mean()) * (lp - lp[on].mean())
  r = np.exp(lp - batch.old_logp_BT)
  clipped = ((r > 1.2) & (A > 0)) | ((r < 0.8) & (A < 0))
  candidate = on & ~clipped & (cov > low) & (cov < high)
  rate = max(fraction * on.sum(), 1) / max(candidate.sum(), 1)
  return candidate, candidate & (uniform_loops(batch.behav_logp_BT, batch.actions_BT) < rate)


@pytest.mark.parametrize("low,high,fraction", [(0.0, 5.0, 0.3), (-0.1, 0.5, 0.1), (0.1, 0.6, 1.0)])
def test_clip_cov_reference(low, high, fraction):
  hits = 0
  for seed in range(13, 17):
    stats, batch = cases.random_batch(seed, spread=0.3)
    batch = batch.replace(valid_B=np.array([1.0, 1, 0, 1, 1, 1]))
    candidate, drop = clip_cov_loops(stats, batch, low, high, fraction)
    hits += drop.sum()
    f = fn("clip_cov", cov_low=low, cov_high=high, cov_fraction=fraction)
    on = batch.mask_BT * batch.valid_B[:, None]
    loss, grad = expected("ppo", stats, batch, kl_coef=0.0)
    grad = np.where(drop, 0.0, grad)
    np.testing.assert_allclose(cases.gradient(f, stats, batch), grad, rtol=1e-8, atol=1e-12)
    result = f(stats, batch)
    lost = expected("ppo", stats, batch.replace(mask_BT=batch.mask_BT * drop))[0] * drop.sum()
    assert float(result.total) == pytest.approx(loss * on.sum() - lost)
    assert cases.metric(result, "pg/cov_candidates") == pytest.approx(candidate.sum() / on.sum())
    assert cases.metric(result, "pg/cov_dropped") == pytest.approx(drop.sum() / on.sum())
  assert hits > 0


def test_clip_cov_drops_at_least_one_token():
  stats, batch = cases.random_batch(13, spread=0.1)
  on = batch.mask_BT > 0
  A, lp = batch.adv_BT, stats.logp_BT
  cov = (A - A[on].mean()) * (lp - lp[on].mean())
  for x in cov[on][:4]:  # a band with one candidate in it
    f = fn("clip_cov", cov_low=x - 1e-9, cov_high=x + 1e-9)
    assert cases.metric(f(stats, batch), "pg/cov_dropped") == pytest.approx(1 / on.sum())


def test_token_uniform_is_uniform():
  r = np.random.default_rng(0)
  u = np.asarray(pg_terms.token_uniform(-r.exponential(1, (40, 50)), r.integers(0, 9, (40, 50))))
  assert u.min() >= 0 and u.max() < 1
  np.testing.assert_allclose(np.histogram(u, 4, (0, 1))[0] / u.size, 0.25, atol=0.04)


def test_clip_cov_with_whole_batch_statistics_is_the_same_before_the_first_update():
  stats, batch = on_policy(18)
  h = dict(cov_low=0.05, cov_high=3.0, cov_fraction=0.3)
  whole = jax.tree.map(np.asarray, advantages.covariance_stats(batch, **h))
  np.testing.assert_allclose(cases.gradient(fn("clip_cov", **h), stats, whole),
                             cases.gradient(fn("clip_cov", **h), stats, batch))
  assert cases.metric(fn("clip_cov", **h)(stats, whole), "pg/cov_dropped") > 0


# --- 4. invariances -------------------------------------------------------------------------------


def same(name, one, two, **h):
  h = {**ACTIVE.get(name, {}), "kl_coef": 0.1, "entropy_coef": 0.1, "correction": TRUNCATED, **h}
  np.testing.assert_allclose(cases.value(fn(name, **h), *two), cases.value(fn(name, **h), *one),
                             rtol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_masked_tokens_are_removed_tokens(name):
  stats, batch = cases.random_batch(20)
  noise = np.random.default_rng(0).standard_normal(batch.mask_BT.shape) * 9
  bad = cases.map_tokens(
      lambda x: np.where(batch.mask_BT > 0, x, noise.astype(x.dtype)), stats, batch)
  bad = bad[0], bad[1].replace(mask_BT=batch.mask_BT)
  same(name, (stats, batch), bad)
  assert np.all(cases.gradient(fn(name), *bad)[batch.mask_BT == 0] == 0)

  def remove(x):  # cut the hole out of row 0, shift the rest left
    y = x.copy()
    y[0, 1:-1] = y[0, 2:]
    return y
  cut = cases.map_tokens(remove, stats, batch)
  cut[1].mask_BT[0, -1] = 0
  same(name, (stats, batch), cut)


@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name):
  stats, batch = cases.random_batch(21, rows=4, length=3)
  padded = cases.pad(stats, batch, tokens=cases.T - 3, padding_rows=cases.B - 4)
  same(name, (stats, batch), padded)
  grad = cases.gradient(fn(name, entropy_coef=0.1), *padded)
  assert np.all(np.isfinite(grad)) and np.all(grad[4:] == 0) and np.all(grad[:, 3:] == 0)


@pytest.mark.parametrize("name", ALL)
def test_order_of_rows_changes_nothing(name):
  stats, batch = cases.random_batch(22)
  same(name, (stats, batch), cases.rows(stats, batch, np.array([5, 2, 0, 4, 1, 3])))


@pytest.mark.parametrize("name", ALL)
@hypothesis.settings(max_examples=4, deadline=None, database=None, derandomize=True,
                     suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(part_of=st.lists(st.integers(0, 3), min_size=cases.B, max_size=cases.B),
                  how=st.sampled_from(nums.AGGREGATIONS), seed=st.integers(0, 99))
def test_any_split_is_the_whole_batch(name, part_of, how, seed):
  stats, batch = cases.random_batch(seed)
  batch = batch.replace(valid_B=np.array([1.0, 1, 1, 0, 1, 1]))
  if name == "clip_cov":
    batch = jax.tree.map(np.asarray, advantages.covariance_stats(batch, cov_low=0.0))
  h = {**ACTIVE.get(name, {}), "kl_coef": 0.1, "entropy_coef": 0.1, "correction": TRUNCATED,
       "aggregation": how, "constant": 8.0 if how.endswith("constant") else None}
  whole = fn(name, **h)(stats, batch)
  parts = [fn(name, **h)(stats, cases.only(batch, [i for i, k in enumerate(part_of) if k == part]))
           for part in sorted(set(part_of))]
  for field in ("total", "weight"):
    np.testing.assert_allclose(
        sum(getattr(p, field) for p in parts), getattr(whole, field), rtol=1e-9, atol=1e-12)
  merged = functools.reduce(types.merge_metrics, [p.metrics for p in parts])
  for key, value in whole.metrics.items():
    np.testing.assert_allclose(merged[key].compute(), value.compute(), rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", ALL)
def test_all_equal_rewards_give_a_zero_gradient(name):
  stats, batch = cases.random_batch(23)
  reward = np.where(np.arange(cases.T) == 0, 0.3, 0.0) * np.ones((cases.B, 1))
  batch = advantages.group_norm(batch.replace(reward_BT=reward))
  batch = jax.tree.map(np.asarray, advantages.group_accuracy(batch))
  loss, grad = cases.value_and_gradient(fn(name), stats, batch)
  assert loss == 0 and np.all(grad == 0)


# --- 5. extremes ----------------------------------------------------------------------------------


def extreme_batch():
  stats, batch = cases.random_batch(24)
  shift = np.resize([80.0, -80.0, 1e4, 0.0, -1e4, 20.0, 3.0], batch.mask_BT.shape)
  return stats, batch.replace(
      old_logp_BT=stats.logp_BT - shift, behav_logp_BT=stats.logp_BT + shift,
      ref_logp_BT=stats.logp_BT - np.flip(shift))


EXTREME = ({"correction": TRUNCATED}, {"kl_coef": 0.1, "kl_estimator": "ratio-k3",
                                       "correction": functools.partial(MASKED, level="sequence")})


@pytest.mark.parametrize("name", ALL)
def test_extreme_ratios_stay_finite(name):
  for h in EXTREME:
    loss, grad = cases.value_and_gradient(fn(name, **h), *extreme_batch())
    assert np.isfinite(loss) and np.all(np.isfinite(grad))
    metrics = fn(name, **h)(*extreme_batch()).metrics
    assert all(np.isfinite(m.compute()) for m in metrics.values())


def in_32_bits(*trees):
  def cast(x):
    return x.astype(np.float32) if x.dtype == np.float64 else x
  return jax.tree.map(cast, trees)


@pytest.mark.parametrize(
    "name,h", [("grpo", EXTREME[1]), ("gspo", EXTREME[0]), ("nft", EXTREME[0])])
def test_extreme_ratios_stay_finite_in_32_bits(name, h):
  stats, batch = in_32_bits(*extreme_batch())
  with jax.enable_x64(False):
    loss, grad = jax.jit(jax.value_and_grad(
        lambda x: fn(name, **h)(dataclasses.replace(stats, logp_BT=x), batch).total))(stats.logp_BT)
  assert loss.dtype == jnp.float32 and np.isfinite(loss) and np.all(np.isfinite(grad))


@pytest.mark.parametrize("name", ALL)
def test_empty_rows_and_empty_batches(name):
  stats, batch = cases.random_batch(25)
  some = batch.replace(mask_BT=batch.mask_BT * (np.arange(cases.B) != 2)[:, None])
  same(name, (stats, some), (stats, cases.only(batch, [0, 1, 3, 4, 5])))
  for empty in (batch.replace(mask_BT=batch.mask_BT * 0), batch.replace(valid_B=batch.valid_B * 0)):
    loss, grad = cases.value_and_gradient(fn(name), stats, empty)
    assert loss == 0 and np.all(grad == 0)


@pytest.mark.parametrize("name", ALL)
def test_one_token_and_one_row(name):
  stats, batch = cases.random_batch(26)
  one = np.zeros_like(batch.mask_BT)
  one[0, 0] = 1.0
  batch = cases.only(batch.replace(mask_BT=one), [0])
  loss, grad = cases.value_and_gradient(fn(name), stats, batch)
  assert np.isfinite(loss) and np.all(np.isfinite(grad))
  assert np.all(grad[one == 0] == 0)


def test_nft_leaves_out_groups_without_both_outcomes():
  stats, batch = cases.random_batch(27)
  extras = {**batch.extras, "accuracy_B": np.array([1.0, 1, 1, 1 / 3, 1 / 3, 1 / 3])}
  for how in (dict(aggregation="token-mean", constant=None), {}):
    a = cases.value(fn("nft", **how), stats, batch.replace(extras=extras))
    b = cases.value(fn("nft", **how), stats, cases.only(batch, [3, 4, 5]))
    assert a == pytest.approx(b) and a != 0
  extras = {**batch.extras, "accuracy_B": np.array([0.0] * 3 + [1 / 3] * 3)}
  assert cases.value(fn("nft"), stats, batch.replace(extras=extras)) == pytest.approx(a)


# --- knobs, needs, errors -------------------------------------------------------------------------

# Per parameter: (what is set in both runs, the new value). "*" serves every function.
FLIPS = {
    "*": {"correction": ({}, TRUNCATED), "kl_coef": ({}, 0.3),
          "kl_estimator": ({"kl_coef": 0.3}, "k1"), "entropy_coef": ({}, 0.3),
          "aggregation": ({"constant": None, "aggregation": "token-mean"}, "seq-mean-token-sum"),
          "constant": ({"aggregation": "constant", "constant": 8.0}, 16.0),
          "clip_low": ({}, 0.05), "clip_high": ({}, 0.05), "dual_clip": ({}, 1.2)},
    "reinforce": {"ratio": ({}, True)}, "rloo": {"ratio": ({}, True)},
    "cispo": {"cap": ({}, 1.2), "floor": ({}, 0.9)},
    "ppo": {"value_coef": ({}, 0.5), "value_clip": ({"value_coef": 0.5}, 0.01)},
    "gspo": {"level": ({"clip_low": 0.3, "clip_high": 0.3}, "token")},
    "stable_reinforce": {"ratio_limit": ({}, 1.1)},
    "clip_cov": {"cov_low": ({"cov_fraction": 1.0, "cov_low": 0.1}, 0.3),
                 "cov_high": ({"cov_fraction": 1.0, "cov_low": 0.1}, 0.4),
                 "cov_fraction": ({"cov_low": 0.0}, 0.9)},
    "nft": {"negative_weight": ({}, 0.5), "prompt_weight": ({}, "grpo"), "floor": ({}, 0.3),
            "accuracy_clip": ({}, 0.4), "log_ratio_max": ({}, 0.1)},
}


def flips_of(name):
  return {**FLIPS["*"], **FLIPS.get(name, {})}


@pytest.mark.parametrize("name", ALL)
def test_every_knob_is_alive(name):
  stats, batch = cases.random_batch(28, spread=0.8)
  batch = batch.replace(adv_BT=np.random.default_rng(1).standard_normal(batch.adv_BT.shape))
  for parameter in cases.hyperparameters(getattr(pg, name)):
    base, new = flips_of(name)[parameter]  # a KeyError here: a knob without an entry
    one, two = fn(name, **base), fn(name, **{**base, parameter: new})
    changed = abs(cases.value(one, stats, batch) - cases.value(two, stats, batch)) > 1e-6
    if not changed:  # a straight-through form may have one value and two gradients
      grads = cases.gradient(one, stats, batch) - cases.gradient(two, stats, batch)
      changed = np.abs(grads).max() > 1e-6
    assert changed, parameter


def test_defaults():
  """The numbers of the README's table."""
  clip = {"clip_low": 0.2, "clip_high": 0.2}
  own = {
      "reinforce": {"ratio": False, "aggregation": "token-mean"},
      "rloo": {"ratio": False, "aggregation": "seq-mean-token-sum"},
      "cispo": {"cap": 5.0, "floor": None, "aggregation": "token-mean"},
      "grpo": {**clip, "dual_clip": None, "aggregation": "seq-mean-token-mean"},
      "ppo": {**clip, "dual_clip": None, "value_coef": 0.0, "value_clip": 0.2,
              "aggregation": "token-mean"},
      "reinforce_pp": {**clip, "dual_clip": None, "kl_estimator": "k2",
                       "aggregation": "token-mean"},
      "dr_grpo": {**clip, "dual_clip": None, "aggregation": "constant",
                  "constant": inspect.Parameter.empty},
      "dapo": {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": None, "aggregation": "token-mean"},
      "gspo": {"level": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "dual_clip": None,
               "aggregation": "seq-mean-token-mean"},
      "stable_reinforce": {"ratio_limit": 1e3, **clip, "aggregation": "seq-mean-token-mean"},
      "clip_cov": {"cov_low": 1.0, "cov_high": 5.0, "cov_fraction": 2e-4, **clip,
                   "dual_clip": None, "aggregation": "token-mean"},
      "nft": {"negative_weight": 1.0, "prompt_weight": "hard", "floor": 1.0, "accuracy_clip": 0.02,
              "log_ratio_max": 10.0, "aggregation": "token-sum-constant", "constant": 1000.0},
  }
  shared = {"correction": None, "kl_coef": 0.0, "kl_estimator": "k3", "entropy_coef": 0.0,
            "constant": None}
  for name in ALL:
    assert cases.hyperparameters(getattr(pg, name)) == {**shared, **own[name]}, name
  assert cases.hyperparameters(nums.truncated_weight) == {"cap": 2.0, "level": "token"}
  assert cases.hyperparameters(nums.masked_weight) == {"low": 0.5, "high": 5.0, "level": "token"}


def test_kl_weight_column_scales_the_penalty():
  stats, batch = cases.random_batch(29)
  weight = np.where(np.arange(cases.T) < 2, 2.0, np.nan)
  mask = np.where(np.arange(cases.T) < 2, 1.0, 0.0) * np.ones((cases.B, 1))
  batch = batch.replace(mask_BT=mask)
  weighed = batch.replace(extras={**batch.extras, "kl_weight_BT": weight * np.ones((cases.B, 1))})
  assert cases.value(pg.grpo, stats, weighed, kl_coef=0.1) == pytest.approx(
      cases.value(pg.grpo, stats, batch, kl_coef=0.2))


def test_needs():
  def needs(name, **h):
    return types.needs_of(fn(name, **h))
  everything = {"kl_coef": 0.1, "entropy_coef": 0.1}
  for name in ALL:
    own = set() if name in ("reinforce", "rloo") else {"old_logp"}
    own |= set() if name == "nft" else {"adv"}
    assert needs(name) == own
    assert needs(name, **everything) == own | {"ref_logp", "entropy_grad"}
  for name in ("reinforce", "rloo"):
    assert needs(name, ratio=True) == {"adv", "old_logp"}
  assert needs("ppo", value_coef=0.5) == {"adv", "old_logp", "value"}


def test_only_the_policy_and_its_entropy_get_gradients():
  stats, batch = cases.random_batch(30)
  h = dict(kl_coef=0.1, correction=TRUNCATED)
  arrays = ("adv_BT", "old_logp_BT", "behav_logp_BT")

  def loss(name, values):
    return fn(name, **h)(stats, batch.replace(**dict(zip(arrays, values)))).total
  for name in ("reinforce", "grpo", "gspo"):
    grads = jax.grad(functools.partial(loss, name))(
        [jnp.asarray(getattr(batch, a)) for a in arrays])
    assert all(np.all(g == 0) for g in grads)
  entropy = cases.gradient(fn("grpo", entropy_coef=0.5), stats, batch, of="entropy_BT")
  per_row = batch.mask_BT / batch.mask_BT.sum(-1, keepdims=True)
  np.testing.assert_allclose(entropy, -0.5 * per_row / cases.B, rtol=1e-9)


def test_errors():
  stats, batch = cases.random_batch(31)
  raises = functools.partial(pytest.raises, ValueError)
  with raises(match="ref_logp"):
    pg.grpo(stats, batch.replace(ref_logp_BT=None), kl_coef=0.1)
  with raises(match="entropy"):
    pg.grpo(dataclasses.replace(stats, entropy_BT=None), batch, entropy_coef=0.1)
  with raises(match="level"):
    pg.gspo(stats, batch, level="word")
  with raises(match="prompt_weight"):
    pg.nft(stats, batch, prompt_weight="easy")
  with raises(match="aggregation"):
    pg.grpo(stats, batch, aggregation="mean")
  with raises(match="constant"):
    pg.grpo(stats, batch, aggregation="constant")
  with raises(match="estimator"):
    pg.grpo(stats, batch, kl_coef=0.1, kl_estimator="k4")
  with raises(match="level"):
    nums.truncated_weight(batch.old_logp_BT, batch.behav_logp_BT, batch.mask_BT, level="word")
  with pytest.raises(AssertionError):
    pg.grpo(dataclasses.replace(stats, logp_BT=stats.logp_BT[:, :1]), batch)


def test_under_jit_in_32_bits():
  f = fn("clip_cov", kl_coef=0.1, **ACTIVE["clip_cov"])
  with jax.enable_x64(False):
    loss = jax.jit(f)(*in_32_bits(*cases.random_batch(32)))
  assert loss.total.dtype == jnp.float32
  expected = cases.value(f, *cases.random_batch(32))
  assert float(cases.divide(loss)) == pytest.approx(expected, rel=2e-5)
