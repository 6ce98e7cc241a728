"""Supervised losses against loops, by hand, and as identities."""

import functools
import math

import jax
import numpy as np
import pytest

from rljax.objectives import supervised
from tests.objectives import pair_cases as pc
from tests.objectives.pair_cases import Case, aggregate_rows, average


def sft(stats, batch, aggregation="token-mean", constant=None):
  losses = [[-x for x in r.lp] for r in pc.rows_of(stats, batch)]
  total, weight = aggregate_rows(losses, aggregation, constant)
  return total, weight, {"sft/nll": average(x for r in losses for x in r)}


def weighted(stats, batch, aggregation="seq-mean-token-mean", constant=None, normalise="count"):
  good = [r for r in pc.rows_of(stats, batch) if r.ok]
  w = [r.x["weight"] for r in good]
  total, weight = aggregate_rows([[-x * r.x["weight"] for x in r.lp] for r in good], aggregation,
                                 constant)
  if normalise == "weight":
    weight = sum(a * (r.n if aggregation == "token-mean" else 1) for a, r in zip(w, good))
  return total, weight, {"sft/nll": average(-x for r in good for x in r.lp),
                         "sft/weight": average(w)}


def unlikelihood(stats, batch, alpha=1.0, candidates=False, aggregation="token-mean",
                 constant=None):
  losses, nlls, unlikely = [], [], []
  for r in pc.rows_of(stats, batch):
    losses.append([])
    for t, lp in zip(r.at, r.lp):
      if candidates:
        marked = [k for k in range(pc.K) if r.x["ids_BTK"][t, k] >= 0]
        u = -sum(math.log(1 - math.exp(stats.extras["logp_BTK"][r.b, t, k])) for k in marked)
        losses[-1].append(-lp + alpha * u)
      else:
        marked = r.x["negative_BT"][t]
        u = -math.log(1 - math.exp(lp))
        losses[-1].append(alpha * u if marked else -lp)
      nlls.append(-lp)
      unlikely += [u] if marked else []
  total, weight = aggregate_rows(losses, aggregation, constant)
  return total, weight, {"sft/nll": average(nlls), "sft/unlikelihood": average(unlikely)}


def ditto(stats, batch, gamma=0.5, form="log"):
  losses, nlls, ps = [], [], []
  count = 0
  for r in pc.rows_of(stats, batch):
    copies = [t for t in r.at if r.x["copy_of_BT"][t] >= 0]
    for t in r.at:
      if not copies:
        nlls.append(-stats.logp_BT[r.b, t])
      elif t in copies:
        p = math.exp(stats.logp_BT[r.b, t])
        target = gamma * math.exp(stats.logp_BT[r.b, r.x["copy_of_BT"][t]])
        losses.append({"log": -math.log(1 - abs(p - target)), "mse": 3 * (p - target) ** 2,
                       "log-above": -math.log(1 - max(p - target, 0.0))}[form])
        ps.append(p)
    count += len(copies) if copies else r.n
  return sum(losses) + sum(nlls), count, {
      "sft/nll": average(nlls), "sft/ditto": average(losses), "sft/repeat_p": average(ps)}


AGGREGATION = dict(aggregation="seq-mean-token-sum",
                   constant=(7.0, dict(aggregation="token-sum-constant")))
CASES = [
    Case(supervised.sft, sft, 1, dict(
        aggregation="seq-mean-token-mean", constant=(7.0, dict(aggregation="constant")))),
    Case(supervised.weighted_sft, weighted, 1, dict(AGGREGATION, normalise="weight")),
    Case(supervised.weighted_sft, weighted, 1, dict(
        aggregation="seq-mean-token-sum", normalise="count",
        constant=(7.0, dict(aggregation="constant"))),
        hyper=dict(normalise="weight", aggregation="token-mean")),
    Case(supervised.unlikelihood, unlikelihood, 1, dict(AGGREGATION, alpha=0.3, candidates=True)),
    Case(supervised.unlikelihood, unlikelihood, 1, dict(
        aggregation="seq-mean-token-mean", constant=(7.0, dict(aggregation="constant")), alpha=0.3,
        candidates=False), hyper=dict(candidates=True)),
    Case(supervised.ditto, ditto, 1, dict(gamma=0.9, form="mse")),
    Case(supervised.ditto, ditto, 1, dict(gamma=0.9, form="log"), hyper=dict(form="log-above")),
]


