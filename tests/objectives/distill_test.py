"""Distillation losses against loops, by hand, as identities and as estimators."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.objectives import distill, supervised
from tests.objectives import pair_cases as pc
from tests.objectives.pair_cases import Case, aggregate_rows, average


def distributions(stats, r, t, tail):
  """(student, teacher) probabilities at the stated tokens and, with a bucket, of the rest."""
  ks = [k for k in range(pc.K) if r.x["ids_BTK"][t, k] >= 0]
  s = [math.exp(stats.extras["logp_BTK"][r.b, t, k]) for k in ks]
  q = [math.exp(r.x["teacher_logp_BTK"][t, k]) for k in ks]
  if tail == "renormalise":
    return [x / sum(s) for x in s], [x / sum(q) for x in q]
  return s + [1 - sum(s)], q + [1 - sum(q)]


def kl(p, q):
  return sum(a * math.log(a / b) for a, b in zip(p, q))


def over_tokens(name, divergence):
  def run(stats, batch, tail="bucket", aggregation="token-mean", constant=None, **hyper):
    losses = [[divergence(*distributions(stats, r, t, tail), **hyper) for t in r.at]
              for r in pc.rows_of(stats, batch)]
    total, weight = aggregate_rows(losses, aggregation, constant)
    return total, weight, {f"distill/{name}": average(x for r in losses for x in r)}
  return run


def js(s, t, beta=0.5):
  m = [beta * b + (1 - beta) * a for a, b in zip(s, t)]
  return beta * kl(t, m) + (1 - beta) * kl(s, m)


def gaps(stats, batch):
  return [[lp - r.x["teacher_logp_BT"][t] for lp, t in zip(r.lp, r.at)]
          for r in pc.rows_of(stats, batch)]


def forward_sampled(stats, batch, aggregation="token-mean", constant=None):
  losses = [[-d for d in r] for r in gaps(stats, batch)]
  total, weight = aggregate_rows(losses, aggregation, constant)
  return total, weight, {"distill/forward_kl": average(x for r in losses for x in r)}


def reverse_sampled(stats, batch, estimator="k2", level="token", aggregation="token-mean",
                    constant=None):
  ds = gaps(stats, batch)
  f = {"k1": lambda d: d, "k2": lambda d: d * d / 2, "k3": lambda d: math.exp(-d) - 1 + d,
       "k3+": lambda d: math.exp(-d) - 1 + d}[estimator]
  total, weight = aggregate_rows([[f(d) for d in r] for r in ds], aggregation, constant)
  if level == "sequence":
    total, weight = sum(sum(r) ** 2 / 2 for r in ds if r), sum(1 for r in ds if r)
  return total, weight, {"distill/reverse_kl": average(d for r in ds for d in r)}


EXACT = dict(tail="renormalise", aggregation="seq-mean-token-mean",
             constant=(7.0, dict(aggregation="constant")))
CASES = [
    Case(distill.forward_kl, over_tokens("forward_kl", lambda s, t: kl(t, s)), 1, EXACT),
    Case(distill.reverse_kl, over_tokens("reverse_kl", kl), 1, EXACT),
    Case(distill.jsd, over_tokens("jsd", js), 1, dict(EXACT, beta=0.2)),
    Case(distill.forward_kl_sampled, forward_sampled, 1, dict(
        aggregation="seq-mean-token-sum", constant=(7.0, dict(aggregation="token-sum-constant")))),
    Case(distill.reverse_kl_sampled, reverse_sampled, 1, dict(
        estimator="k3", level="sequence", aggregation="seq-mean-token-mean",
        constant=(7.0, dict(aggregation="constant")))),
    Case(distill.reverse_kl_sampled, reverse_sampled, 1, dict(
        estimator="k1", level=("sequence", dict(estimator="k2")),
        aggregation="seq-mean-token-mean", constant=(7.0, dict(aggregation="constant"))),
        hyper=dict(estimator="k3+")),
]


@pc.contract(CASES)
def test_contract(group, check):
  check(group)


def test_true_sizes():
  pc.true_sizes(CASES[2])


def log(x):
  with np.errstate(divide="ignore"):
    return np.log(x)


def tiny(student, teacher):
  """One token, whole distributions over at most K tokens."""
  stats, batch = pc.as32(pc.make(0, whole=True))
  k = len(student)
  mask = np.zeros((pc.B, pc.T), np.float32)
  mask[0, 0] = 1
  ids = np.where(np.arange(pc.K) < k, np.arange(pc.K), -1) * np.ones((pc.B, pc.T, 1), np.int32)
  full = lambda x: np.pad(np.float32(x), (0, pc.K - k)) * np.ones(  # noqa: E731
      (pc.B, pc.T, 1), np.float32)
  batch = batch.replace(mask_BT=mask, extras={"ids_BTK": ids.astype(np.int32),
                                              "teacher_logp_BTK": log(full(teacher))})
  return stats.replace(extras={"logp_BTK": log(full(student))}), batch


LOSSES = (distill.forward_kl, distill.reverse_kl, distill.jsd)


def results(data):
  """{(loss, tail): (gradient, loss)}."""
  def of(fn, tail):
    def total(s, b):
      loss = fn(s, b, tail=tail)
      return loss.total, loss
    return jax.grad(total, has_aux=True)
  return pc.run(lambda s, b: {f"{fn.__name__} {tail}": of(fn, tail)(s, b)
                              for fn in LOSSES for tail in distill.TAILS}, *data)


def test_by_hand():
  found = results(tiny([0.5, 0.5], [0.75, 0.25]))
  m = [0.625, 0.375]
  want = {"forward_kl": 0.75 * math.log(1.5) + 0.25 * math.log(0.5),
          "reverse_kl": 0.5 * math.log(2 / 3) + 0.5 * math.log(2),
          "jsd": 0.5 * kl([0.75, 0.25], m) + 0.5 * kl([0.5, 0.5], m)}
  for name, (_, loss) in found.items():
    assert pc.mean(loss) == pytest.approx(want[name.split()[0]], abs=1e-5), name


def test_bucket_and_renormalise_by_hand():
  found = results(tiny([0.2, 0.3], [0.5, 0.25]))
  assert pc.mean(found["forward_kl bucket"][1]) == pytest.approx(
      kl([0.5, 0.25, 0.25], [0.2, 0.3, 0.5]), rel=1e-5)
  assert pc.mean(found["forward_kl renormalise"][1]) == pytest.approx(
      kl([2 / 3, 1 / 3], [0.4, 0.6]), rel=1e-5)


def test_disjoint_and_equal_distributions():
  found = results(tiny([0.0, 1.0], [1.0, 0.0]))  # log 0 = -inf in both
  for name, (g, loss) in found.items():
    assert np.isfinite(loss.total), name
    assert np.isfinite(g.extras["logp_BTK"][0, 0, :2]).all(), name
  assert pc.mean(found["jsd bucket"][1]) == pytest.approx(math.log(2), rel=1e-4)  # its maximum
  assert pc.mean(found["forward_kl bucket"][1]) == pytest.approx(1e4, rel=1e-2)  # not inf
  for name, (_, loss) in results(tiny([0.3, 0.7], [0.3, 0.7])).items():
    assert pc.mean(loss) == pytest.approx(0, abs=1e-6), name


@pc.x64
def test_divergences_meet():
  stats, batch = pc.make(31)
  swapped = stats.replace(extras={**stats.extras, "logp_BTK": batch.extras["teacher_logp_BTK"]})
  other = batch.replace(extras={**batch.extras, "teacher_logp_BTK": stats.extras["logp_BTK"]})
  def pairs(stats, batch, swapped, other):
    small = 1e-6
    yield (distill.jsd(stats, batch, beta=small).total / small,
           distill.forward_kl(stats, batch).total)
    yield (distill.jsd(stats, batch, beta=1 - small).total / small,
           distill.reverse_kl(stats, batch).total)
    yield distill.forward_kl(stats, batch).total, distill.reverse_kl(swapped, other).total
    yield (distill.jsd(stats, batch, beta=0.3).total,
           distill.jsd(swapped, other, beta=0.7).total)
    for how in ("token-mean", "seq-mean-token-sum"):  # the gradient is that of SFT
      yield [jax.grad(lambda s, f=f, h=how: f(s, batch, aggregation=h).total)(stats).logp_BT
             for f in (distill.forward_kl_sampled, supervised.sft)]
  for a, b in pc.run(lambda *data: list(pairs(*data)), stats, batch, swapped, other):
    np.testing.assert_allclose(a, b, rtol=1e-3 if np.ndim(a) == 0 else 1e-12)


@pc.x64
def test_sampled_reverse_gradient_is_that_of_the_divergence():
  """Two-token sequences over two symbols, all four with their probabilities: the expected gradient
  of the sequence loss is that of KL(student || teacher) over sequences."""
  theta = jnp.array([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.9]])  # first token; second after 0; after 1
  teacher = jnp.array([[0.1, 0.4], [-0.3, 0.2], [0.8, 0.0]])
  ys = np.array([(a, b) for a in (0, 1) for b in (0, 1)])
  def logps(w):
    l = jax.nn.log_softmax(w, axis=-1)
    return jnp.stack([l[0, ys[:, 0]], l[1 + ys[:, 0], ys[:, 1]]], axis=1)
  nothing = {f: None for f in ("inputs", "actions_BT", "behav_logp_BT", "reward_BT", "discount_BT",
                               "adv_BT", "group_B")}
  def expected(share, teacher_logp, **hyper):
    """sum_y p(y) grad loss(y): one batch per sequence, weighted from outside."""
    def total(w):
      out = 0.0
      for y in range(4):
        batch = types.Batch(**nothing, mask_BT=np.ones((1, 2)), valid_B=np.ones(1),
                            extras={"teacher_logp_BT": teacher_logp[y:y + 1]})
        stats = types.TokenStats(logps(w)[y:y + 1])
        out += share[y] * distill.reverse_kl_sampled(stats, batch, **hyper).total
      return out
    return jax.grad(total)(theta)
  def all_of(theta, teacher):
    share = jax.lax.stop_gradient(jnp.exp(logps(theta).sum(1)))
    exact = jax.grad(lambda w: jnp.sum(jnp.exp(logps(w).sum(1)) * (
        logps(w).sum(1) - logps(teacher).sum(1))))(theta)
    return (exact, expected(share, logps(teacher), level="sequence"),
            expected(share, logps(teacher), estimator="k1"))
  exact, sequence, k1 = pc.run(all_of, theta, teacher)
  np.testing.assert_allclose(sequence, exact, rtol=1e-6)
  np.testing.assert_allclose(k1, 0 * exact, atol=1e-9)


@pytest.mark.parametrize("call,message", [
    (lambda s, b: distill.jsd(s, b, beta=0.0), "beta must lie"),
    (lambda s, b: distill.jsd(s, b, beta=1.0), "beta must lie"),
    (lambda s, b: distill.forward_kl(s, b, tail="none"), "unknown tail"),
    (lambda s, b: distill.forward_kl(s.replace(extras={}), b), "stats.extras\\['logp_BTK'\\]"),
    (lambda s, b: distill.forward_kl_sampled(s, b.replace(extras={})), "teacher_logp_BT"),
    (lambda s, b: distill.reverse_kl_sampled(s, b, level="word"), "unknown level"),
    (lambda s, b: distill.reverse_kl_sampled(s, b, level="sequence", estimator="k1"), "knows"),
    (lambda s, b: distill.reverse_kl_sampled(s, b, estimator="k9"), "unknown KL"),
])
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call(*pc.as32(pc.make(34)))
