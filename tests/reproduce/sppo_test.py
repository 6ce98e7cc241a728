"""SPPO on CYC with a tabular policy: what is known exactly, and that the objective gets there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.data import cyclic, pairs
from rljax.objectives import preference

P = np.array(cyclic.P)
exploitability = lambda pi: cyclic.exploitability(np.asarray(pi))["exploitability"]


def softmax(x):
  p = np.exp(x - x.max())
  return p / p.sum()


@pytest.mark.parametrize("policy, value", [
  ([1, 0, 0, 0, 0], 0.4), ([0, 1, 0, 0, 0], 0.4), ([0, 0, 0, 1, 0], 0.45),
  ([1 / 3, 1 / 3, 1 / 3, 0, 0], 0.0), ([0.2] * 5, 0.18)])
def test_exploitability_of_known_policies(policy, value):
  assert exploitability(policy) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("eta", [0.2, 1.0])
def test_multiplicative_weights_reach_the_minimax_mixture(eta):
  """pi <- pi exp(eta P(y > pi)) for 300 rounds: the mixture of all iterates comes to 0.014 (pilot
  of papers/sppo.md), while with large steps the last one goes round in circles."""
  logits, iterates = np.zeros(5), []
  for _ in range(300):
    iterates.append(softmax(logits))
    logits = logits + eta * P @ iterates[-1]
  assert exploitability(np.mean(iterates, axis=0)) < 0.02
  if eta == 1.0:
    assert max(map(exploitability, iterates[-50:])) > 0.2


def batch_of(kinds, rates, valid, ref_logits):
  """Rows of one token."""
  one = np.ones((len(kinds), 1), np.float32)
  logp = np.log(softmax(ref_logits))[kinds][:, None]
  return types.Batch({}, one.astype(np.int32), one, one * 0, one * 0, one * 0, one * 0,
                     np.asarray(valid, np.float32), np.zeros(len(kinds), np.int32),
                     ref_logp_BT=jnp.asarray(logp, jnp.float32),
                     extras={"win_rate": np.asarray(rates, np.float32)})


def iterate(objective, *, rounds, seed, groups=40, K=5, fits=300, lr=0.5):
  """Mixture of the iterates: each round K responses a group, best and worst by win rate, a fit."""
  def loss(logits, kinds, batch):
    logp_BT = jax.nn.log_softmax(logits)[kinds][:, None]
    out = objective(types.TokenStats(logp_BT), batch)
    return out.total / jnp.maximum(out.weight, 1.0)

  @jax.jit
  def fit(logits, kinds, batch):
    step = lambda _, x: x - lr * jax.grad(loss)(x, kinds, batch)
    return jax.lax.fori_loop(0, fits, step, logits)
  draws, logits, iterates = np.random.default_rng(seed), np.zeros(5, np.float32), []
  for _ in range(rounds):
    iterates.append(softmax(logits.astype(float)))
    kinds, rates, valid = [], [], []
    for said in draws.choice(5, (groups, K), p=iterates[-1]):
      w = pairs.win_rate(P[np.ix_(said, said)])
      a, b = w.argmax(), w.argmin()
      kinds, rates = [*kinds, said[a], said[b]], [*rates, w[a], w[b]]
      valid += 2 * [float(w[a] > w[b])]
    kinds = np.array(kinds)
    logits = np.asarray(fit(logits, kinds, batch_of(kinds, rates, valid, logits)))
  return np.mean(iterates, axis=0)


@pytest.mark.parametrize("seed", range(4))
def test_the_regression_reaches_it_and_hard_labels_do_not(seed):
  """60 rounds on the same kind of samples: SPPO's mixture below 0.2, iterative DPO's above 0.25."""
  sppo = iterate(lambda s, b: preference.sppo(s, b, beta=1 / 3), rounds=60, seed=seed)
  dpo = iterate(lambda s, b: preference.dpo(s, b, beta=0.1), rounds=60, seed=seed)
  assert exploitability(sppo) < 0.2
  assert exploitability(dpo) > 0.25
