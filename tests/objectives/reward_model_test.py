"""Reward-model losses against loops, by hand, and as identities."""

import functools
import itertools
import math

import jax
import numpy as np
import pytest

from rljax.objectives import reward_model
from tests.objectives import pair_cases as pc
from tests.objectives.pair_cases import Case, average, nls, pairs_of, step


def bradley_terry(stats, batch, margin=0.0, soft_label=False, label_smoothing=0.0, centering=0.0,
                  l2=0.0, length=0.0, lm=0.0, weighted=False):
  total, pairs, scores = 0.0, pairs_of(stats, batch), []
  for w, l in pairs:
    rw, rl = w.r - length * math.log(w.n), l.r - length * math.log(l.n)
    u = rw - rl - margin * w.x["margin"]
    p = w.x["p"] if soft_label else 1 - label_smoothing
    loss = p * nls(u) + (1 - p) * nls(-u) + centering * (rw + rl) ** 2 + l2 * (rw**2 + rl**2)
    total += (loss - lm * sum(w.lp) / w.n) * (w.x["weight"] if weighted else 1.0)
    scores.append((rw, rl))
  return total, len(pairs), {
      "rm/accuracy": average(step(a - b) for a, b in scores),
      "rm/margin": average(a - b for a, b in scores),
      "rm/score_chosen": average(a for a, b in scores),
      "rm/score_rejected": average(b for a, b in scores),
      "rm/margin_max": max(abs(a - b) for a, b in scores)}


def multi_head(stats, batch, label_smoothing=0.0):
  total, known, margins, agree = 0.0, 0, [], []
  for w, l in pairs_of(stats, batch):
    for k in range(pc.K):
      p, d = w.x["p_BK"][k], w.heads[k] - l.heads[k]
      if not math.isnan(p):
        s = (1 - label_smoothing) * p + label_smoothing * (1 - p)
        total += s * nls(d) + (1 - s) * nls(-d)
        known += 1
        margins.append(d if p > 0.5 else -d if p < 0.5 else 0.0)
        agree += [] if p == 0.5 else [step(margins[-1])]
  return total, known, {"rm/accuracy": average(agree), "rm/margin": average(margins)}


def lists(stats, batch, size):
  """[(score, rank), ...] of every list, absent responses left out."""
  if size:
    return [[(r.r, r.x["rank"]) for r in u if r.ok] for u in pc.units_of(stats, batch, size)]
  return [[(stats.value_BT[r.b, i], k) for i, k in zip(r.x["position_BN"], r.x["rank_BN"])
           if i >= 0] if r.ok else [] for r in pc.rows_of(stats, batch)]


def all_pairs(stats, batch, size=4, centering=0.0):
  total, n, every = 0.0, 0, []
  for ls in lists(stats, batch, size):
    pairs = [(a, b) for (a, i), (b, j) in itertools.permutations(ls, 2) if i < j]
    if pairs:
      total += average(nls(a - b) + centering * (a + b) ** 2 for a, b in pairs)
      n += 1
      every += pairs
  return total, n, {"rm/accuracy": average(step(a - b) for a, b in every),
                    "rm/margin": average(a - b for a, b in every)}


def best_hit(ls):
  best = max(ls, key=lambda x: x[0])
  return float(best[1] == min(rank for _, rank in ls))


def listwise(stats, batch, size=4, top=0):
  good = [ls for ls in lists(stats, batch, size) if len(ls) >= 2]
  total = -sum(a - math.log(sum(math.exp(b) for b, j in ls if j >= i))
               for ls in good for a, i in ls if not top or i <= top)
  return total, len(good), {"rm/best_accuracy": average(map(best_hit, good))}


def best_of_n(stats, batch, size=4):
  good = [ls for ls in lists(stats, batch, size) if len(ls) >= 2]
  total = 0.0
  for ls in good:
    first = min(rank for _, rank in ls)
    total -= math.log(sum(math.exp(a) for a, i in ls if i == first) /
                      sum(math.exp(a) for a, _ in ls))
  return total, len(good), {"rm/best_accuracy": average(map(best_hit, good))}


def difference(stats, batch, size=4):
  total, n, gaps = 0.0, 0, []
  for ls in lists(stats, batch, size):
    here = [abs(a - b) for (a, _), (b, _) in itertools.combinations(ls, 2)]
    gaps += here
    if len(ls) >= 2:
      total -= 2 / len(ls) ** 2 * sum(1 / (1 + math.exp(-g)) for g in here)
      n += 1
  return total, n, {"rm/difference": average(gaps)}