@pc.contract(CASES)
def test_contract(group, check):
  check(group)


def tiny(probabilities, **extras):
  """Rows of given token probabilities, padded to the one shape of all."""
  stats, batch = pc.as32(pc.make(0, whole=True))
  rows, length = np.shape(probabilities)
  mask = np.zeros((pc.B, pc.T), np.float32)
  mask[:rows, :length] = 1
  logp = np.full((pc.B, pc.T), np.nan, np.float32)
  logp[:rows, :length] = np.log(probabilities)
  full = {}
  for name, x in extras.items():
    full[name] = np.full((pc.B, *((pc.T,) * (np.ndim(x) - 1))), -1, np.float32)
    full[name][tuple(slice(0, n) for n in np.shape(x))] = x
  if "copy_of_BT" in full:
    full["copy_of_BT"] = full["copy_of_BT"].astype(np.int32)
  return stats.replace(logp_BT=logp), batch.replace(mask_BT=mask, extras={**batch.extras, **full})


LOG2 = math.log(2)


def test_by_hand():
  data = tiny([[0.5, 0.25]], weight=[3.0])
  plain, by_count, by_weight = pc.run(lambda s, b: (
      supervised.sft(s, b), supervised.weighted_sft(s, b),
      supervised.weighted_sft(s, b, normalise="weight")), *data)
  assert pc.mean(plain) == pytest.approx(1.5 * LOG2, rel=1e-6)
  assert pc.mean(by_count) == pytest.approx(4.5 * LOG2, rel=1e-6)
  assert pc.mean(by_weight) == pytest.approx(1.5 * LOG2, rel=1e-6)


def test_unlikelihood_by_hand():
  """p = 1/2 once wanted, once not, and p = 3/4 unwanted: (log 2 + alpha (log 2 + 2 log 2)) / 3."""
  data = tiny([[0.5, 0.5, 0.75]], negative_BT=[[0, 1, 1]])
  loss = pc.run(functools.partial(supervised.unlikelihood, alpha=0.5), *data)
  assert pc.mean(loss) == pytest.approx((LOG2 + 0.5 * 3 * LOG2) / 3, rel=1e-6)


def dittos(*data, **hyper):
  """{form: (gradient, loss)}."""
  def of(form):
    def fn(s, b):
      loss = supervised.ditto(s, b, form=form, **hyper)
      return loss.total, loss
    return jax.grad(fn, has_aux=True)
  return pc.run(lambda s, b: {f: of(f)(s, b) for f in supervised.DITTO_FORMS}, *data)


def test_ditto_by_hand():
  """One sentence (p = 0.5, 0.8) said twice with p = 0.75, 0.4; gamma 1/2: gaps 1/2 and 0."""
  found = dittos(*tiny([[0.5, 0.8, 0.75, 0.4]], copy_of_BT=[[-1, -1, 0, 1]]))
  assert pc.mean(found["log"][1]) == pytest.approx(LOG2 / 2, rel=1e-5)
  assert float(found["log"][1].weight) == 2
  assert pc.mean(found["mse"][1]) == pytest.approx(3 * 0.25 / 2, rel=1e-5)
  below = dittos(*tiny([[0.8, 0.1]], copy_of_BT=[[-1, 0]]))  # target 0.4, below it
  assert pc.mean(below["log"][1]) == pytest.approx(-math.log(0.7), rel=1e-5)
  assert pc.mean(below["log-above"][1]) == pytest.approx(0, abs=1e-6)


