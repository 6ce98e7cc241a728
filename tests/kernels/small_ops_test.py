"""group_advantages, gae and pg_token_loss: reference and TPU kernel against loops in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax_kernels.gae import op as gae_op
from rljax_kernels.group_advantage import op as group_op
from rljax_kernels.pg_loss import op as pg_op

KINDS = ["xla", "mosaic"]
SHAPES = [(1, 1), (7, 13), (130, 5)]  # one token; nothing aligned; several blocks of rows


def masks(B, T, rng):
  """A mask with an empty row (if there are several), and valid rows."""
  mask, valid = (rng.random((B, T)) < 0.7) * 1.0, (rng.random(B) < 0.8) * 1.0
  if B > 1:
    mask[0] = 0.0
  else:
    mask[:], valid[:] = 1.0, 1.0
  return mask, valid


# --- group_advantages -----------------------------------------------------------------------------


def groups_by_loop(reward, group, mask, valid, *, scale_by_std=True, leave_one_out=False, eps=1e-6,
                   ddof=1):
  out = np.zeros(mask.shape)
  for i in range(len(reward)):
    mine = [j for j in range(len(reward)) if group[j] == group[i] and valid[j]]
    if not valid[i] or len(mine) < 2:
      continue
    x = np.float64(reward[mine])
    adv = np.float64(reward[i]) - x.mean()
    if leave_one_out:
      adv = np.float64(reward[i]) - np.mean([reward[j] for j in mine if j != i])
    elif scale_by_std:
      std = np.sqrt(((x - x.mean())**2).sum() / max(len(x) - ddof, 1))
      adv = 0.0 if std < 1e-6 else adv / (std + eps)
    out[i] = adv * mask[i]
  return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("B, T", SHAPES)
@pytest.mark.parametrize("options", [
    {}, {"ddof": 0, "eps": 0.5}, {"scale_by_std": False},
    {"scale_by_std": False, "leave_one_out": True}], ids=str)
def test_group_advantages(kind, B, T, options):
  rng = np.random.default_rng(B)
  mask, valid = masks(B, T, rng)
  reward = np.where(valid > 0, rng.normal(size=B) + 50.0, np.nan).astype(np.float32)
  group = rng.integers(0, max(B // 4, 1), B).astype(np.int32)
  reward[(group == group[-1]) & (valid > 0)] = 0.1  # one group where all are equal
  found = group_op.group_advantages(
      *map(jnp.asarray, (reward, group, mask)), valid_B=jnp.asarray(valid), implementation=kind,
      interpret=True, **options)
  wanted = groups_by_loop(reward, group, mask, valid, **options)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
  assert not np.any(np.asarray(found)[group == group[-1]])  # exactly


def test_long_rows_take_several_blocks():
  mask = (np.random.default_rng(0).random((4, 2500)) < 0.5) * 1.0
  args = (jnp.array([0.0, 1.0, 1.0, 1.0]), jnp.array([0, 0, 1, 1]), jnp.asarray(mask))
  found = [group_op.group_advantages(*args, valid_B=jnp.ones(4), implementation=k, interpret=True)
           for k in KINDS]
  np.testing.assert_allclose(*found, rtol=1e-6)


# --- gae ------------------------------------------------------------------------------------------


def gae_by_loop(value, reward, discount, mask, lam):
  adv = np.zeros(mask.shape)
  for b in range(mask.shape[0]):
    next_value, next_adv, late = 0.0, 0.0, 0.0
    for t in reversed(range(mask.shape[1])):
      if not mask[b, t]:
        late += reward[b, t]
        if discount[b, t] == 0:  # the episode ended: nothing beyond is this one's
          next_value = next_adv = 0.0
        continue
      delta = reward[b, t] + late + discount[b, t] * next_value - value[b, t]
      adv[b, t] = delta + discount[b, t] * lam * next_adv
      next_value, next_adv, late = value[b, t], adv[b, t], 0.0
  return adv


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("B, T", [*SHAPES, (2, 600)])  # the last is two blocks of time
@pytest.mark.parametrize("lam", [0.0, 0.9, 1.0])
def test_gae(kind, B, T, lam):
  rng = np.random.default_rng(T)
  mask, _ = masks(B, T, rng)
  value, reward = rng.normal(size=(2, B, T)).astype(np.float32)
  discount = np.where(rng.random((B, T)) < 0.1, 0.0, 0.95).astype(np.float32)
  holes = jnp.where(jnp.asarray(mask) > 0, value, jnp.nan)  # what is not trained may be anything
  adv, returns = gae_op.gae(holes, *map(jnp.asarray, (reward, discount, mask)), lam=lam,
                            implementation=kind, interpret=True)
  wanted = gae_by_loop(value, reward, discount, mask, lam)
  np.testing.assert_allclose(adv, wanted, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(returns, wanted + value * mask, rtol=1e-4, atol=1e-4)


# --- pg_token_loss --------------------------------------------------------------------------------


PG_OPTIONS = [
    {}, {"clip_low": 0.1, "clip_high": 0.3}, {"dual_clip": 1.1},
    {"kl_coef": 0.5, "kl_estimator": "k1"}, {"kl_coef": 0.5, "kl_estimator": "k2"},
    {"kl_coef": 0.5}, {"kl_coef": 0.5, "kl_estimator": "k3+"}]


def token_loss(logp, old, adv, ref, weight, *, clip_low=0.2, clip_high=0.2, dual_clip=None,
               kl_coef=0.0, kl_estimator="k3"):
  """One token, float64: loss, ratio, clipped low, clipped high, KL."""
  r = np.exp(np.clip(logp - old, -20, 20))
  loss = max(-adv * r, -adv * np.clip(r, 1 - clip_low, 1 + clip_high))
  if dual_clip is not None and adv < 0:
    loss = min(loss, -dual_clip * adv)
  d = logp - ref
  kl = {"k1": d, "k2": d * d / 2, "k3": np.exp(-d) - 1 + d, "k3+": np.exp(-d) - 1 + d}[kl_estimator]
  kl = kl if kl_coef else 0.0
  return (weight * loss + kl_coef * kl, r, r < 1 - clip_low and adv < 0,
          r > 1 + clip_high and adv > 0, kl)


def pg_case(B, T):
  rng = np.random.default_rng(B * T)
  mask, _ = masks(B, T, rng)
  logp, old, adv, ref = rng.normal(size=(4, B, T)) * np.array([0.3, 0.3, 1, 0.3])[:, None, None]
  weight = rng.random((B, T)) * 2
  return logp, old, adv, mask, ref, weight


def run_pg(case, kind, **options):
  logp, *rest = (jnp.asarray(np.where(case[3] > 0, x, x if x is case[3] else np.nan), jnp.float32)
                 for x in case)
  old, adv, mask, ref, weight = rest
  row_weights = jnp.linspace(0.5, 1.5, logp.shape[0])

  def f(logp):
    sums = pg_op.pg_token_loss(logp, old, adv, mask, ref_BT=ref, weight_BT=weight,
                               implementation=kind, interpret=True, **options)
    return jnp.vdot(sums.loss, row_weights), sums
  (_, sums), grad = jax.value_and_grad(f, has_aux=True)(logp)
  return sums, np.asarray(grad), np.asarray(row_weights)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, options", [
    *itertools.product(SHAPES, PG_OPTIONS), ((2, 1100), {})], ids=str)  # the last: two blocks
def test_pg_token_loss(kind, shape, options):
  (B, T), case = shape, pg_case(*shape)
  logp, old, adv, mask, ref, weight = case
  sums, grad, row_weights = run_pg(case, kind, **options)
  wanted = np.zeros((B, 7))
  slope, eps = np.zeros((B, T)), 1e-6
  k2 = {**options, "kl_estimator": "k2"} if options.get("kl_estimator") == "k3+" else options
  for b, t in np.argwhere(mask > 0):
    at = lambda d, o=options, b=b, t=t: token_loss(
        logp[b, t] + d, old[b, t], adv[b, t], ref[b, t], weight[b, t], **o)
    loss, ratio, low, high, kl = at(0.0)
    wanted[b] += [loss, 1.0, ratio, 0.0, low, high, kl]
    wanted[b, 3] = max(wanted[b, 3], ratio)
    slope[b, t] = (at(eps, k2)[0] - at(-eps, k2)[0]) / (2 * eps) * row_weights[b]
  np.testing.assert_allclose(np.stack(sums, 1), wanted, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-4)
  assert np.isfinite(grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_ratios_stay_finite_without_gradient(kind):
  one = np.ones((1, 2))
  case = (np.array([[90.0, -90.0]]), 0 * one, -one, one, 0 * one, one)
  sums, grad, _ = run_pg(case, kind, kl_coef=0.1)
  assert np.isfinite(np.stack(sums)).all() and not grad.any()


def test_what_cannot_be_is_an_error():
  x = jnp.ones((1, 2))
  with pytest.raises(ValueError, match="gae has no implementation 'magic'"):
    gae_op.gae(x, x, x, x, implementation="magic")
  with pytest.raises(ValueError, match="ref_BT"):
    pg_op.pg_token_loss(x, x, x, x, kl_coef=0.1)
  with pytest.raises(ValueError, match="k4.*one of k1"):
    pg_op.pg_token_loss(x, x, x, x, kl_estimator="k4")
  with pytest.raises(ValueError, match="leave_one_out"):
    group_op.group_advantages(x[0], x[0].astype(int), x.T, valid_B=x[0], leave_one_out=True)
