"""Advantages: loops written from the definitions, by hand, identities, invariances, every knob."""

import functools
import json

import jax
import numpy as np
import pytest

from rljax import advantages, nums, types
from tests.objectives import cases
from tests.objectives.cases import x64  # noqa: F401

pytestmark = cases.X64
COMPOSED = {"reweight": {"weight": nums.truncated_weight},
            "chain": {"steps": (advantages.returns,)},
            "combine": {"parts": (advantages.group_norm,), "weights": (1.0,)}}


def fn(name, **h):
  return functools.partial(getattr(advantages, name), **{**COMPOSED.get(name, {}), **h})


ALL = [n for n in cases.public_functions(advantages) if n != "ema_baselines"] + ["returns"]


def batch_of(seed=0, **changes):
  """Groups of 3, 2 and 1 rows in mixed order, a hole, and the columns that functions read."""
  _, batch = cases.random_batch(seed)
  r = np.random.default_rng(seed)
  t = np.arange(cases.T)
  extras = {**batch.extras, "view_B": np.array([4, 4, 9, 9, 9, 4]),
            "baseline_B": r.random(cases.B), "other_B": r.random(cases.B),
            "segment_BT": np.tile(t // 2, (cases.B, 1)),
            "label_BT": np.tile((t // 2) % 2, (cases.B, 1))}
  batch = batch.replace(group_B=np.array([0, 1, 0, 1, 0, 2], np.int32), extras=extras)
  return batch.replace(**changes)


def adv(name, batch, **h):
  return np.asarray(fn(name, **h)(batch).adv_BT)


def per_row(name, batch, **h):
  """The advantage of each row, checked to be constant over its trained tokens and 0 elsewhere."""
  a, on = adv(name, batch, **h), (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  assert np.all(a[~on] == 0)
  out = np.array([a[i][on[i]][0] if on[i].any() else np.nan for i in range(len(a))])
  assert np.all(np.where(on, a == out[:, None], True))
  return out


INVALID_4 = np.array([1.0, 1, 1, 1, 0, 1])


# --- one advantage per row ------------------------------------------------------------------------


def loops(kind, rewards, keys, valid, eps=1e-6, ddof=1):
  out = np.full(len(rewards), np.nan)
  for i in range(len(rewards)):
    mates = [j for j in range(len(rewards)) if keys[j] == keys[i] and valid[j]]
    if not valid[i]:
      continue
    x = [rewards[j] for j in mates]
    mean = sum(x) / len(x)
    if kind == "mean":
      out[i] = rewards[i] - mean
    elif kind == "leave_one_out":
      others = [rewards[j] for j in mates if j != i]
      out[i] = rewards[i] - sum(others) / len(others) if others else 0.0
    else:
      spread = sum((v - mean) ** 2 for v in x)
      std = (spread / (len(x) - ddof)) ** 0.5 if len(x) > ddof else 0.0
      out[i] = (rewards[i] - mean) / (std + eps) if std > 1e-6 else 0.0
  return out


@pytest.mark.parametrize("valid", [np.ones(6), INVALID_4])
def test_group_advantages(valid):
  for seed in (0, 1):
    batch = batch_of(seed, valid_B=valid)
    r, g = batch.reward_BT.sum(-1), batch.group_B
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    close(per_row("group_norm", batch), loops("norm", r, g, valid))
    close(per_row("group_norm", batch, ddof=0, eps=0.1), loops("norm", r, g, valid, 0.1, 0))
    close(per_row("group_norm", batch, scale_by_std=False), loops("mean", r, g, valid))
    close(per_row("leave_one_out", batch), loops("leave_one_out", r, g, valid))
    close(per_row("reinforce", batch), np.where(valid > 0, r, np.nan))
    close(per_row("reinforce", batch, baseline="batch-mean"), loops("mean", r, [0] * 6, valid))
    close(per_row("baseline", batch), np.where(valid > 0, r - batch.extras["baseline_B"], np.nan))
    # per view: rows of one group with different views are not compared
    both = list(zip(g, batch.extras["view_B"]))
    close(per_row("group_norm", batch, by=("group_B", "view_B")), loops("norm", r, both, valid))
    close(per_row("leave_one_out", batch, by=("view_B",)),
          loops("leave_one_out", r, batch.extras["view_B"], valid))
    close(per_row("group_norm", batch, by=()), loops("norm", r, [0] * 6, valid))
    other = batch.extras["other_B"]
    close(per_row("group_norm", batch, reward="other_B"), loops("norm", other, g, valid))


def test_group_norm_by_hand():
  reward = np.zeros((6, 5))
  reward[:, 0] = [1, 5, 0, 3, 0, 7]
  batch = batch_of(reward_BT=reward)
  third = 1 / np.sqrt(3)
  np.testing.assert_allclose(per_row("group_norm", batch, eps=0.0),
                             [2 * third, np.sqrt(0.5), -third, -np.sqrt(0.5), -third, 0], rtol=1e-9)
  np.testing.assert_allclose(per_row("leave_one_out", batch), [1, 2, -0.5, -2, -0.5, 0])
  np.testing.assert_allclose(per_row("reinforce", batch, baseline="batch-mean"),
                             np.array([1, 5, 0, 3, 0, 7]) - 16 / 6)


def test_half_right_groups_have_mean_absolute_advantage_of_the_formula():
  # 0/1 rewards with accuracy p: mean |A| = 2 sqrt(p (1 - p)) sqrt((G - 1) / G)
  reward = np.zeros((6, 5))
  reward[:2, 0] = 1
  batch = batch_of(reward_BT=reward, group_B=np.zeros(6, np.int32))
  a = per_row("group_norm", batch, eps=0.0)
  assert np.abs(a).mean() == pytest.approx(2 * np.sqrt(1 / 3 * 2 / 3) * np.sqrt(5 / 6))


@pytest.mark.parametrize("value", [0.1, 100.1, -3e6, 1 / 3])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_all_equal_groups_are_exactly_zero(value, dtype):
  with jax.enable_x64(dtype == np.float64):
    reward = np.zeros((6, 5), dtype)
    reward[:, 0] = value
    batch = batch_of(reward_BT=reward)
    for name in ("group_norm", "leave_one_out"):
      assert np.all(adv(name, batch) == 0)
    assert np.all(adv("group_norm", batch, scale_by_std=False) == 0)
    assert np.all(adv("reinforce_pp", batch, group_baseline=True) == 0)
    assert np.all(adv("whiten", batch.replace(adv_BT=np.full((6, 5), value, dtype))) == 0)


def test_a_tiny_spread_is_rounding_and_a_small_one_is_not():
  reward = np.zeros((6, 5))
  reward[0, 0] = 1e-7
  assert np.all(adv("group_norm", batch_of(reward_BT=reward)) == 0)
  reward[0, 0] = 1e-5
  assert np.abs(adv("group_norm", batch_of(reward_BT=reward))).max() > 0.5


# --- moving baselines -----------------------------------------------------------------------------


def test_ema_baselines():
  keys, rewards = ["a/0", "a/1", "a/0", "a/0"], [1.0, -1.0, float("nan"), 2.0]
  out, state = advantages.ema_baselines({}, keys, rewards, decay=0.9)
  assert out == pytest.approx([0.0, 0.0, 0.1, 0.1])
  assert state == pytest.approx({"a/0": 0.9 * 0.1 + 0.2, "a/1": -0.1})
  again, later = advantages.ema_baselines(json.loads(json.dumps(state)), ["a/1"], [0.0], decay=0.9)
  assert again == pytest.approx([-0.1]) and later["a/0"] == state["a/0"]
  first, _ = advantages.ema_baselines({}, keys, rewards, decay=0.9, update_first=True)
  assert first == pytest.approx([0.1, -0.1, 0.1, 0.29])
  out, state = advantages.ema_baselines({}, keys[:1], rewards[:1], start=0.5)
  assert out == [0.5] and state["a/0"] == pytest.approx(0.95 * 0.5 + 0.05)
  with pytest.raises(ValueError):
    advantages.ema_baselines({}, ["a"], [1.0, 2.0])


def test_ema_baselines_does_not_change_its_argument():
  state = {"a": 1.0}
  advantages.ema_baselines(state, ["a"], [0.0])
  assert state == {"a": 1.0}


# --- one advantage per token ----------------------------------------------------------------------


def gae_loops(batch, lam):
  """Backwards over the trained tokens of each row; returns (advantage, lambda-return)."""
  A, R = np.zeros(batch.mask_BT.shape), np.zeros(batch.mask_BT.shape)
  for i in range(len(A)):
    next_value = next_adv = late = 0.0
    for t in reversed(range(A.shape[1])):
      if not batch.valid_B[i]:
        continue
      if not batch.mask_BT[i, t]:  # step over it; its reward goes to the token before
        late += batch.reward_BT[i, t]
        if batch.discount_BT[i, t] == 0:
          next_value = next_adv = 0.0
        continue
      gamma, V = batch.discount_BT[i, t], batch.value_BT[i, t]
      delta = batch.reward_BT[i, t] + late + gamma * next_value - V
      next_adv = delta + gamma * lam * next_adv
      A[i, t], R[i, t], next_value, late = next_adv, next_adv + V, V, 0.0
  return A, R


@pytest.mark.parametrize("lam", [0.95, 1.0, 0.0])
@pytest.mark.parametrize("holes", [False, True])
def test_gae(lam, holes):
  r = np.random.default_rng(3)
  batch = batch_of(3, valid_B=INVALID_4)
  exists = batch.discount_BT + batch.mask_BT > 0
  batch = batch.replace(reward_BT=r.standard_normal((6, 5)) * exists)
  if holes:  # every pattern of trained and untrained tokens somewhere, the last action included
    patterns = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 0, 1], [0, 1, 1, 0, 1], [1, 1, 1, 0, 0],
                         [1, 1, 1, 1, 1], [0, 0, 1, 0, 1.0]])
    last = np.arange(5) < np.array([5, 5, 5, 4, 5, 4])[:, None] - 1
    batch = batch.replace(mask_BT=patterns, discount_BT=0.9 * last,
                          reward_BT=r.standard_normal((6, 5)))
  A, R = gae_loops(batch, lam)
  plain = advantages.gae(batch, lam=lam, whitened=False)
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  np.testing.assert_allclose(plain.adv_BT, A, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(np.where(on, plain.extras["return_BT"], 0), R, rtol=1e-9, atol=1e-12)
  white = advantages.gae(batch, lam=lam)
  x = A[on]
  np.testing.assert_allclose(np.asarray(white.adv_BT)[on],
                             (x - x.mean()) / np.sqrt(x.var(ddof=1) + 1e-8), rtol=1e-8)
  np.testing.assert_allclose(white.extras["return_BT"], plain.extras["return_BT"])


def test_gae_identities():
  batch = batch_of(4)
  one = advantages.gae(batch, lam=1.0, whitened=False)
  monte_carlo = adv("returns", batch)  # lambda 1: return minus value
  on = batch.mask_BT > 0
  np.testing.assert_allclose(
      np.asarray(one.adv_BT)[on], (monte_carlo - batch.value_BT)[on], rtol=1e-9)
  zero = advantages.gae(batch.replace(value_BT=np.zeros((6, 5))), lam=1.0, whitened=False)
  np.testing.assert_allclose(zero.adv_BT, monte_carlo, rtol=1e-9)


def test_returns_by_hand():
  reward = np.array([[1.0, 2, 0, 0, 8]] * 6)
  discount = np.array([[0.5, 1, 0.5, 0.5, 0]] * 6)
  batch = batch_of(reward_BT=reward, discount_BT=discount, mask_BT=np.ones((6, 5)))
  np.testing.assert_allclose(adv("returns", batch)[0], [1 + 0.5 * 4, 4, 2, 4, 8])
  hole = np.ones((6, 5))
  hole[:, 2] = 0  # stepped over without a discount
  stepped = adv("returns", batch.replace(mask_BT=hole))
  np.testing.assert_allclose(stepped[0], [1 + 0.5 * 6, 6, 0, 4, 8])


def whiten_loops(x, on, rows, shift=True, eps=1e-8):
  out = np.zeros(x.shape)
  for key in set(rows):
    pick = on & (np.array([k == key for k in rows])[:, None])
    v = x[pick]
    if len(v) > 1:
      mean, var = v.mean(), ((v - v.mean()) ** 2).sum() / (len(v) - 1)
      out[pick] = (v - (mean if shift else 0.0)) / np.sqrt(var + eps)
  return out


def test_whiten():
  r = np.random.default_rng(5)
  x = r.standard_normal((6, 5)) + 4
  batch = batch_of(5, adv_BT=x, valid_B=INVALID_4)
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
  close(adv("whiten", batch), whiten_loops(x, on, [0] * 6))
  views = list(batch.extras["view_B"])
  close(adv("whiten", batch, by=("view_B",)), whiten_loops(x, on, views))
  close(adv("whiten", batch, shift=False, eps=0.1), whiten_loops(x, on, [0] * 6, False, 0.1))
  rewards = advantages.whiten(batch.replace(reward_BT=x), target="reward")
  close(rewards.reward_BT, whiten_loops(x, on, [0] * 6))
  close(rewards.adv_BT, x)
  one = np.zeros((6, 5))
  one[0, 0] = 1
  assert np.all(adv("whiten", batch.replace(mask_BT=one)) == 0)
  # a group without any trained token does no harm
  none = batch.replace(mask_BT=batch.mask_BT * np.array([0.0, 1, 0, 1, 0, 1])[:, None])
  assert np.all(np.isfinite(adv("whiten", none, by=("group_B",))))


def test_reinforce_pp():
  batch = batch_of(6, valid_B=INVALID_4)
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  np.testing.assert_allclose(adv("reinforce_pp", batch),
                             whiten_loops(adv("returns", batch), on, [0] * 6), rtol=1e-8, atol=1e-9)
  centred = adv("group_norm", batch, scale_by_std=False)
  np.testing.assert_allclose(adv("reinforce_pp", batch, group_baseline=True),
                             whiten_loops(centred, on, [0] * 6), rtol=1e-8, atol=1e-9)


def segment_loops(batch, key, to_go, scale, eps=1e-6, ddof=1):
  totals, label = {}, {}
  n, length = batch.mask_BT.shape
  seg = batch.extras["segment_BT"]
  for i, t in np.ndindex(n, length):
    if batch.valid_B[i] and seg[i, t] >= 0:
      totals[i, seg[i, t]] = totals.get((i, seg[i, t]), 0.0) + batch.reward_BT[i, t]
      label[i, seg[i, t]] = (batch.group_B[i], batch.extras[key][i, t] if key else 0)
  value = {}
  for s in totals:
    x = np.array([totals[k] for k in totals if label[k] == label[s]])
    std = np.sqrt(((x - x.mean()) ** 2).sum() / max(len(x) - ddof, 1))
    centred = totals[s] - x.mean()
    value[s] = centred if not scale else (centred / (std + eps) if std > 1e-6 else 0.0)
  out = np.zeros((n, length))
  for i, t in np.ndindex(n, length):
    if batch.valid_B[i] and batch.mask_BT[i, t] and seg[i, t] >= 0:
      s = seg[i, t]
      out[i, t] = (sum(v for (j, k), v in value.items() if j == i and k >= s) if to_go
                   else value[i, s])
  return out


@pytest.mark.parametrize("key", ["", "label_BT"])
@pytest.mark.parametrize("to_go", [False, True])
def test_segment_norm(key, to_go):
  r = np.random.default_rng(7)
  batch = batch_of(7, valid_B=INVALID_4, reward_BT=r.standard_normal((6, 5)))
  seg = np.where(r.random((6, 5)) < 0.2, -1, batch.extras["segment_BT"])
  batch = batch.replace(extras={**batch.extras, "segment_BT": seg})
  fine = np.where(seg < 0, -1, np.arange(5))  # one segment per token
  for h in ({}, {"scale_by_std": False}, {"eps": 0.1, "ddof": 0}, "fine"):
    if h == "fine":
      h, batch = {}, batch.replace(extras={**batch.extras, "segment_BT": fine})
    np.testing.assert_allclose(
        adv("segment_norm", batch, key=key, to_go=to_go, **h),
        segment_loops(batch, key, to_go, h.get("scale_by_std", True), h.get("eps", 1e-6),
                      h.get("ddof", 1)), rtol=1e-9, atol=1e-12)


def test_one_segment_per_row_is_group_norm():
  batch = batch_of(8, valid_B=INVALID_4)
  batch = batch.replace(extras={**batch.extras, "segment_BT": np.zeros((6, 5), int)})
  np.testing.assert_allclose(adv("segment_norm", batch), adv("group_norm", batch))


# --- before and after -----------------------------------------------------------------------------


def test_kl_reward():
  batch = batch_of(9, valid_B=INVALID_4)
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  d = batch.old_logp_BT - batch.ref_logp_BT
  for estimator, kl in (("k1", d), ("k2", d * d / 2), ("k3", np.exp(-d) - 1 + d)):
    new = advantages.kl_reward(batch, coef=0.3, estimator=estimator).reward_BT
    np.testing.assert_allclose(
        new, batch.reward_BT - 0.3 * np.where(on, kl, 0), rtol=1e-9, atol=1e-12)
  weight = np.where(on, 2.0, np.nan)
  weighed = batch.replace(extras={**batch.extras, "kl_weight_BT": weight})
  np.testing.assert_allclose(advantages.kl_reward(weighed, coef=0.1).reward_BT,
                             advantages.kl_reward(batch, coef=0.2).reward_BT)
  for missing in ("old_logp_BT", "ref_logp_BT"):
    with pytest.raises(ValueError, match=missing):
      advantages.kl_reward(batch.replace(**{missing: None}))


def test_three_sigma():
  x = np.random.default_rng(10).standard_normal((6, 5))
  ones = np.ones((6, 5))
  x[0] = [30.0, np.nan, np.inf, 0.5, -0.5]
  batch = batch_of(10, adv_BT=x, mask_BT=ones)
  kept = adv("three_sigma", batch)
  np.testing.assert_array_equal(kept[0], [0, 0, 0, 0.5, -0.5])
  np.testing.assert_array_equal(kept[1:], x[1:])
  x[0] = [11.0, -11.0, 9.5, -9.5, 0.1]  # within three sigma, by the absolute bound only
  kept = adv("three_sigma", batch.replace(adv_BT=x), limit=9.0)
  np.testing.assert_array_equal(kept[0], [0, 0, 9.5, -9.5, 0.1])
  flat = batch.replace(adv_BT=np.full((6, 5), 2.0))
  np.testing.assert_array_equal(adv("three_sigma", flat), flat.adv_BT)
  # a mean far from zero: the band is around the mean
  y = np.random.default_rng(11).standard_normal((6, 5)) * 0.1 + 5
  y[0, 0] = 4.0
  assert (adv("three_sigma", batch.replace(adv_BT=y)) == 0).sum() == 1
  masked = batch.replace(adv_BT=y, mask_BT=ones * (np.arange(5) > 0))
  assert np.all(adv("three_sigma", masked)[:, 0] == 0)


def test_reweight_is_the_correction_of_an_objective():
  from rljax.objectives import pg
  stats, batch = cases.random_batch(12)
  weight = functools.partial(nums.truncated_weight, cap=1.2)
  moved = jax.tree.map(np.asarray, advantages.reweight(batch, weight=weight))
  for f in (pg.grpo, pg.gspo, pg.cispo, functools.partial(pg.grpo, dual_clip=1.1)):
    np.testing.assert_allclose(cases.gradient(f, stats, moved),
                               cases.gradient(f, stats, batch, correction=weight), rtol=1e-9)
  batch = batch.replace(valid_B=INVALID_4)
  on = batch.mask_BT * INVALID_4[:, None]
  w = np.minimum(np.exp(batch.old_logp_BT - batch.behav_logp_BT), 1.2)
  normal = adv("reweight", batch, weight=weight, normalise=True)
  np.testing.assert_allclose(
      normal * on, batch.adv_BT * w / ((w * on).sum() / on.sum()) * on, rtol=1e-9)
  faint = advantages.reweight(batch, weight=lambda *a: np.full((6, 5), 1e-3), normalise=True)
  np.testing.assert_allclose(faint.adv_BT, batch.adv_BT)
  with pytest.raises(ValueError, match="old_logp"):
    advantages.reweight(batch.replace(old_logp_BT=None), weight=weight)


def test_group_accuracy():
  reward = np.zeros((6, 5))
  reward[:, 0] = [1, 1, 0, 0.5, 1, 1]
  out = advantages.group_accuracy(batch_of(reward_BT=reward, valid_B=INVALID_4)).extras
  np.testing.assert_array_equal(out["correct_B"], [1, 1, 0, 0, 0, 1])
  np.testing.assert_allclose(
      np.asarray(out["accuracy_B"])[[0, 1, 2, 3, 5]], [0.5, 0.5, 0.5, 0.5, 1])
  out = advantages.group_accuracy(batch_of(reward_BT=reward), threshold=0.4).extras
  np.testing.assert_allclose(out["accuracy_B"], [2 / 3, 1, 2 / 3, 1, 2 / 3, 1])


def test_as_many_groups_as_rows():
  reward = np.zeros((6, 5))
  reward[:, 0] = [1, 0, 1, 0, 1, 1]
  batch = batch_of(reward_BT=reward, group_B=np.arange(6, dtype=np.int32)[::-1])
  np.testing.assert_array_equal(advantages.group_accuracy(batch).extras["accuracy_B"], reward[:, 0])
  assert np.all(adv("group_norm", batch) == 0) and np.all(adv("leave_one_out", batch) == 0)
  x = np.random.default_rng(0).standard_normal((6, 5))
  on = batch.mask_BT > 0
  np.testing.assert_allclose(adv("whiten", batch.replace(adv_BT=x), by=("group_B",)),
                             whiten_loops(x, on, range(6)), rtol=1e-8, atol=1e-9)


def test_covariance_stats():
  batch = batch_of(13, valid_B=INVALID_4)
  on = (batch.mask_BT > 0) & (batch.valid_B[:, None] > 0)
  out = advantages.covariance_stats(batch, cov_low=0.1, cov_high=0.9, cov_fraction=0.2).extras
  A, lp = batch.adv_BT, batch.old_logp_BT
  cov = (A - A[on].mean()) * (lp - lp[on].mean())
  hits = (on & (cov > 0.1) & (cov < 0.9)).sum()
  assert hits > 1
  np.testing.assert_allclose(out["cov_adv_mean_B"], A[on].mean())
  np.testing.assert_allclose(out["cov_logp_mean_B"], lp[on].mean())
  np.testing.assert_allclose(out["cov_rate_B"], min(1.0, 0.2 * on.sum() / hits))
  rare = advantages.covariance_stats(batch, cov_low=0.1, cov_high=0.9, cov_fraction=1e-9).extras
  np.testing.assert_allclose(rare["cov_rate_B"], 1 / hits)  # at least one token
  for h in ({"cov_low": 0.1, "cov_fraction": 1.0}, {"cov_low": 99.0}):  # too few candidates, none
    all_dropped = advantages.covariance_stats(batch, cov_high=0.9, **h).extras["cov_rate_B"]
    assert np.all(all_dropped == 1)
  with pytest.raises(ValueError, match="old_logp"):
    advantages.covariance_stats(batch.replace(old_logp_BT=None))


def test_chain_and_combine():
  batch = batch_of(14)
  steps = (functools.partial(advantages.kl_reward, coef=0.1), advantages.reinforce_pp)
  np.testing.assert_allclose(
      adv("chain", batch, steps=steps),
      advantages.reinforce_pp(advantages.kl_reward(batch, coef=0.1)).adv_BT)
  parts = (advantages.group_norm, functools.partial(advantages.group_norm, reward="other_B"))
  first, second = adv("group_norm", batch), adv("group_norm", batch, reward="other_B")
  np.testing.assert_allclose(
      adv("combine", batch, parts=parts, weights=(0.5, 2.0)), 0.5 * first + 2 * second)
  with pytest.raises(ValueError):
    fn("combine", parts=parts, weights=(1.0,))(batch)


# --- invariances of all of them -------------------------------------------------------------------

# What leaves adv_BT alone where nothing is trained.
UNTOUCHED = ("reweight", "kl_reward", "group_accuracy", "covariance_stats")


@pytest.mark.parametrize("name", ALL)
def test_order_of_rows_and_padding_change_nothing(name):
  batch = batch_of(15)
  if name in ("whiten", "three_sigma", "reweight", "covariance_stats"):
    batch = batch.replace(adv_BT=np.random.default_rng(15).standard_normal((6, 5)))

  def out(b, run=lambda f: f):
    b = run(fn(name))(b)
    extra = [b.extras[k] for k in ("return_BT", "cov_rate_B", "accuracy_B") if k in b.extras]
    on = b.mask_BT * b.valid_B[:, None] > 0
    return [np.where(on, x, 0) if np.ndim(x) == 2 else np.asarray(x)
            for x in [b.adv_BT, b.reward_BT, *extra]]
  whole = out(batch)
  order = np.array([4, 0, 5, 2, 1, 3])
  for x, y in zip(whole, out(cases.rows(None, batch, order)[1])):
    np.testing.assert_allclose(y, x[order], rtol=1e-9, atol=1e-12)
  _, padded = cases.pad(None, batch, padding_rows=2, tokens=3)
  for x, y in zip(whole, out(padded, run=jax.jit)):  # a new shape
    assert np.all(np.isfinite(y[:6]))
    np.testing.assert_allclose(y[:6][:, :5] if y.ndim == 2 else y[:6], x, rtol=1e-9, atol=1e-12)
    assert y.ndim == 1 or np.all(y[:6, 5:] == 0)


@pytest.mark.parametrize("name", ALL)
def test_invalid_rows_may_hold_anything(name):
  batch = batch_of(17, valid_B=INVALID_4, adv_BT=np.random.default_rng(17).standard_normal((6, 5)))
  bad = batch.replace(**{k: np.where(INVALID_4[:, None] > 0, getattr(batch, k), np.nan) for k in (
      "reward_BT", "adv_BT", "value_BT", "old_logp_BT", "ref_logp_BT", "behav_logp_BT")})
  bad = bad.replace(extras={**batch.extras, "baseline_B": np.where(INVALID_4 > 0, batch.extras[
      "baseline_B"], np.nan)})
  on = batch.mask_BT * INVALID_4[:, None] > 0
  for field in ("adv_BT", "reward_BT"):
    good, found = (np.asarray(getattr(fn(name)(b), field)) for b in (batch, bad))
    np.testing.assert_array_equal(np.where(on, found, 0), np.where(on, good, 0))
  if name not in UNTOUCHED:
    assert np.all(adv(name, bad)[4] == 0)


@pytest.mark.parametrize("name", ALL)
def test_empty_batches_and_one_token_stay_finite(name):
  batch = batch_of(16)
  one = np.zeros((6, 5))
  one[2, 0] = 1
  for b in (batch.replace(mask_BT=0 * one), cases.only(batch, []), cases.only(
      batch.replace(mask_BT=one), [2])):
    result = adv(name, b)
    assert np.all(np.isfinite(result))
    if name not in UNTOUCHED:
      assert np.all(result[one == 0] == 0)


# --- knobs, needs, errors -------------------------------------------------------------------------

FLIPS = {
    "*": {"by": ({}, ("group_B", "view_B")), "reward": ({}, "other_B"), "eps": ({}, 0.5),
          "ddof": ({}, 0), "scale_by_std": ({}, False)},
    "reinforce": {"baseline": ({}, "batch-mean")},
    "baseline": {"column": ({}, "other_B")},
    "gae": {"lam": ({}, 0.3), "whitened": ({}, False)},
    "whiten": {"shift": ({}, False), "target": ({}, "reward")},
    "reinforce_pp": {"group_baseline": ({}, True),
                     "by": ({"group_baseline": True}, ("view_B",))},
    "segment_norm": {"key": ({}, "label_BT"), "to_go": ({}, True)},
    "kl_reward": {"coef": ({}, 0.7), "estimator": ({}, "k2")},
    "three_sigma": {"limit": ({}, 0.5), "max_abs": ({}, 0.1)},
    "reweight": {"weight": ({}, nums.masked_weight), "normalise": ({}, True)},
    "group_accuracy": {"threshold": ({}, -0.3), "by": ({"threshold": 0.0}, ()),
                       "reward": ({}, "view_B")},
    "covariance_stats": {"cov_low": ({"cov_low": 0.01, "cov_fraction": 0.05}, 0.3),
                         "cov_high": ({"cov_low": 0.01, "cov_fraction": 0.05}, 0.4),
                         "cov_fraction": ({"cov_low": 0.01}, 0.1)},
    "chain": {"steps": ({}, (advantages.reinforce,))},
    "combine": {"parts": ({}, (advantages.reinforce,)), "weights": ({}, (2.0,))},
    "ema_baselines": {"decay": ({}, 0.5), "start": ({}, 1.0), "update_first": ({}, True)},
}


@pytest.mark.parametrize("name", [n for n in ALL if n != "returns"] + ["ema_baselines"])
def test_every_knob_is_alive(name):
  batch = batch_of(18, adv_BT=np.random.default_rng(18).standard_normal((6, 5)))
  for parameter in cases.hyperparameters(getattr(advantages, name)):
    base, new = {**FLIPS["*"], **FLIPS.get(name, {})}[parameter]
    if name == "ema_baselines":
      one, two = (
          advantages.ema_baselines({"a": 0.2}, ["a", "b", "b", "a"], [1.0, 2, 3, 4], **h)[0]
          for h in (base, {**base, parameter: new}))
    else:
      one, two = (fn(name, **h)(batch) for h in (base, {**base, parameter: new}))
    changes = [np.abs(np.asarray(x, float) - np.asarray(y, float)).max()
               for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(two))]
    assert max(changes) > 1e-6, parameter


def test_needs():
  needs = types.needs_of
  assert needs(advantages.group_norm) == set()
  assert needs(advantages.gae) == {"value"}
  steps = (functools.partial(advantages.kl_reward, coef=0.1), advantages.gae)
  everything = {"value", "old_logp", "ref_logp"}
  assert needs(fn("chain", steps=steps)) == everything
  assert needs(fn("combine", parts=steps, weights=(1, 1))) == everything
  assert needs(fn("reweight")) == needs(advantages.covariance_stats) == {"old_logp"}


def test_defaults():
  """The numbers of the README's table."""
  def defaults(name):
    return tuple(cases.hyperparameters(getattr(advantages, name)).values())
  assert defaults("group_norm") == (True, 1e-6, 1, ("group_B",), "")
  assert defaults("leave_one_out") == (("group_B",), "")
  assert defaults("reinforce") == ("none", "")
  assert defaults("baseline") == ("baseline_B", "")
  assert defaults("ema_baselines") == (0.95, 0.0, False)
  assert defaults("gae") == (0.95, True)
  assert defaults("whiten") == ((), True, 1e-8, "adv")
  assert defaults("reinforce_pp") == (False, ("group_B",), 1e-8)
  assert defaults("segment_norm") == ("", False, True, 1e-6, 1)
  assert defaults("kl_reward") == (0.001, "k1")
  assert defaults("three_sigma") == (3.0, 10.0)
  assert defaults("group_accuracy") == (0.5, ("group_B",), "")
  assert defaults("covariance_stats") == (1.0, 5.0, 2e-4)


def test_errors():
  batch = batch_of(19)
  for name, h in (("reinforce", {"baseline": "median"}), ("whiten", {"target": "value"}),
                  ("kl_reward", {"estimator": "k4"})):
    with pytest.raises(ValueError, match="unknown"):
      fn(name, **h)(batch)
  with pytest.raises(ValueError, match="value_BT"):
    advantages.gae(batch.replace(value_BT=None))


def test_under_jit_in_32_bits_and_at_a_length_that_is_no_power_of_two():
  with jax.enable_x64(False):
    _, batch = cases.random_batch(20, rows=4, length=37)
    steps = (advantages.kl_reward, advantages.gae)
    out = jax.jit(fn("chain", steps=steps))(batch)
  on = batch.mask_BT > 0
  penalty = np.where(on, 0.001 * (batch.old_logp_BT - batch.ref_logp_BT), 0.0)
  A, _ = gae_loops(batch.replace(reward_BT=batch.reward_BT - penalty), 0.95)
  assert out.adv_BT.dtype == np.float32
  x = A[on]
  np.testing.assert_allclose(np.asarray(out.adv_BT)[on], (x - x.mean()) / x.std(ddof=1),
                             rtol=1e-3, atol=1e-4)