def test_ditto_does_not_move_its_target_and_reads_a_masked_first_copy():
  stats, batch = tiny([[0.5, 0.8, 0.75, 0.3]], copy_of_BT=[[-1, -1, 0, 1]])
  mask = batch.mask_BT.copy()
  mask[0, :2] = 0
  whole, masked = dittos(stats, batch), dittos(stats, batch.replace(mask_BT=mask))
  for form, (g, loss) in whole.items():
    assert (g.logp_BT[0, :2] == 0).all() and g.logp_BT[0, 2] > 0, form
    assert pc.mean(masked[form][1]) == pytest.approx(pc.mean(loss), rel=1e-6)


@pc.x64
def test_identities():
  stats, batch = pc.make(21)
  ones, zeros = np.ones(pc.B), np.zeros((pc.B, pc.T))
  hows = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum")
  keep = np.arange(pc.B) % 3 == 0
  def pairs(stats, batch):
    def having(**columns):
      return batch.replace(extras={**batch.extras, **columns})
    for how in hows:
      plain = supervised.sft(stats, batch, aggregation=how)
      yield plain, supervised.weighted_sft(stats, having(weight=ones), aggregation=how)
      scaled = supervised.weighted_sft(stats, having(weight=5 * ones), aggregation=how,
                                       normalise="weight")
      yield plain, scaled.replace(total=scaled.total / 5, weight=scaled.weight / 5)
      # RAFT: weights of 0 and 1 are a selection
      kept = supervised.sft(stats, batch.replace(valid_B=batch.valid_B * keep), aggregation=how)
      yield kept, supervised.weighted_sft(stats, having(weight=keep * 1.0), aggregation=how,
                                          normalise="weight")
    plain = supervised.sft(stats, batch)
    yield plain, supervised.unlikelihood(stats, having(negative_BT=zeros))
    yield plain, supervised.unlikelihood(stats, batch, alpha=0.0, candidates=True)
    yield plain, supervised.ditto(stats, having(copy_of_BT=zeros.astype(int) - 1))
  for i, (a, b) in enumerate(pc.run(lambda *data: list(pairs(*data)), stats, batch)):
    np.testing.assert_allclose((a.total, a.weight), (b.total, b.weight), rtol=1e-9, err_msg=str(i))


def test_unlikelihood_of_a_certain_token_is_finite():
  data = tiny([[1.0, 0.5]], negative_BT=[[1, 0]])
  total, g = pc.run(jax.value_and_grad(lambda s, b: supervised.unlikelihood(s, b).total), *data)
  assert float(total) == pytest.approx(-math.log(1e-7) + LOG2, rel=1e-4)
  assert np.isfinite(g.logp_BT).all() and g.logp_BT[0, 0] == 0


def test_ditto_at_the_ends_of_probability():
  found = dittos(*tiny([[1e-30, 1.0, 1.0, 1e-30]], copy_of_BT=[[-1, -1, 0, 1]]), gamma=1.0)
  for form, (g, loss) in found.items():
    assert np.isfinite(loss.total) and np.isfinite(g.logp_BT).all(), form
  assert pc.mean(found["log-above"][1]) == pytest.approx(-math.log(1e-20) / 2, rel=1e-3)


@pytest.mark.parametrize("call,message", [
    (lambda s, b: supervised.sft(s, b, aggregation="mean"), "unknown aggregation"),
    (lambda s, b: supervised.sft(s, b, constant=3.0), "do not go together"),
    (lambda s, b: supervised.weighted_sft(s, b, normalise="sum"), "one of count, weight"),
    (lambda s, b: supervised.weighted_sft(
        s, b, normalise="weight", aggregation="token-sum-constant", constant=1.0), "does not go"),
    (lambda s, b: supervised.weighted_sft(s, b.replace(extras={})), "extras\\['weight'\\]"),
    (lambda s, b: supervised.unlikelihood(s, b.replace(extras={})), "negative_BT"),
    (lambda s, b: supervised.ditto(s, b, form="l1"), "unknown form"),
])
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call(*tiny([[0.5]]))
