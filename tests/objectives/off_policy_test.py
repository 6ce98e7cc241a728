"""Guided tokens: the paper's equation token by token, a quarter of the gradient, splits."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from rljax import advantages, nums, types
from rljax.objectives import off_policy, pg
from tests.objectives import cases
from tests.objectives import pg_reference as ref
from tests.objectives.cases import x64  # noqa: F401

pytestmark = cases.X64
GUIDED = np.array([1.0, 0, 1, 0, 1, 0])


def mixed(seed=0, guided=GUIDED, valid=(1, 1, 1, 1, 0, 1), **h):
  """A random batch with guided rows; gamma as the function puts it (looked up late: mutants)."""
  stats, batch = cases.random_batch(seed)
  extras = {**batch.extras, "guided_B": np.array(guided, float)}
  batch = batch.replace(extras=extras, valid_B=np.array(valid, float))
  return stats, jax.tree.map(np.asarray, off_policy.shaping_scale(batch, **h))


def guide(*args, **h):
  return off_policy.guide(*args, **h)


def ratios(stats, batch, which=GUIDED, of="old"):
  """w of the guided tokens, one by one."""
  logp = batch.old_logp_BT if of == "old" else stats.logp_BT
  return [math.exp(logp[i, t] - batch.behav_logp_BT[i, t]) for i in range(cases.B)
          for t in range(cases.T) if which[i] and batch.valid_B[i] and batch.mask_BT[i, t]]


# --- against the paper's equation -----------------------------------------------------------------


def token(weight, lp, old, behav, A, gamma, clips):
  """(loss, its derivative by logp) of a guided token."""
  w = math.exp(lp - behav)
  if weight == "shaped":
    return -A * w / (w + gamma), -A * w * gamma / (w + gamma) ** 2
  if weight == "none":
    return -A * lp, -A
  return ref.ppo_token(w, w, A, *clips, None)


@pytest.mark.parametrize("weight", ["shaped", "clipped", "none"])
@pytest.mark.parametrize("clips", [(0.2, 0.2), (0.1, 0.5)])
def test_reference(weight, clips):
  stats, batch = mixed(3)
  loss, grad, n = 0.0, np.zeros((cases.B, cases.T)), 0
  gamma = batch.extras["gamma_B"][0]
  for i in range(cases.B):
    for t in range(cases.T):
      if not (batch.mask_BT[i, t] and batch.valid_B[i]):
        continue
      lp, old, behav, A = (float(x[i, t]) for x in (
          stats.logp_BT, batch.old_logp_BT, batch.behav_logp_BT, batch.adv_BT))
      if GUIDED[i]:
        value, slope = token(weight, lp, old, behav, A, gamma, clips)
      else:
        r = math.exp(lp - old)
        value, slope = ref.ppo_token(r, r, A, *clips, None)
      loss, grad[i, t], n = loss + value, slope, n + 1
  ours, our_grad = cases.value_and_gradient(
      guide, stats, batch, weight=weight, clip_low=clips[0], clip_high=clips[1])
  np.testing.assert_allclose(ours, loss / n, rtol=1e-9)
  np.testing.assert_allclose(our_grad, grad / n, rtol=1e-8, atol=1e-12)
  assert all(np.abs(our_grad[GUIDED == g]).max() > 1e-4 for g in (0, 1))


def test_gamma_is_the_quantile_of_the_guided_tokens_before_the_update():
  for q in (0.9, 0.5, 0.0, 1.0):
    stats, batch = mixed(4, quantile=q)
    assert batch.extras["gamma_B"] == pytest.approx(np.quantile(ratios(stats, batch), q))
  assert mixed(4, floor=7.0)[1].extras["gamma_B"] == pytest.approx(7.0)
  assert np.quantile(ratios(stats, batch), 0.9) < 7.0  # else the floor was not seen
  defaults = cases.hyperparameters(off_policy.shaping_scale)
  assert defaults == {"quantile": 0.9, "floor": 1e-4}
  with pytest.raises(ValueError, match="old_logp_BT before"):
    off_policy.shaping_scale(batch.replace(old_logp_BT=None))


def test_without_guided_tokens_it_is_grpo_and_gamma_is_one():
  for guided, valid in ((0 * GUIDED, np.ones(6)), (GUIDED, 1 - GUIDED)):
    stats, batch = mixed(5, guided=guided, valid=valid)
    np.testing.assert_array_equal(batch.extras["gamma_B"], 1.0)
    plain = functools.partial(pg.grpo, aggregation="token-mean")
    assert cases.value(guide, stats, batch) == pytest.approx(cases.value(plain, stats, batch))
    np.testing.assert_allclose(cases.gradient(guide, stats, batch),
                               cases.gradient(plain, stats, batch))


# --- known answers --------------------------------------------------------------------------------


def test_an_empty_hint_gives_a_quarter_of_the_gradient():
  """h empty, theta = old: w = 1 everywhere, gamma = 1, f = 1/2, f' = 1/4."""
  stats, batch = mixed(6, guided=np.ones(cases.B))
  batch = batch.replace(behav_logp_BT=stats.logp_BT, old_logp_BT=stats.logp_BT)
  batch = jax.tree.map(np.asarray, off_policy.shaping_scale(batch))
  np.testing.assert_array_equal(batch.extras["gamma_B"], 1.0)
  plain = functools.partial(pg.reinforce, aggregation="token-mean")
  np.testing.assert_allclose(cases.gradient(guide, stats, batch),
                             cases.gradient(plain, stats, batch) / 4, rtol=1e-12)
  mean_adv = nums.masked_mean(batch.adv_BT, batch.mask_BT * batch.valid_B[:, None])
  assert cases.value(guide, stats, batch) == pytest.approx(-float(mean_adv) / 2)


