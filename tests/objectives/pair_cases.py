"""What the preference, supervised, reward-model and distillation tests share.

A `Case` is an objective with a float64 loop reference and, for every hyperparameter, a value that must
change the result. `CHECKS` are the properties that hold for all of them. Data are 24 rows with holes
in the mask, rows that do not count, one-token responses, and NaN wherever nothing may look.
"""

import dataclasses
import functools
import inspect
import math
import types as pytypes
from collections.abc import Callable

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types

B, T, K, N = 24, 6, 4, 3


@dataclasses.dataclass(frozen=True)
class Case:
  """`flips[name]` is a value, or (value, other hyperparameters it needs to matter)."""

  fn: Callable
  reference: Callable  # (stats, batch, **hyperparameters) -> (total, weight, {metric: number})
  size: int = 1
  flips: dict = dataclasses.field(default_factory=dict)
  hyper: dict = dataclasses.field(default_factory=dict)
  wants: str = "logp"  # which input carries the gradient: logp, value, heads, topk

  @property
  def name(self):
    return self.fn.__name__ + "".join(f"-{k}={v}" for k, v in self.hyper.items())

  def settings(self):
    """The hyperparameters of the base case and of every flip."""
    yield dict(self.hyper)
    for name, flip in self.flips.items():
      value, more = flip if isinstance(flip, tuple) else (flip, {})
      yield {**self.hyper, **more, name: value}


def x64(fn):
  """Runs the test in float64."""
  @functools.wraps(fn)
  def wrapped(*args, **kwargs):
    with jax.enable_x64(True):
      return fn(*args, **kwargs)
  return wrapped


