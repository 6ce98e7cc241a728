"""Preference losses against loops written from the papers' equations, by hand, as identities."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.objectives import preference, rows
from tests.objectives import pair_cases as pc
from tests.objectives.pair_cases import Case, average, nls, pairs_of, step

# --- references: one function per equation --------------------------------------------------------


def pair_metrics(pairs, hs, reference=True):
  m = {"pref/accuracy": average(step(h) for h in hs), "pref/margin": average(hs),
       "pref/length_chosen": average(w.n for w, l in pairs),
       "pref/length_rejected": average(l.n for w, l in pairs),
       "pref/logp_chosen": average(w.lbar for w, l in pairs),
       "pref/logp_rejected": average(l.lbar for w, l in pairs)}
  if reference:
    m |= {"pref/log_ratio_chosen": average(w.D for w, l in pairs),
          "pref/log_ratio_rejected": average(l.D for w, l in pairs),
          "pref/log_ratio_chosen_per_token": average(w.D / w.n for w, l in pairs),
          "pref/log_ratio_max": max(max(abs(w.D), abs(l.D)) for w, l in pairs)}
  return m


def over_pairs(loss_of, h_of=lambda w, l: w.D - l.D, reference=True):
  """A reference from the loss of one pair."""
  def run(stats, batch, **hyper):
    pairs = pairs_of(stats, batch)
    total = sum(loss_of(w, l, **hyper) for w, l in pairs)
    hs = [h_of(w, l) for w, l in pairs]
    return total, len(pairs), pair_metrics(pairs, hs, reference)
  return run


def dpo(stats, batch, beta=0.1, label_smoothing=0.0, soft_label=False, margin=0.0,
        length_norm=False, weighted=False):
  def h(w, l):
    return w.D / w.n - l.D / l.n if length_norm else w.D - l.D
  def loss(w, l):
    u = beta * h(w, l) - margin * w.x["margin"]
    p = w.x["p"] if soft_label else 1 - label_smoothing
    return (p * nls(u) + (1 - p) * nls(-u)) * (w.x["weight"] if weighted else 1.0)
  return over_pairs(loss, h)(stats, batch)


def dpo_nll(w, l, beta=0.1, nll=1.0):
  return nls(beta * (w.D - l.D)) - nll * sum(w.lp) / w.n


def robust(w, l, beta=0.1, label_smoothing=0.1):
  u, e = beta * (w.D - l.D), label_smoothing
  return ((1 - e) * nls(u) - e * nls(-u)) / (1 - 2 * e)


def ipo(stats, batch, beta=0.1, length_norm=False):
  def h(w, l):
    return w.D / w.n - l.D / l.n if length_norm else w.D - l.D
  return over_pairs(lambda w, l: (h(w, l) - 1 / (2 * beta)) ** 2, h)(stats, batch)


def hinge(w, l, beta=0.1, margin=1.0):
  return max(0.0, margin - beta * (w.D - l.D))


def osp(stats, batch, beta=0.1, clip=1e-3):
  def loss(w, l):
    p = min(max(w.x["p"], clip), 1 - clip)
    return p * nls(beta * (w.D - l.D)) + (1 - p) * nls(-beta * (w.D - l.D))
  total, weight, metrics = over_pairs(loss)(stats, batch)
  undecided = average(float(w.x["p"] == 0.5) for w, l in pairs_of(stats, batch))
  return total, weight, metrics | {"pref/undecided": undecided}


def dno(w, l, eta=0.1, scale=1.0):
  q = 1 / (1 + math.exp(-scale * (w.x["win_rate"] - l.x["win_rate"])))
  return q * nls(eta * (w.D - l.D)) + (1 - q) * nls(-eta * (w.D - l.D))


def selm(stats, batch, beta=0.01, alpha=1e-3, floor=None, skip_if_winner=False):
  units = [u for u in pc.units_of(stats, batch, 3) if all(r.ok for r in u)]
  total = 0.0
  for w, l, o in units:
    own = o.D if floor is None else max(o.D, floor)
    keep = 0.0 if skip_if_winner and w.x["own_wins"] else 1.0
    total += nls(beta * (w.D - l.D)) + keep * alpha * beta * own
  metrics = pair_metrics([u[:2] for u in units], [w.D - l.D for w, l, o in units])
  return total, len(units), metrics | {"pref/log_ratio_own": average(o.D for w, l, o in units)}


def ld_dpo(stats, batch, beta=0.1, alpha=0.5):
  pairs = pairs_of(stats, batch)
  for w, l in pairs:
    n = min(w.n, l.n)
    for r in (w, l):
      weights = [1.0] * n + [alpha] * (r.n - n)
      r.D = sum(c * (a - b) for c, a, b in zip(weights, r.lp, r.ref))
      r.lbar = sum(c * a for c, a in zip(weights, r.lp)) / r.n
  total = sum(nls(beta * (w.D - l.D)) for w, l in pairs)
  return total, len(pairs), pair_metrics(pairs, [w.D - l.D for w, l in pairs])


def r_dpo(w, l, beta=0.1, alpha=0.01):
  return nls((beta * w.D + alpha * w.n) - (beta * l.D + alpha * l.n))


def simpo(w, l, beta=2.0, gamma=1.0):
  return nls(beta / w.n * sum(w.lp) - beta / l.n * sum(l.lp) - gamma)


def odds(r):
  p = math.exp(sum(r.lp) / r.n)
  return p / (1 - p)


def orpo(w, l, lam=0.1):
  return -sum(w.lp) / w.n + lam * nls(math.log(odds(w) / odds(l)))


def sppo(stats, batch, beta=1e-3):
  good = [r for r in pc.rows_of(stats, batch) if r.ok]
  losses = [(r.D - 1 / beta * (r.x["win_rate"] - 0.5)) ** 2 for r in good]
  return sum(losses), len(good), {
      "pref/log_ratio_chosen": average(r.D for r in good if r.x["win_rate"] > 0.5),
      "pref/log_ratio_rejected": average(r.D for r in good if r.x["win_rate"] < 0.5),
      "pref/loss_max": max(losses)}


def kto(stats, batch, beta=0.1, desirable=1.0, undesirable=1.0, group=4):
  total, good, z0s = 0.0, [], []
  units = pc.units_of(stats, batch, 2 * group if group else 1)
  for unit in units:
    examples = unit[:group] if group else unit
    z0 = (max(0.0, average(r.D for r in unit[group:] if r.ok)) if group else unit[0].x["z0"])
    for r in examples:
      if r.ok:
        value = 1 / (1 + math.exp(-beta * (r.D - z0)))
        total += desirable * (1 - value) if r.x["label"] else undesirable * value
        good.append(r)
        z0s.append(z0)
  return total, len(good), {
      "pref/log_ratio_chosen": average(r.D for r in good if r.x["label"]),
      "pref/log_ratio_rejected": average(r.D for r in good if not r.x["label"]),
      "pref/desirable": average(r.x["label"] for r in good), "pref/z0": average(z0s)}


CASES = [
    Case(preference.dpo, dpo, 2, dict(
        beta=0.3, label_smoothing=0.2, soft_label=True, margin=0.7, length_norm=True,
        weighted=True)),
    Case(preference.dpo_nll, over_pairs(dpo_nll), 2, dict(beta=0.3, nll=0.5)),
    Case(preference.robust_dpo, over_pairs(robust), 2, dict(beta=0.3, label_smoothing=0.3)),
    Case(preference.ipo, ipo, 2, dict(beta=0.3, length_norm=True)),
    Case(preference.hinge, over_pairs(hinge), 2, dict(beta=0.5, margin=0.2)),
    Case(preference.spin, over_pairs(lambda w, l, beta=0.1: nls(beta * (w.D - l.D))), 2,
         dict(beta=0.3)),
    Case(preference.osp, osp, 2, dict(beta=0.3, clip=0.4)),
    Case(preference.dno, over_pairs(dno), 2, dict(eta=0.3, scale=5.0)),
    Case(preference.selm, selm, 3, dict(
        beta=0.1, alpha=0.1, floor=(0.5, dict(alpha=0.5)), skip_if_winner=(True, dict(alpha=0.5)))),
    Case(preference.ld_dpo, ld_dpo, 2, dict(beta=0.3, alpha=0.1)),
    Case(preference.r_dpo, over_pairs(r_dpo), 2, dict(beta=0.3, alpha=0.2)),
    Case(preference.simpo, over_pairs(simpo, lambda w, l: w.lbar - l.lbar, False), 2,
         dict(beta=5.0, gamma=0.3)),
    Case(preference.orpo, over_pairs(
        orpo, lambda w, l: math.log(odds(w)) - math.log(odds(l)), False), 2, dict(lam=0.5)),
    Case(preference.sppo, sppo, 1, dict(beta=0.5)),
    Case(preference.kto, kto, 8, dict(beta=0.5, desirable=1.3, undesirable=0.5, group=2)),
    Case(preference.kto, kto, 4, dict(
        beta=0.5, desirable=1.3, undesirable=0.5, group=6), hyper=dict(group=2)),
    Case(preference.kto, kto, 1, dict(
        beta=0.5, desirable=1.3, undesirable=0.5, group=4), hyper=dict(group=0)),
]


@pc.contract(CASES)
def test_contract(group, check):
  check(group)


def test_true_sizes():
  for case in CASES[:1] + CASES[-2:-1]:
    pc.true_sizes(case, parts=2)


# --- by hand --------------------------------------------------------------------------------------


def tiny(D, n=1, lp=-1.0, **extras):
  """One token per row (or n equal ones) with given log-ratios; padded to the one shape of all."""
  return pc.as32(pc.pad(exactly(D, n, lp, **extras), n))


def exactly(D, n=1, lp=-1.0, **extras):
  rows_ = len(D)
  logp = np.full((rows_, n), lp, np.float32)
  ref = logp - np.asarray(D, np.float32)[:, None] / n
  zeros = np.zeros_like(logp)
  batch = types.Batch(
      inputs=None, actions_BT=zeros, mask_BT=zeros + 1, behav_logp_BT=zeros, reward_BT=zeros,
      discount_BT=zeros, adv_BT=zeros, valid_B=np.ones(rows_, np.float32),
      group_B=np.zeros(rows_, np.int32), ref_logp_BT=ref,
      extras={k: np.asarray(v, np.float32) for k, v in extras.items()})
  return types.TokenStats(logp_BT=logp), batch


LOG3 = math.log(3.0)  # sg(log 3) = 3/4

BY_HAND = [
    (preference.dpo, [LOG3, 0], dict(beta=1.0), {}, -math.log(0.75)),
    (preference.dpo, [LOG3, 0], dict(beta=1.0, label_smoothing=0.25), {},
     -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
    (preference.dpo, [LOG3, 0], dict(beta=1.0, soft_label=True), dict(p=[0.25, 9]),
     -0.25 * math.log(0.75) - 0.75 * math.log(0.25)),
    (preference.dpo, [LOG3, 0], dict(beta=1.0, margin=2.0), dict(margin=[LOG3, 9]),
     -math.log(0.25)),
    (preference.dpo, [LOG3, 0], dict(beta=1.0, weighted=True), dict(weight=[3, 9]),
     -3 * math.log(0.75)),
    (preference.dpo_nll, [0, 0], dict(nll=2.0), {}, math.log(2) + 2.0),
    (preference.robust_dpo, [LOG3, 0], dict(beta=1.0, label_smoothing=0.25), {},
     (-0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 0.5),
    (preference.ipo, [3, 1], dict(beta=0.25), {}, 0.0),
    (preference.ipo, [3, 1], dict(beta=0.125), {}, 4.0),
    (preference.hinge, [3, 1], dict(beta=0.25), {}, 0.5),
    (preference.hinge, [9, 1], dict(beta=0.25), {}, 0.0),
    (preference.osp, [5, 5], {}, dict(p=[0.3, 9]), math.log(2)),
    (preference.dno, [LOG3, 0], dict(eta=1.0), dict(win_rate=[LOG3, 0]),
     -0.75 * math.log(0.75) - 0.25 * math.log(0.25)),
    (preference.selm, [LOG3, 0, 4], dict(beta=1.0, alpha=0.5), {}, -math.log(0.75) + 2.0),
    (preference.selm, [LOG3, 0, -4], dict(beta=1.0, alpha=0.5, floor=-1.0), {},
     -math.log(0.75) - 0.5),
    (preference.simpo, [7, 7], dict(gamma=LOG3), {}, -math.log(0.25)),
    (preference.sppo, [3, 1], dict(beta=0.25), dict(win_rate=[1, 0.5]), 1.0),
    # the authors' loss of a pair: 1/2 [(D_w - eta (p_w - 1/2))^2 + (D_l - eta (p_l - 1/2))^2]
    (preference.sppo, [3, 1], dict(beta=0.25), dict(win_rate=[0.8, 0.3]),
     0.5 * ((3 - 4 * 0.3) ** 2 + (1 + 4 * 0.2) ** 2)),
    (preference.kto, [0, 0, -5, -9], dict(group=2), dict(label=[1, 0, 0, 0]), 0.5),  # z0 is not < 0
    (preference.kto, [LOG3 + 1, 1 - LOG3, 2, 0], dict(beta=1.0, group=2, desirable=3.0),
     dict(label=[1, 0, 1, 1]), (3 * 0.25 + 0.25) / 2),
    (preference.kto, [LOG3, LOG3], dict(beta=1.0, group=0), dict(label=[1, 0], z0=[0, 2 * LOG3]),
     0.25),
]


@functools.cache
def by_hand():
  data = [tiny(D, **extras) for _, D, _, extras, _ in BY_HAND]
  return pc.run(lambda data: [c[0](*d, **c[2]) for c, d in zip(BY_HAND, data)], data)


@pytest.mark.parametrize("i", range(len(BY_HAND)), ids=lambda i: f"{BY_HAND[i][0].__name__}-{i}")
def test_by_hand(i):
  assert pc.mean(by_hand()[i]) == pytest.approx(BY_HAND[i][-1], rel=1e-5, abs=1e-6)


def test_length_by_hand():
  """Chosen 2 tokens of D = 1 each, rejected 1 token: sums, means, regularised, desensitised."""
  stats, batch = tiny([2, 1], n=2)
  mask = batch.mask_BT.copy()
  mask[1, 0] = 0
  batch = batch.replace(mask_BT=mask)  # h = 2 - 1/2 by sums
  losses = pc.run(lambda s, b: [
      preference.ipo(s, b, beta=0.5), preference.ipo(s, b, beta=0.5, length_norm=True),
      preference.r_dpo(s, b, beta=1.0, alpha=0.5), preference.ld_dpo(s, b, beta=1.0, alpha=0.25),
      preference.ipo(s, b, beta=0.25, length_norm=True)], stats, batch)
  want = [0.25, 0.25, pc.nls(1.5 + 0.5), pc.nls(0.75), 2.25]  # means: (1 - 1/2 - 1)^2, (1/2 - 2)^2
  assert [pc.mean(x) for x in losses] == pytest.approx(want, rel=1e-6)


def test_metrics_by_hand():
  loss = pc.run(preference.dpo, *tiny([2, 3, 1, 1, 5, 1]))
  m = {k: float(v.compute()) for k, v in loss.metrics.items()}
  assert m["pref/accuracy"] == pytest.approx(0.5)  # lost, tied, won
  assert m["pref/margin"] == pytest.approx(1.0)
  assert m["pref/log_ratio_chosen"] == pytest.approx(8 / 3)
  assert m["pref/log_ratio_max"] == pytest.approx(5.0)


# --- identities -----------------------------------------------------------------------------------


ones = np.ones(pc.B)
dpo_ = preference.dpo
SAME = [  # (loss, hyperparameters), the same of another, columns
    (dpo_, dict(soft_label=True), dpo_, {}, dict(p=ones)),
    (dpo_, dict(soft_label=True), dpo_, dict(label_smoothing=0.2), dict(p=0.8 * ones)),
    (preference.osp, {}, dpo_, dict(label_smoothing=1e-3), dict(p=ones)),
    (preference.dno, dict(eta=0.2), dpo_, dict(beta=0.2, label_smoothing=0.5),
     dict(win_rate=ones)),
    (dpo_, dict(weighted=True), dpo_, {}, dict(weight=ones)),
    (dpo_, dict(margin=1.0), dpo_, {}, dict(margin=0 * ones)),
    (preference.robust_dpo, dict(label_smoothing=0.0), dpo_, {}, {}),
    (preference.spin, {}, dpo_, {}, {}),
    (preference.dpo_nll, dict(nll=0.0), dpo_, {}, {}),
    (preference.ld_dpo, dict(alpha=1.0), dpo_, {}, {}),
    (preference.r_dpo, dict(alpha=0.0), dpo_, {}, {}),
    # SimPO is length-normalised DPO without a reference
    (preference.simpo, dict(gamma=0.7), dpo_, dict(beta=2.0, length_norm=True, margin=1.0),
     dict(margin=0.7 * ones, blank=True)),
]


@pc.x64
def test_losses_that_meet():
  stats, batch = pc.make(11, 2)
  def both(stats, batch):
    for fn, hyper, other, other_hyper, columns in SAME:
      b = batch.replace(extras={**batch.extras, **columns})
      if "blank" in columns:
        b = b.replace(ref_logp_BT=0 * b.ref_logp_BT)
      yield fn(stats, b, **hyper).total, other(stats, b, **other_hyper).total
  for case, (a, b) in zip(SAME, pc.run(lambda *data: list(both(*data)), stats, batch)):
    np.testing.assert_allclose(a, b, rtol=1e-9, err_msg=f"{case[0].__name__} {case[1]}")


def test_robust_is_unbiased_for_flipped_labels():
  """(1 - e) loss + e flipped loss = DPO, for any e."""
  stats, batch = pc.as32(pc.make(3, 2, whole=True))
  other = pc.cut((stats, batch), np.arange(pc.B).reshape(-1, 2)[:, ::-1].reshape(-1))
  robust_ = functools.partial(preference.robust_dpo, label_smoothing=0.3)
  right, wrong, plain = pc.run(lambda a, b: (robust_(*a), robust_(*b), preference.dpo(*a)),
                               (stats, batch), other)
  assert 0.7 * pc.mean(right) + 0.3 * pc.mean(wrong) == pytest.approx(pc.mean(plain), rel=1e-5)


@pc.x64
def test_selm_without_optimism_is_dpo():
  stats, batch = pc.make(4, 3, whole=True)
  pair = pc.pad(pc.cut((stats, batch), np.arange(pc.B) % 3 < 2), pc.T)
  a, b = pc.run(lambda data, pair: (preference.selm(*data, beta=0.1, alpha=0.0),
                                    preference.dpo(*pair)), (stats, batch), pair)
  np.testing.assert_allclose(a.total, b.total, rtol=1e-9)


@pc.x64
def test_small_beta_ipo_and_dpo_have_one_gradient():
  """beta -> 0: dDPO/dlogp = -beta/2 sign, dIPO/dlogp = -1/beta sign."""
  a, b = pc.run(lambda s, b: [
      jax.grad(lambda s, fn=fn: fn(s, b, beta=1e-6).total)(s).logp_BT
      for fn in (preference.dpo, preference.ipo)], *pc.make(0, 2, whole=True))
  np.testing.assert_allclose(b / -1e6, a / -0.5e-6, atol=1e-4)
  assert set(np.unique(np.round(a / -0.5e-6, 4))) == {-1.0, 0.0, 1.0}


def test_preferring_the_other_response_negates_the_pull():
  """Symmetric soft labels: swapping the pair and its label changes nothing."""
  stats, batch = pc.as32(pc.make(6, 2, whole=True))
  p = np.float32(np.linspace(0.1, 0.9, pc.B // 2).repeat(2))
  swap = np.arange(pc.B).reshape(-1, 2)[:, ::-1].reshape(-1)
  there = (stats, batch.replace(extras={**batch.extras, "p": p}))
  back = pc.cut((stats, batch.replace(extras={**batch.extras, "p": 1 - p})), swap)
  for a, b in pc.run(lambda x, y: [(fn(*x), fn(*y)) for fn in (
      preference.osp, preference.dno, functools.partial(preference.dpo, soft_label=True))],
                     there, back):
    assert pc.mean(a) == pytest.approx(pc.mean(b), rel=1e-5)


def slopes(fn, data, **hyper):
  return np.asarray(pc.run(lambda s, b: jax.grad(lambda s: fn(s, b, **hyper).total)(s).logp_BT,
                           *data))


def test_osp_target_is_the_logit_of_p():
  p = 0.8
  g = slopes(preference.osp, tiny([math.log(p / (1 - p)), 0], p=[p, p]), beta=1.0)
  np.testing.assert_allclose(g, 0, atol=1e-6)


# --- what must be stopped, refused, or stay exact -------------------------------------------------


@pc.x64
def test_kto_mismatched_rows_have_no_gradient():
  stats, batch = pc.make(7, 4, whole=True)
  shifted = batch.replace(ref_logp_BT=batch.ref_logp_BT - np.tile([0, 0, 1, 1], 6)[:, None])
  grad = jax.value_and_grad(lambda s, b: preference.kto(s, b, group=2).total)
  (total, g), (moved, _) = pc.run(lambda s, a, b: (grad(s, a), grad(s, b)), stats, batch, shifted)
  g = np.asarray(g.logp_BT).reshape(-1, 4, pc.T)
  assert (g[:, 2:] == 0).all() and np.abs(g[:, :2]).max() > 0
  assert float(total) != pytest.approx(float(moved))


def test_selm_floor_stops_the_gradient_but_not_the_pair():
  data = tiny([1, 0, -30])
  g = slopes(preference.selm, data, floor=-20.0)
  assert g[2, 0] == 0 and g[0, 0] < 0 < g[1, 0]
  assert slopes(preference.selm, data)[2, 0] == pytest.approx(1e-3 * 0.01, rel=1e-5)


def test_chosen_goes_up_and_rejected_down():
  stats, batch = tiny([0.1, 0.2], n=2, p=[0.9, 0], win_rate=[0.9, 0.1], label=[1, 0], z0=[0, 0])
  stats = stats.replace(logp_BT=stats.logp_BT - 0.3)
  cases = [(preference.dpo, {}), (preference.dpo_nll, {}), (preference.robust_dpo, {}),
           (preference.ipo, {}), (preference.hinge, {}), (preference.spin, {}),
           (preference.osp, {}), (preference.dno, dict(scale=5.0)), (preference.simpo, {}),
           (preference.orpo, {}), (preference.ld_dpo, {}), (preference.r_dpo, {}),
           (preference.sppo, {}), (preference.kto, dict(group=0))]
  gs = pc.run(lambda s, b: [jax.grad(lambda s, f=f, h=h: f(s, b, **h).total)(s).logp_BT
                            for f, h in cases], stats, batch)
  for (fn, _), g in zip(cases, gs):
    assert (g[0, :2] < 0).all() and (g[1, :2] > 0).all(), fn.__name__


def test_log_odds_keeps_its_digits():
  xs = [-1e-5, -1e-3, -0.5, -0.6931, -0.6932, -3.0, -50.0, 0.0, 1e-9, -1e4]
  values, grads = pc.run(jax.vmap(jax.value_and_grad(preference.log_odds)), jnp.float32(xs))
  for x, value, slope in list(zip(xs, values, grads))[:7]:
    assert float(value) == pytest.approx(x - math.log(-math.expm1(x)), rel=1e-5, abs=1e-6)
    assert float(slope) == pytest.approx(1 / -math.expm1(x), rel=1e-3)
  assert np.isfinite(values).all() and np.isfinite(grads).all()
  # at the clip: log(p / (1 - p)) for 1 - p = 1e-6
  assert float(values[7]) == float(values[8]) == pytest.approx(math.log(1e6), rel=1e-3)
  assert float(values[9]) == -1e4


def test_sums_of_long_responses_keep_small_ratios():
  """4096 tokens of logp -3 with D = 1e-3 in total: differences before sums."""
  stats, batch = exactly([1e-3, 0], n=4096, lp=-3.0)
  ref = stats.logp_BT - np.float32([[1e-3 / 4096], [0]])
  loss = pc.run(preference.dpo, stats, batch.replace(ref_logp_BT=ref))
  h = loss.metrics["pref/margin"].compute()
  exact = float(np.float64(stats.logp_BT - ref).sum(1) @ [1, -1])
  assert float(h) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("call,message", [
    (lambda s, b: preference.robust_dpo(s, b, label_smoothing=0.5), "label_smoothing"),
    (lambda s, b: preference.robust_dpo(s, b, label_smoothing=-0.1), "label_smoothing"),
    (lambda s, b: preference.dpo(s, b, soft_label=True, label_smoothing=0.1), "use one"),
    (lambda s, b: preference.dpo(s, b, soft_label=True), "extras\\['p'\\]"),
    (lambda s, b: preference.kto(s, b, group=1), "two examples"),
    (lambda s, b: preference.kto(s, b, group=-1), "two examples"),
    (lambda s, b: preference.kto(s, b.replace(extras={"label": b.valid_B}), group=2), "units of 4"),
    (lambda s, b: preference.selm(s, b), "units of 3"),
    (lambda s, b: rows.units(b.valid_B, 0), "units of 0"),
    (lambda s, b: rows.units(b.valid_B, -1), "units of -1"),
])
def test_refusals(call, message):
  with pytest.raises(ValueError, match=message):
    call(*exactly([1, 0]))


# --- the row view ---------------------------------------------------------------------------------


def test_take_and_add_are_exact_under_any_split():
  """Pair loss on rows 0, 1 of units of 4 plus half of another loss on rows 2, 3."""
  def both(stats, batch):
    first = preference.dpo(*rows.take(stats, batch, size=4, at=(0, 1)))
    other = preference.sppo(*rows.take(stats, batch, size=4, at=(3, 2)), beta=1.0)
    return rows.add(first, other, coefficient=0.5, per=2.0), first, other
  stats, batch = pc.as32(pc.make(9, 4))
  stats = stats.replace(extras={}, value_BT=None)
  keep = {"win_rate": batch.extras["win_rate"]}
  data = (stats, batch.replace(extras=keep))
  halves = [pc.cut(data, slice(i, i + 12)) for i in (0, 12)]
  (loss, first, other), *halves = pc.run(lambda x: [both(*d) for d in x], [data, *halves])
  assert float(first.weight) == 4 and float(other.weight) == 8  # two of six units are not whole
  assert pc.mean(loss) == pytest.approx(pc.mean(first) + 0.5 * pc.mean(other), rel=1e-5)
  assert sum(float(h[0].total) for h in halves) == pytest.approx(float(loss.total), rel=1e-5)
  assert set(loss.metrics) == set(first.metrics) | set(other.metrics)