def test_the_gradient_is_largest_where_w_is_gamma():
  stats, batch = mixed(7, guided=np.ones(cases.B), valid=np.ones(cases.B))
  slopes = {}
  for log_w in (-3.0, -1.0, 0.0, 1.0, 3.0):
    at = batch.replace(behav_logp_BT=stats.logp_BT - log_w - np.log(batch.extras["gamma_B"][0]),
                       adv_BT=np.ones_like(batch.adv_BT))
    slopes[log_w] = -cases.gradient(guide, stats, at).sum()
  assert slopes[0.0] == pytest.approx(0.25) and max(slopes, key=slopes.get) == 0.0
  assert slopes[-3.0] == pytest.approx(slopes[3.0])


def test_quantile_of_nothing_and_of_one():
  x = np.array([[3.0, np.nan], [1.0, 2.0]])
  assert nums.masked_quantile(x, np.zeros((2, 2)), 0.9) == 0.0
  assert nums.masked_quantile(x, np.array([[1.0, 0], [0, 0]]), 0.3) == 3.0
  assert nums.masked_quantile(x, np.array([[1.0, 0], [1, 1]]), 0.75) == 2.5


# --- invariances, extremes, knobs -----------------------------------------------------------------


def test_any_split_is_the_whole_batch():
  stats, batch = mixed(8)
  whole = guide(stats, batch)
  parts = [guide(stats, cases.only(batch, rows)) for rows in ([0, 3], [1, 2], [4, 5])]
  for field in ("total", "weight"):
    np.testing.assert_allclose(sum(getattr(p, field) for p in parts), getattr(whole, field))
  merged = functools.reduce(types.merge_metrics, [p.metrics for p in parts])
  for key, value in whole.metrics.items():
    np.testing.assert_allclose(merged[key].compute(), value.compute(), err_msg=key)


def test_padding_changes_nothing():
  stats, batch = mixed(9)
  padded = cases.pad(stats, batch, tokens=2, padding_rows=2)
  padded = padded[0], jax.tree.map(np.asarray, off_policy.shaping_scale(padded[1]))
  assert cases.value(guide, *padded) == pytest.approx(cases.value(guide, stats, batch))
  grad = cases.gradient(guide, *padded)
  np.testing.assert_allclose(grad[:cases.B, :cases.T], cases.gradient(guide, stats, batch))
  assert np.all(grad[cases.B:] == 0) and np.all(grad[:, cases.T:] == 0)


@pytest.mark.parametrize("weight", ["shaped", "clipped", "none"])
def test_extreme_ratios_and_empty_batches_stay_finite(weight):
  stats, batch = mixed(10)
  shift = np.resize([80.0, -80.0, 1e4, 0.0, -1e4, 20.0, 3.0], batch.mask_BT.shape)
  batch = batch.replace(old_logp_BT=stats.logp_BT - shift, behav_logp_BT=stats.logp_BT + shift)
  batch = jax.tree.map(np.asarray, off_policy.shaping_scale(batch))
  for some in (batch, batch.replace(valid_B=0 * batch.valid_B)):
    loss, grad = cases.value_and_gradient(guide, stats, some, weight=weight)
    assert np.isfinite(loss) and np.isfinite(grad).all()
    assert all(np.isfinite(m.compute()) for m in guide(stats, some, weight=weight).metrics.values())
  assert loss == 0 and np.all(grad == 0)


def test_metrics_and_shared_terms():
  stats, batch = mixed(11)
  loss = guide(stats, batch)
  w = ratios(stats, batch, of="now")
  on = batch.mask_BT * batch.valid_B[:, None]
  assert cases.metric(loss, "pg/guided_tokens") == pytest.approx(len(w) / on.sum())
  assert cases.metric(loss, "pg/guided_weight") == pytest.approx(np.mean(w))
  assert cases.metric(loss, "pg/guided_weight_max") == pytest.approx(max(w))
  base = cases.value(guide, stats, batch)
  assert cases.value(guide, stats, batch, entropy_coef=0.2) == pytest.approx(
      base - 0.2 * float(nums.masked_mean(stats.entropy_BT, on)))
  assert cases.value(guide, stats, batch, kl_coef=0.2, kl_estimator="k2") == pytest.approx(
      base + 0.2 * float(nums.masked_mean((stats.logp_BT - batch.ref_logp_BT) ** 2 / 2, on)))
  assert cases.value(guide, stats, batch, aggregation="token-sum-constant",
                     constant=2.0) == pytest.approx(base * on.sum() / 2)
  with pytest.raises(ValueError, match="unknown weight 'raw'"):
    guide(stats, batch, weight="raw")


def test_needs_and_defaults():
  assert types.needs_of(off_policy.guide) == {"adv", "old_logp"}
  full = functools.partial(off_policy.guide, kl_coef=0.1, entropy_coef=0.1)
  assert types.needs_of(full) == {"adv", "old_logp", "ref_logp", "entropy_grad"}
  chained = functools.partial(advantages.chain, steps=(
      advantages.group_norm, off_policy.shaping_scale))
  assert types.needs_of(chained) == {"old_logp"}
  h = cases.hyperparameters(off_policy.guide)
  assert (h["weight"], h["clip_low"], h["clip_high"], h["aggregation"]) == (
      "shaped", 0.2, 0.2, "token-mean")
  assert (h["kl_coef"], h["entropy_coef"]) == (0.0, 0.0)


def test_gamma_and_the_sampler_pass_no_gradient():
  stats, batch = mixed(12)
  def total(x):
    b = off_policy.shaping_scale(batch.replace(old_logp_BT=x))
    return guide(dataclasses.replace(stats), b.replace(old_logp_BT=batch.old_logp_BT)).total
  assert np.all(np.asarray(jax.grad(total)(batch.old_logp_BT)) == 0)