def make(seed: int = 0, size: int = 1, rows: int = B, whole: bool = False):
  """(stats, batch) in float64 numpy; `whole` leaves out rows that do not count."""
  rng = np.random.default_rng(seed)
  mask = (rng.random((rows, T)) < 0.7).astype(np.float64)
  mask[np.arange(rows), rng.integers(0, T, rows)] = 1.0
  mask[1] = mask[-1] = 0.0
  mask[1, 2] = mask[-1, 0] = 1.0  # one-token responses
  valid = np.ones(rows)
  if not whole:
    valid[size] = 0.0  # first row of the second unit
    mask[3 * size - 1] = 0.0  # a row without any token, last of the third unit
  hole = np.where(mask > 0, 0.0, np.nan)
  hole[valid == 0] = np.nan
  logp = -rng.exponential(0.8, (rows, T)) - 0.05
  ids = np.where(rng.random((rows, T, K)) < 0.8, rng.integers(0, 50, (rows, T, K)), -1)
  copy = np.full((rows, T), -1)
  positions = np.full((rows, N), -1)
  for b in range(rows):
    kept = np.flatnonzero(mask[b])
    if len(kept) > 3 and b % 3:
      copy[b, kept[2:]] = kept[:-2]
    for n in range(min(N, len(kept) - (b % 2))):
      positions[b, n] = kept[rng.integers(len(kept))]
  def top_k():
    logits = rng.normal(size=(rows, T, 9))
    return (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[..., :K]
  maybe = lambda x, share: np.where(rng.random(x.shape) < share, x, np.nan)  # noqa: E731
  column = lambda low, high: np.where(valid > 0, rng.uniform(low, high, rows), np.nan)  # noqa: E731
  extras = {
      "p": column(0.1, 0.9), "margin": column(-1, 1), "weight": column(0.2, 2), "z0": column(0, 1),
      "win_rate": column(0, 1), "target": column(-1, 1), "own_wins": rng.integers(0, 2, rows) * 1.0,
      "label": rng.integers(0, 2, rows) * 1.0, "rank": rng.integers(1, 4, rows),
      "rank_BN": rng.integers(1, 3, (rows, N)), "position_BN": positions,
      "label_BD": rng.integers(-1, 2, (rows, 2)),
      "p_BK": maybe(rng.integers(0, 3, (rows, K)) / 2, 0.8),
      "segment_label_BTK": maybe(rng.integers(0, 2, (rows, T, K)) * 1.0, 0.5),
      "negative_BT": (rng.random((rows, T)) < 0.4) * 1.0, "copy_of_BT": copy, "ids_BTK": ids,
      "teacher_logp_BT": logp + rng.normal(size=(rows, T)) * 0.5 + hole,
      "teacher_logp_BTK": np.where(ids >= 0, top_k(), np.nan),
  }
  for b in np.flatnonzero((valid > 0) & (rng.random(rows) < 0.2)):
    extras["p"][b] = 0.5
  batch = types.Batch(
      inputs=None, actions_BT=np.zeros((rows, T), int), mask_BT=mask, behav_logp_BT=logp,
      reward_BT=0 * logp, discount_BT=0 * logp, adv_BT=0 * logp, valid_B=valid,
      group_B=np.arange(rows), ref_logp_BT=logp + rng.normal(size=(rows, T)) + hole, extras=extras)
  stats = types.TokenStats(
      logp_BT=logp + hole, value_BT=rng.normal(size=(rows, T)) + hole,
      extras={"heads_BTK": rng.normal(size=(rows, T, K)) + hole[..., None],
              "logp_BTK": np.where(ids >= 0, top_k(), np.nan)})
  return stats, batch


def cut(tree, index):
  """Rows of (stats, batch), by an index array or a slice."""
  return jax.tree.map(lambda x: np.asarray(x)[index], tree)


def as32(tree):
  return jax.tree.map(lambda x: np.asarray(x, np.float32) if np.asarray(x).dtype.kind == "f"
                      else np.asarray(x, np.int32), tree)


def mean(loss: types.Loss) -> float:
  weight = float(loss.weight)
  return float(loss.total) / (weight if weight > 0 else 1.0)


# --- helpers of the loop references ---------------------------------------------------------------


def nls(u):
  """-log sigmoid(u)."""
  return -math.log(1.0 / (1.0 + math.exp(-u)))


def rows_of(stats, batch):
  """Row by row, as plain lists over unmasked tokens; `ok` says whether the row counts."""
  out = []
  for b in range(len(batch.valid_B)):
    at = [t for t in range(batch.mask_BT.shape[1]) if batch.mask_BT[b, t] > 0 and batch.valid_B[b]]
    pick = lambda x: [x[b, t] for t in at]  # noqa: E731, B023
    row = pytypes.SimpleNamespace(
        ok=bool(at), n=len(at), at=at, lp=pick(stats.logp_BT), ref=pick(batch.ref_logp_BT),
        r=stats.value_BT[b, at[-1]] if at else 0.0,
        heads=stats.extras["heads_BTK"][b, at[-1]] if at else None, b=b,
        x={k: v[b] for k, v in batch.extras.items()})
    row.D = sum(l - r for l, r in zip(row.lp, row.ref))
    row.lbar = sum(row.lp) / max(row.n, 1)
    out.append(row)
  return out


def units_of(stats, batch, size):
  rows = rows_of(stats, batch)
  return [rows[i:i + size] for i in range(0, len(rows), size)]


def pairs_of(stats, batch):
  return [u for u in units_of(stats, batch, 2) if u[0].ok and u[1].ok]


def average(values):
  values = list(values)
  return sum(values) / len(values) if values else 0.0


def step(x):
  """1, 1/2 or 0 as x is positive, zero or negative."""
  return 1.0 if x > 0 else 0.5 if x == 0 else 0.0


def aggregate_rows(per_row, how, constant=None):
  """`nums.aggregate` from lists of per-token losses, as a loop."""
  per_row = [r for r in per_row if r]
  if how == "token-mean":
    return sum(map(sum, per_row)), sum(map(len, per_row))
  if how == "seq-mean-token-mean":
    return sum(sum(r) / len(r) for r in per_row), len(per_row)
  if how == "seq-mean-token-sum":
    return sum(map(sum, per_row)), len(per_row)
  if how == "constant":
    return sum(map(sum, per_row)) / constant, len(per_row)
  return sum(map(sum, per_row)) / constant, 0


# --- checks ---------------------------------------------------------------------------------------


@x64
def reference(case):
  """Sum, weight and every metric agree with the loop, for all settings."""
  for i, hyper in enumerate(case.settings()):
    stats, batch = make(i, case.size)
    loss = case.fn(stats, batch, **hyper)
    total, weight, metrics = case.reference(stats, batch, **hyper)
    assert abs(total) > 1e-3, "the reference sees nothing"
    np.testing.assert_allclose(loss.total, total, rtol=1e-9, err_msg=str(hyper))
    np.testing.assert_allclose(loss.weight, weight, rtol=1e-9, err_msg=str(hyper))
    assert set(loss.metrics) == set(metrics)
    for name, value in metrics.items():
      np.testing.assert_allclose(loss.metrics[name].compute(), value, rtol=1e-9, atol=1e-12,
                                 err_msg=f"{name} {hyper}")


def flips(case):
  """Every hyperparameter has a value that changes the result."""
  stats, batch = as32(make(1, case.size))
  names = [p.name for p in inspect.signature(case.fn).parameters.values()
           if p.kind is p.KEYWORD_ONLY]
  assert set(names) <= set(case.flips), "a hyperparameter without a test that flips it"
  for name in names:
    flip = case.flips[name]
    value, more = flip if isinstance(flip, tuple) else (flip, {})
    base = case.fn(stats, batch, **{**case.hyper, **{k: v for k, v in more.items()
                                                     if k != "constant"}})
    flipped = case.fn(stats, batch, **{**case.hyper, **more, name: value})
    assert abs(mean(base) - mean(flipped)) > 1e-4 * abs(mean(base)), f"{name} is a dead knob"


@x64
def removed(case):
  """Rows that do not count and masked tokens could as well not be there."""
  stats, batch = make(2, case.size)
  whole = case.fn(stats, batch, **case.hyper)
  _same(whole, case.fn(*_without_masked(*make(2, case.size)), **case.hyper))
  counts = (batch.valid_B > 0) & (batch.mask_BT.sum(1) > 0)
  bad = np.flatnonzero(~counts)
  if case.fn.__name__ in ROW_WISE:  # such a unit loses one row, not all
    keep = np.array([not any(b // case.size * case.size == u * case.size for b in bad)
                     for u in range(B // case.size)])
    stats, batch = cut((stats, batch), np.repeat(keep, case.size))
    whole = case.fn(stats, batch, **case.hyper)
    more = make(3, case.size, rows=case.size)
    more = (more[0], more[1].replace(valid_B=0 * more[1].valid_B))
  else:
    more = cut((stats, batch), np.repeat(
        [any(b // case.size == u for b in bad) for u in range(B // case.size)], case.size))
    stats, batch = cut((stats, batch), np.repeat(
        [all(b // case.size != u for b in bad) for u in range(B // case.size)], case.size))
    _same(whole, case.fn(stats, batch, **case.hyper))
  both = jax.tree.map(lambda x, y: np.concatenate([x, y]), (stats, batch), more)
  _same(whole, case.fn(*both, **case.hyper))


ROW_WISE = {"kto", "all_pairs", "listwise", "best_of_n", "difference"}


def _without_masked(stats, batch):
  """Unmasked tokens moved to the left, the rest cut off or NaN."""
  order = np.argsort(batch.mask_BT == 0, axis=1, kind="stable")
  where = np.argsort(order, axis=1)
  def move(x):
    return (np.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1)
            if x.ndim > 1 and x.shape[1] == T else x)
  moved = jax.tree.map(move, (stats, batch))
  extras = dict(moved[1].extras)
  for name in ("position_BN", "copy_of_BT"):
    x = extras[name]
    extras[name] = np.where(x >= 0, np.take_along_axis(where, np.maximum(x, 0), axis=1), -1)
  return moved[0], moved[1].replace(extras=extras)


def _same(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), a, b)


@x64
def padded(case):
  """More positions and more rows of padding change nothing, and get no gradient."""
  stats, batch = make(4, case.size)
  whole = case.fn(stats, batch, **case.hyper)
  def pad(x):
    blank = np.nan if x.dtype.kind == "f" else -1
    if x.ndim > 1 and x.shape[1] == T:
      x = np.concatenate([x, np.full((len(x), 3, *x.shape[2:]), blank, x.dtype)], axis=1)
    return np.concatenate([x, np.full((case.size, *x.shape[1:]), blank, x.dtype)])
  stats, batch = jax.tree.map(pad, (stats, batch))
  batch = batch.replace(mask_BT=np.nan_to_num(batch.mask_BT), valid_B=np.nan_to_num(batch.valid_B))
  _same(whole, case.fn(stats, batch, **case.hyper))
  # compiled once per case, here: what the training step does
  gradient = jax.jit(jax.grad(lambda s: case.fn(s, batch, **case.hyper).total))(stats)
  counted = (batch.mask_BT > 0) & (batch.valid_B > 0)[:, None]
  largest = 0.0
  for g in (gradient.logp_BT, gradient.value_BT, *gradient.extras.values()):
    assert np.isfinite(g).all()
    assert (np.asarray(g)[~counted] == 0).all()
    largest = max(largest, np.abs(g).max())
  assert largest > 0


@x64
def permuted(case):
  """The order of units does not matter."""
  stats, batch = make(5, case.size)
  order = np.random.default_rng(0).permutation(B // case.size)
  rows = (order[:, None] * case.size + np.arange(case.size)).reshape(-1)
  _same(case.fn(stats, batch, **case.hyper),
        case.fn(*cut((stats, batch), rows), **case.hyper))


@x64
def split(case):
  """Any split into equal micro-batches adds up to the whole: sums, weights, metrics."""
  parts = [p for p in (2, 3, 6) if B // p % case.size == 0]

  @hypothesis.settings(max_examples=4, deadline=None, derandomize=True, database=None)
  @hypothesis.given(st.sampled_from(parts), st.integers(0, 10**6))
  def holds(p, seed):
    stats, batch = make(seed, case.size)
    whole = case.fn(stats, batch, **case.hyper)
    some = [case.fn(*cut((stats, batch), slice(i, i + B // p)), **case.hyper)
            for i in range(0, B, B // p)]
    merged = functools.reduce(types.merge_metrics, [s.metrics for s in some])
    _same(whole, types.Loss(sum(s.total for s in some), sum(s.weight for s in some), merged))

  holds()


def extremes(case):
  """Log-ratios of +-80 a token, scores of +-80, identical responses: finite, gradient too."""
  for sign in (-1.0, 0.0, 1.0):
    stats, batch = as32(make(6, case.size))
    shape = np.float32(batch.mask_BT)
    side = np.where(np.arange(B) % 2 == 0, sign, -sign).astype(np.float32)[:, None]
    batch = batch.replace(ref_logp_BT=-40 * shape - 40 * side, extras={
        **batch.extras, "teacher_logp_BT": -40 * shape - 40 * side,
        "teacher_logp_BTK": np.where(np.arange(K) == 0, -1e-6, -80.0) * np.ones((B, T, K))})
    stats = stats.replace(logp_BT=-40 * shape + 40 * side * shape, value_BT=80 * side * shape,
                          extras={"heads_BTK": 80 * side[..., None] * np.ones((B, T, K)),
                                  "logp_BTK": batch.extras["teacher_logp_BTK"][..., ::-1]})
    for b in (batch, batch.replace(mask_BT=0 * shape), batch.replace(valid_B=np.zeros(B))):
      loss, gradient = jax.value_and_grad(
          lambda s, b=b: case.fn(s, b, **case.hyper).total)(as32(stats))
      assert np.isfinite(loss), (sign, loss)
      assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
      if b is not batch:
        assert loss == 0 and case.fn(as32(stats), b, **case.hyper).weight == 0
        assert all((g == 0).all() for g in jax.tree.leaves(gradient))


def needs(case):
  """It declares the reference exactly if it reads it, and says so when there is none."""
  stats, batch = as32(make(7, case.size))
  without = batch.replace(ref_logp_BT=None)
  if types.needs_of(functools.partial(case.fn, **case.hyper)) == {"ref_logp"}:
    with pytest.raises(ValueError, match="ref_logp_BT"):
      case.fn(stats, without, **case.hyper)
  else:
    case.fn(stats, without, **case.hyper)
    assert types.needs_of(case.fn) == set()


def frozen(case):
  """No gradient into what is not the student's: reference, teacher, columns."""
  stats, batch = as32(make(8, case.size))
  floats = {k: v for k, v in batch.extras.items() if v.dtype.kind == "f"}
  def loss(ref, teacher):
    extras = {**batch.extras, **teacher}
    return case.fn(stats, batch.replace(ref_logp_BT=ref, extras=extras), **case.hyper).total
  targets = {k: floats[k] for k in ("teacher_logp_BT", "teacher_logp_BTK", "weight", "z0")}
  gradient = jax.grad(loss, argnums=(0, 1))(jnp.asarray(batch.ref_logp_BT), targets)
  assert all((np.nan_to_num(g) == 0).all() for g in jax.tree.leaves(gradient))


CHECKS = [reference, flips, removed, padded, permuted, split, extremes, needs, frozen]
