"""The differentiated reward against numpy loops, by hand, and where a product underflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.objectives import likelihood

FORMS = ("prob", "avgprob", "logprob", "avglogprob", "weighted")


def batch_of(lengths, references, T=6, groups=None, rewards=None, weight=None):
  B = len(lengths)
  mask_BT = (np.arange(T)[None] < np.array(lengths)[:, None]).astype(np.float32)
  zero_BT = np.zeros((B, T), np.float32)
  rng = np.random.default_rng(0)
  adv_BT = rng.normal(size=(B, 1)).astype(np.float32) * mask_BT
  reward_BT = zero_BT.copy()
  if rewards is not None:
    reward_BT[:, 0] = rewards
  extras = {"reference": np.array(references, np.float32)}
  if weight is not None:
    extras["weight"] = np.array(weight, np.float32)
  groups = np.zeros(B, np.int32) if groups is None else np.array(groups, np.int32)
  return types.Batch({}, zero_BT.astype(np.int32), mask_BT, zero_BT, reward_BT, zero_BT, adv_BT,
                     np.array([float(n > 0) for n in lengths], np.float32), groups, extras=extras)


def logps(B, T=6, seed=1):
  return -np.random.default_rng(seed).uniform(0.1, 2.0, (B, T)).astype(np.float32)


def by_loop(logp_BT, batch, form, coef):
  """The loss of the paper, row by row, in float64."""
  total, rows = 0.0, 0
  for b in range(len(logp_BT)):
    n = int(batch.mask_BT[b].sum())
    if not n:
      continue
    rows += 1
    k = int(batch.extras["reference"][b])
    z, l = np.float64(logp_BT[b, :n - k]), np.float64(logp_BT[b, n - k:n])
    reward = 0.0
    if k:
      reward = {"prob": np.exp(l.sum()), "avgprob": np.exp(l).mean(), "logprob": l.sum(),
                "avglogprob": l.mean(),
                "weighted": float(batch.extras.get("weight", np.zeros(99))[b]) * l.sum()}[form]
    total -= float(batch.adv_BT[b, 0]) * z.sum() + coef * reward
  return total / rows


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("coef", [1.0, 0.5])
def test_reference_loop(form, coef):
  batch = batch_of([6, 4, 3, 0], [2, 1, 0, 0], weight=[0.3, 1.7, 1.0, 1.0])
  logp_BT = logps(4)
  loss = likelihood.reference(types.TokenStats(jnp.asarray(logp_BT)), batch, form=form,
                              reward_coef=coef)
  np.testing.assert_allclose(loss.total / loss.weight, by_loop(logp_BT, batch, form, coef),
                             rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_the_reward_is_differentiated(form):
  """d loss / d l of the answer: -1, -1/n, -p, -p_t/n, -w; forgetting it would give 0."""
  batch = batch_of([5], [2], weight=[0.3])
  logp_BT = jnp.asarray(logps(1))
  grad_BT = jax.grad(lambda x: likelihood.reference(
      types.TokenStats(x), batch, form=form).total)(logp_BT)
  l = np.asarray(logp_BT)[0, 3:5]
  wanted = {"prob": np.exp(l.sum()), "avgprob": np.exp(l) / 2, "logprob": 1.0, "avglogprob": 0.5,
            "weighted": 0.3}[form]
  np.testing.assert_allclose(-grad_BT[0, 3:5], np.broadcast_to(wanted, 2), rtol=1e-5)
  np.testing.assert_allclose(-grad_BT[0, :3], batch.adv_BT[0, :3], rtol=1e-6)
  assert grad_BT[0, 5] == 0


def test_a_product_of_many_probabilities_underflows():
  """45 tokens of 1/16 are e^-125: the probability has exactly no gradient, its logarithm has 1."""
  T = 45
  batch = batch_of([T], [T], T=T)
  batch = batch.replace(adv_BT=np.zeros((1, T), np.float32))
  logp_BT = jnp.full((1, T), -np.log(16.0), jnp.float32)

  def slope(form):
    return np.asarray(jax.grad(lambda x: likelihood.reference(
        types.TokenStats(x), batch, form=form).total)(logp_BT))
  assert np.abs(slope("prob")).max() == 0.0
  np.testing.assert_allclose(slope("logprob"), -1.0)
  np.testing.assert_allclose(slope("avgprob"), -1 / 16 / T, rtol=1e-5)


def test_jepo_by_hand_and_in_log_space():
  p = np.array([0.5, 0.25, 0.25, 0.1])
  batch = batch_of([2, 2, 2, 2, 0], [1, 1, 1, 1, 0], groups=[0, 0, 0, 1, -1],
                   rewards=[*np.log(p), 0.0])
  out = likelihood.jepo_advantage(batch)
  mean = p[:3].mean()
  others = [np.delete(p[:3], i).mean() for i in range(3)]
  wanted = [np.log(mean / o) for o in others] + [0.0, 0.0]
  np.testing.assert_allclose(out.adv_BT[:, 0], wanted, atol=1e-6)
  np.testing.assert_allclose(out.extras["weight"], [*(p[:3] / mean), 1.0, 0.0], rtol=1e-5)
  tiny = likelihood.jepo_advantage(batch.replace(reward_BT=batch.reward_BT - 200.0 * (
      np.arange(6) == 0)))
  np.testing.assert_allclose(tiny.adv_BT[:4, 0], out.adv_BT[:4, 0], atol=1e-4)


def test_kl_needs_a_reference_and_counts():
  batch = batch_of([5], [2])
  stats = types.TokenStats(jnp.asarray(logps(1)))
  assert types.needs_of(likelihood.reference) == {"adv"}
  with pytest.raises(ValueError, match="ref_logp"):
    likelihood.reference(stats, batch, kl_coef=0.1)
  with_ref = batch.replace(ref_logp_BT=logps(1, seed=5))
  more = likelihood.reference(stats, with_ref, kl_coef=0.1).total
  assert float(more) != float(likelihood.reference(stats, batch).total)
  with pytest.raises(ValueError, match="one of prob"):
    likelihood.reference(stats, batch, form="odds")