def bce(stats, batch, positive_weight=1.0):
  good = [r for r in pc.rows_of(stats, batch) if r.ok]
  total = sum(positive_weight * r.x["label"] * nls(r.r) + (1 - r.x["label"]) * nls(-r.r)
              for r in good)
  return total, len(good), {
      "rm/accuracy": average(float((r.r > 0) == (r.x["label"] > 0.5)) for r in good),
      "rm/score": average(r.r for r in good)}


def regression(stats, batch, delta=0.0):
  errors = [r.r - r.x["target"] for r in pc.rows_of(stats, batch) if r.ok]
  def huber(e):
    return 0.5 * e * e if abs(e) <= delta else delta * (abs(e) - delta / 2)
  total = sum(huber(e) if delta else e * e for e in errors)
  return total, len(errors), {"rm/error": average(map(abs, errors)), "rm/bias": average(errors)}


def classify(stats, batch, classes=2):
  total, hits = 0.0, []
  for r in pc.rows_of(stats, batch):
    for d, label in enumerate(r.x["label_BD"]):
      if r.ok and label >= 0:
        logits = r.heads[d * classes:(d + 1) * classes]
        total += math.log(sum(math.exp(z) for z in logits)) - logits[label]
        hits.append(float(np.argmax(logits) == label))
  return total, len(hits), {"rm/accuracy": average(hits)}


def segments(stats, batch, positive_weight=1.0):
  total, seen = 0.0, []
  for r in pc.rows_of(stats, batch):
    for t in r.at:
      for k in range(pc.K):
        y, h = r.x["segment_label_BTK"][t, k], stats.extras["heads_BTK"][r.b, t, k]
        if not math.isnan(y):
          total += positive_weight * y * nls(h) + (1 - y) * nls(-h)
          seen.append((y, float((h > 0) == (y > 0.5))))
  return total, len(seen), {"rm/accuracy": average(hit for _, hit in seen),
                            "rm/recall": average(hit for y, hit in seen if y),
                            "rm/labels_positive": average(y for y, _ in seen)}


def trimmed(fn):
  """As many labelled dimensions as K outputs have room for: 2 of 2 classes, or 1 of 4."""
  @functools.wraps(fn)
  def wrapped(stats, batch, *, classes=2):
    labels = batch.extras["label_BD"][:, :pc.K // classes]
    batch = batch.replace(extras={**batch.extras, "label_BD": labels})
    return fn(stats, batch, classes=classes)
  return wrapped


CASES = [
    Case(reward_model.bradley_terry, bradley_terry, 2, dict(
        margin=0.7, soft_label=True, label_smoothing=0.2, centering=0.3, l2=0.3, length=0.5, lm=0.5,
        weighted=True)),
    Case(reward_model.multi_head, multi_head, 2, dict(label_smoothing=0.2)),
    Case(reward_model.all_pairs, all_pairs, 4, dict(size=2, centering=0.1)),
    Case(reward_model.all_pairs, all_pairs, 1, dict(size=3, centering=0.1), hyper=dict(size=0)),
    Case(reward_model.listwise, listwise, 4, dict(size=2, top=1)),
    Case(reward_model.listwise, listwise, 1, dict(size=3, top=1), hyper=dict(size=0)),
    Case(reward_model.best_of_n, best_of_n, 4, dict(size=2)),
    Case(reward_model.best_of_n, best_of_n, 1, dict(size=3), hyper=dict(size=0)),
    Case(reward_model.difference, difference, 4, dict(size=2)),
    Case(reward_model.bce, bce, 1, dict(positive_weight=3.0)),
    Case(reward_model.regression, regression, 1, dict(delta=0.5)),
    Case(reward_model.segments, segments, 1, dict(positive_weight=3.0)),
    Case(trimmed(reward_model.classify), trimmed(classify), 1, dict(classes=4)),
]


@pc.contract(CASES)
def test_contract(group, check):
  check(group)


def test_true_sizes():
  pc.true_sizes(CASES[4])


def tiny(scores, **extras):
  """One score per row at its last action (an earlier action says something else)."""
  stats, batch = pc.as32(pc.make(0, whole=True))
  n = len(scores)
  mask = np.zeros((pc.B, pc.T), np.float32)
  mask[:n, :3] = 1
  value = np.full((pc.B, pc.T), 55.0, np.float32)
  value[:n, 2] = scores
  full = {}
  for name, x in extras.items():
    full[name] = np.zeros((pc.B, *np.shape(x)[1:]), np.asarray(x).dtype)
    full[name][:n] = x
  return stats.replace(value_BT=value, logp_BT=0 * value - 1), batch.replace(
      mask_BT=mask, extras=full)


LOG3 = math.log(3.0)
BY_HAND = [
    (reward_model.bradley_terry, [LOG3, 0], {}, {}, -math.log(0.75)),
    (reward_model.bradley_terry, [LOG3, 0], dict(margin=2.0), dict(margin=[LOG3, 9.0]),
     -math.log(0.25)),
    (reward_model.bradley_terry, [2, 2], dict(centering=0.1), {}, math.log(2) + 1.6),
    (reward_model.bradley_terry, [2, 2], dict(l2=0.1), {}, math.log(2) + 0.8),
    (reward_model.bradley_terry, [2, 2], dict(lm=0.5), {}, math.log(2) + 0.5),
    (reward_model.bradley_terry, [LOG3, 0], dict(soft_label=True), dict(p=[0.25, 9.0]),
     -0.25 * math.log(0.75) - 0.75 * math.log(0.25)),
    (reward_model.all_pairs, [LOG3, 0, 0, 0], {}, dict(rank=[1, 2, 2, 2]), -math.log(0.75)),
    (reward_model.listwise, [LOG3, 0, 0, 0], dict(top=1), dict(rank=[1, 2, 2, 2]), math.log(2)),
    (reward_model.listwise, [LOG3, 0, LOG3, 0], {}, dict(rank=[1, 2, 3, 4]),
     -math.log(3 / 8) - math.log(1 / 5) - math.log(3 / 4)),
    (reward_model.best_of_n, [LOG3, 0, 0, 0], {}, dict(rank=[1, 2, 2, 2]), math.log(2)),
    (reward_model.best_of_n, [LOG3, 0, 0, 0], {}, dict(rank=[1, 1, 2, 2]), -math.log(4 / 6)),
    (reward_model.difference, [LOG3, 0], dict(size=2), {}, -0.375),
    (reward_model.bce, [LOG3, LOG3], dict(positive_weight=3.0), dict(label=[1.0, 0.0]),
     (-3 * math.log(0.75) - math.log(0.25)) / 2),
    (reward_model.regression, [3, 1], {}, dict(target=[1.0, 1.5]), (4 + 0.25) / 2),
    (reward_model.regression, [3, 1], dict(delta=1.0), dict(target=[1.0, 1.5]),
     (1.5 + 0.125) / 2),
]


@functools.cache
def by_hand():
  data = [tiny(scores, **extras) for _, scores, _, extras, _ in BY_HAND]
  return pc.run(lambda data: [c[0](*d, **c[2]) for c, d in zip(BY_HAND, data)], data)


@pytest.mark.parametrize("i", range(len(BY_HAND)), ids=lambda i: f"{BY_HAND[i][0].__name__}-{i}")
def test_by_hand(i):
  assert pc.mean(by_hand()[i]) == pytest.approx(BY_HAND[i][-1], rel=1e-5)


@pc.x64
def test_identities():
  stats, batch = pc.make(41, 2, whole=True)
  rank = np.tile([1, 2], pc.B // 2)
  batch = batch.replace(extras={**batch.extras, "rank": rank, "p": np.ones(pc.B),
                                "p_BK": np.where(np.arange(pc.K) == 2, 1.0, np.nan) + 0 * rank[
                                    :, None]})
  heads = stats.extras["heads_BTK"].copy()
  heads[..., 2] = stats.value_BT
  stats = stats.replace(extras={"heads_BTK": heads})
  found = pc.run(lambda s, b: {
      "plain": reward_model.bradley_terry(s, b),
      "soft": reward_model.bradley_terry(s, b, soft_label=True),
      "ranking": reward_model.all_pairs(s, b, size=2),
      "listwise": reward_model.listwise(s, b, size=2),
      "top": reward_model.listwise(s, b, size=2, top=1),
      "softmax": reward_model.best_of_n(s, b, size=2),
      "head": reward_model.multi_head(s, b)}, stats, batch)
  for name, loss in found.items():
    np.testing.assert_allclose(loss.total, found["plain"].total, rtol=1e-9, err_msg=name)


@pc.x64
def test_unique_winner_softmax_is_top_one_listwise():
  stats, batch = pc.make(42, 4, whole=True)
  batch = batch.replace(extras={"rank": np.tile([3, 1, 4, 2], pc.B // 4)})
  a, b = pc.run(lambda s, b: (reward_model.best_of_n(s, b), reward_model.listwise(s, b, top=1)),
                stats, batch)
  np.testing.assert_allclose(a.total, b.total, rtol=1e-9)


@pc.x64
def test_shared_row_scores_equal_separate_rows():
  """N responses read at positions of one row, or as N rows with the same scores."""
  stats, batch = pc.make(43, 4, whole=True)
  scores, ranks = np.random.default_rng(0).normal(size=(6, 4)), np.arange(24).reshape(6, 4) % 3
  mask = np.zeros((pc.B, pc.T))
  mask[:, :4] = 1
  value = np.full((pc.B, pc.T), 9.0)
  value[:6, :4] = scores
  positions = np.where(np.arange(pc.B)[:, None] < 6, np.arange(4), -1)
  ranked = np.zeros((pc.B, 4), int)
  ranked[:6] = ranks
  joint = (stats.replace(value_BT=value), batch.replace(
      mask_BT=mask, extras={"position_BN": positions, "rank_BN": ranked}))
  flat = np.full((pc.B, pc.T), 9.0)
  flat[:, 3] = scores.reshape(-1)
  apart = (stats.replace(value_BT=flat), batch.replace(
      mask_BT=mask, extras={"rank": ranks.reshape(-1)}))
  for a, b in pc.run(lambda x, y: [(fn(*x, size=0), fn(*y, size=4)) for fn in (
      reward_model.all_pairs, reward_model.listwise, reward_model.best_of_n)], joint, apart):
    np.testing.assert_allclose((a.total, a.weight), (b.total, b.weight), rtol=1e-9)


def test_scores_are_invariant_to_a_shift_where_they_should_be():
  stats, batch = pc.as32(pc.make(44, 4))
  shifted = stats.replace(value_BT=stats.value_BT + 3)
  *found, centred = pc.run(lambda s, t, b: [
      *((fn(s, b), fn(t, b)) for fn in (
          reward_model.bradley_terry, reward_model.all_pairs, reward_model.listwise,
          reward_model.best_of_n, reward_model.difference)),
      reward_model.bradley_terry(t, b, centering=1.0)], stats, shifted, batch)
  for a, b in found:
    assert pc.mean(a) == pytest.approx(pc.mean(b), rel=1e-4)
  assert pc.mean(centred) > 5


def test_directions():
  """The better response's score goes up, the worse one's down; difference spreads."""
  stats, batch = tiny([0.2, 0.1], rank=[1, 2], label=[1.0, 0.0], target=[1.0, -1.0])
  cases = [(reward_model.bradley_terry, {}), (reward_model.all_pairs, dict(size=2)),
           (reward_model.listwise, dict(size=2)), (reward_model.best_of_n, dict(size=2)),
           (reward_model.difference, dict(size=2)), (reward_model.bce, {}),
           (reward_model.regression, {})]
  gs = pc.run(lambda s, b: [jax.grad(lambda s, f=f, h=h: f(s, b, **h).total)(s).value_BT
                            for f, h in cases], stats, batch)
  for (fn, _), g in zip(cases, gs):
    assert g[0, 2] < 0 < g[1, 2], fn.__name__
    assert np.count_nonzero(g) == 2


def test_identical_scores_have_no_difference_to_learn_from():
  total, g = pc.run(jax.value_and_grad(
      lambda s, b: reward_model.difference(s, b, size=2).total), *tiny([0.5, 0.5]))
  assert (g.value_BT == 0).all()
  assert float(total) == pytest.approx(-0.25)


def test_lone_responses_and_ties_have_no_weight():
  stats, batch = tiny([1.0, 2.0], rank=[1, 1])
  alone = batch.replace(valid_B=np.eye(pc.B, dtype=np.float32)[0])
  fns = (reward_model.all_pairs, reward_model.listwise, reward_model.best_of_n,
         reward_model.difference)
  lone, tied = pc.run(lambda s, a, b: [[fn(s, x, size=2) for fn in fns] for x in (a, b)],
                      stats, alone, batch)
  assert all(float(loss.total) == float(loss.weight) == 0 for loss in lone)
  assert float(tied[0].weight) == 0
  assert float(tied[2].weight) == 1 and pc.mean(tied[2]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("call,message", [
    (lambda s, b: reward_model.bradley_terry(s.replace(value_BT=None), b), "scalar head"),
    (lambda s, b: reward_model.best_of_n(s.replace(value_BT=None), b, size=0), "scalar head"),
    (lambda s, b: reward_model.bradley_terry(s, b, soft_label=True, label_smoothing=0.1), "use"),
    (lambda s, b: reward_model.multi_head(s.replace(extras={}), b), "heads_BTK"),
    (lambda s, b: reward_model.segments(s.replace(extras={}), b), "heads_BTK"),
    (lambda s, b: reward_model.classify(s, b, classes=3), "2 x 3 classes"),
    (lambda s, b: reward_model.difference(s, b, size=1), "two responses"),
    (lambda s, b: reward_model.best_of_n(s, b, size=5), "units of 5"),
    (lambda s, b: reward_model.bce(s, b.replace(extras={})), "extras\\['label'\\]"),
])
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call(*pc.as32(pc.make(45)))
