"""What the preference, supervised, reward-model and distillation tests share.

A `Case` is an objective with a float64 loop reference and, for every hyperparameter, a value that
must change the result. `CHECKS` are the properties that hold for all of them; each runs on a
`Group`, the cases of one module whose units have one size. Data are 24 rows with holes in the mask,
rows that do not count, one-token responses, and NaN wherever nothing may look. Compiling is what
costs time here: a group compiles three functions (all settings; gradients; gradients in float32).
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


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """`flips[name]` is a value, or (value, other hyperparameters it needs to matter)."""

  fn: Callable
  reference: Callable  # (stats, batch, **hyperparameters) -> (total, weight, {metric: number})
  size: int = 1
  flips: dict = dataclasses.field(default_factory=dict)
  hyper: dict = dataclasses.field(default_factory=dict)

  @property
  def name(self):
    return self.fn.__name__ + "".join(f"-{k}={v}" for k, v in self.hyper.items())

  def flip(self, name):
    """(hyperparameters with the flip, those without)."""
    flip = self.flips[name]
    value, more = flip if isinstance(flip, tuple) else (flip, {})
    without = {**self.hyper, **more}
    if name == "constant":  # it must be given: compare two values
      without[name] = 2 * value
    return {**self.hyper, **more, name: value}, without


class Group:
  """Cases of one unit size, compiled together."""

  def __init__(self, cases):
    self.cases, self.size = cases, cases[0].size
    self.settings = jax.jit(self._settings)
    self.gradients = jax.jit(self._gradients)

  def __repr__(self):
    return f"units-of-{self.size}"

  def _settings(self, stats, batch):
    return {c.name: {"": c.fn(stats, batch, **c.hyper),
                     **{f: c.fn(stats, batch, **c.flip(f)[0]) for f in c.flips}}
            for c in self.cases}

  def base(self, stats, batch):
    return {name: losses[""] for name, losses in self.settings(stats, batch).items()}

  def _gradients(self, stats, batch):
    """{name: ((d stats, d reference, d columns), loss)}."""
    fixed = {k: v for k, v in batch.extras.items() if jnp.issubdtype(v.dtype, jnp.floating)}
    def of(case):
      def fn(stats, ref_BT, fixed):
        extras = {**batch.extras, **fixed}
        loss = case.fn(stats, batch.replace(ref_logp_BT=ref_BT, extras=extras), **case.hyper)
        return loss.total, loss
      return jax.grad(fn, argnums=(0, 1, 2), has_aux=True)(stats, batch.ref_logp_BT, fixed)
    return {c.name: of(c) for c in self.cases}


def groups(cases):
  assert len({c.name for c in cases}) == len(cases)
  return [Group([c for c in cases if c.size == size]) for size in sorted({c.size for c in cases})]


def run(fn, *args):
  """`fn(*args)` as one compiled program."""
  return jax.jit(fn)(*args)


def x64(fn):
  """Runs the test in float64."""
  @functools.wraps(fn)
  def wrapped(*args, **kwargs):
    with jax.enable_x64(True):
      return fn(*args, **kwargs)
  return wrapped


def make(seed: int = 0, size: int = 1, rows: int = B, length: int = T, whole: bool = False):
  """(stats, batch) in float64 numpy; `whole` leaves out rows that do not count."""
  T = length
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
def reference(group):
  """Sum, weight and every metric agree with the loop, for the base and for every flip."""
  for seed in (1, 9):  # two, lest a metric agree by chance
    stats, batch = make(seed, group.size)
    found = group.settings(stats, batch)
    for case in group.cases:
      _agree(found[case.name][""], case.reference(stats, batch, **case.hyper), case.name)
      for name in case.flips:
        wanted = case.reference(stats, batch, **case.flip(name)[0])
        _agree(found[case.name][name], wanted, f"{case.name}, {name}")


def _agree(loss, wanted, where):
  total, weight, metrics = wanted
  assert abs(total) > 1e-3, "the reference sees nothing"
  np.testing.assert_allclose((loss.total, loss.weight), (total, weight), rtol=1e-9, err_msg=where)
  assert set(loss.metrics) == set(metrics), where
  for name, value in metrics.items():
    np.testing.assert_allclose(loss.metrics[name].compute(), value, rtol=1e-9, atol=1e-12,
                               err_msg=f"{where}, {name}")


@x64
def flips(group):
  """Every hyperparameter has a value that changes the result."""
  stats, batch = make(1, group.size)
  found = group.settings(stats, batch)
  for case in group.cases:
    names = {p.name for p in inspect.signature(case.fn).parameters.values()
             if p.kind is p.KEYWORD_ONLY}
    assert names == set(case.flips), "a hyperparameter without a test that flips it, or a stale one"
    for name in names:
      total, weight, _ = case.reference(stats, batch, **case.flip(name)[1])
      before, after = total / (weight or 1.0), mean(found[case.name][name])
      assert abs(after - before) > 1e-4 * abs(before), f"{case.name}: {name} is a dead knob"


@x64
def removed(group):
  """Masked tokens could as well not be there; what stands in rows that do not count is noise."""
  stats, batch = make(2, group.size)
  whole = group.base(stats, batch)
  _same(whole, group.base(*_without_masked(stats, batch)))
  other_stats, other = make(3, group.size)
  def keep(x, y):
    return np.where((batch.valid_B > 0).reshape(-1, *[1] * (x.ndim - 1)), x, y)
  other = other.replace(valid_B=batch.valid_B)
  _same(whole, group.base(*jax.tree.map(keep, (stats, batch), (other_stats, other))))


def _without_masked(stats, batch):
  """Unmasked tokens moved to the left."""
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
  jax.tree.map_with_path(lambda path, x, y: np.testing.assert_allclose(
      x, y, rtol=1e-9, atol=1e-9, err_msg=jax.tree_util.keystr(path)), a, b)


def pad(tree, length):
  """To B rows of T positions: NaN, mask 0, valid 0. `length` is the number of positions so far."""
  def grow(x):
    x = np.asarray(x)
    blank = np.nan if x.dtype.kind == "f" else -1
    if x.ndim > 1 and x.shape[1] == length:
      x = np.concatenate([x, np.full((len(x), T - length, *x.shape[2:]), blank, x.dtype)], axis=1)
    return np.concatenate([x, np.full((B - len(x), *x.shape[1:]), blank, x.dtype)])
  stats, batch = jax.tree.map(grow, tree)
  return stats, batch.replace(mask_BT=np.nan_to_num(batch.mask_BT),
                              valid_B=np.nan_to_num(batch.valid_B))


@x64
def padded(group):
  """Positions and rows of padding change nothing (against the loop, which has none).

  No gradient flows into padding, nor into what is not the student's: reference, teacher, columns.
  """
  small = make(4, group.size, rows=B // 2 if group.size < 8 else B, length=T - 1)
  stats, batch = pad(small, T - 1)
  counted = (batch.mask_BT > 0) & (batch.valid_B > 0)[:, None]
  found = group.gradients(stats, batch)
  for case in group.cases:
    (student, *others), loss = found[case.name]
    total, weight, _ = case.reference(*small, **case.hyper)
    np.testing.assert_allclose((loss.total, loss.weight), (total, weight), rtol=1e-9,
                               err_msg=case.name)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(others)), case.name
    largest = 0.0
    for g in (student.logp_BT, student.value_BT, *student.extras.values()):
      g = np.asarray(g)
      assert np.isfinite(g).all() and (g[~counted] == 0).all(), case.name
      largest = max(largest, np.abs(g).max())
    assert largest > 0, case.name


@x64
def permuted(group):
  """The order of units does not matter."""
  stats, batch = make(5, group.size)
  order = np.random.default_rng(0).permutation(B // group.size)
  rows = (order[:, None] * group.size + np.arange(group.size)).reshape(-1)
  _same(group.base(stats, batch), group.base(*cut((stats, batch), rows)))


@x64
def split(group):
  """Any split into contiguous micro-batches of whole units adds up: sums, weights, metrics.

  A micro-batch is padded to B rows, so that nothing compiles twice; `padded` and `true_sizes` cover
  what that hides.
  """
  @hypothesis.settings(max_examples=8, deadline=None, derandomize=True, database=None)
  @hypothesis.given(st.sets(st.integers(1, B // group.size - 1), max_size=4),
                    st.integers(0, 10**6))
  def holds(cuts, seed):
    stats, batch = make(seed, group.size)
    edges = [0, *(c * group.size for c in sorted(cuts)), B]
    some = [group.base(*pad(cut((stats, batch), slice(a, b)), T))
            for a, b in zip(edges, edges[1:])]
    def add(*losses):
      return types.Loss(sum(x.total for x in losses), sum(x.weight for x in losses),
                        functools.reduce(types.merge_metrics, [x.metrics for x in losses]))
    _same(group.base(stats, batch), {c.name: add(*(x[c.name] for x in some)) for c in group.cases})

  holds()


def true_sizes(case, parts=3, length=T + 5):
  """Without the trick of `split`: micro-batches of B / parts rows, and longer rows, as they are."""
  stats, batch = as32(make(12, case.size))
  def longer(x):
    if x.ndim > 1 and x.shape[1] == T:
      return np.concatenate([x, np.zeros((B, length - T, *x.shape[2:]), x.dtype)], axis=1)
    return x
  data = [(stats, batch), jax.tree.map(longer, (stats, batch)),
          *(cut((stats, batch), slice(i, i + B // parts)) for i in range(0, B, B // parts))]
  whole, more, *some = run(lambda data: [case.fn(*d, **case.hyper) for d in data], data)
  for total, weight in [(sum(s.total for s in some), sum(s.weight for s in some)),
                        (more.total, more.weight)]:
    np.testing.assert_allclose((total, weight), (whole.total, whole.weight), rtol=1e-5)


def extremes(group):
  """Log-ratios of +-80 a token, scores of +-80, identical responses: finite, gradient too."""
  stats, batch = as32(make(6, group.size))
  shape = np.ones((B, T), np.float32)
  sign = np.array([-1.0, 0.0, 1.0])[np.arange(B) // group.size % 3]  # of a unit's first row
  side = np.where(np.arange(B) % group.size % 2 == 0, sign, -sign).astype(np.float32)[:, None]
  batch = batch.replace(ref_logp_BT=-40 * shape - 40 * side, extras={
      **batch.extras, "teacher_logp_BT": -40 * shape - 40 * side,
      "teacher_logp_BTK": np.where(np.arange(K) == 0, -1e-6, -80.0) * np.ones((B, T, K))})
  stats = stats.replace(logp_BT=-40 * shape + 40 * side, value_BT=80 * side * shape, extras={
      "heads_BTK": 80 * side[..., None] * np.ones((B, T, K)),
      "logp_BTK": batch.extras["teacher_logp_BTK"][..., ::-1]})
  stats, batch = as32(stats), as32(batch)
  for name, ((student, *_), loss) in group.gradients(stats, batch).items():
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((student, loss))), name
  for nothing in (batch.replace(mask_BT=0 * batch.mask_BT),
                  batch.replace(valid_B=0 * batch.valid_B)):
    for name, ((student, *_), loss) in group.gradients(stats, nothing).items():
      assert float(loss.total) == float(loss.weight) == 0, name
      assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(student)), name
      assert all(np.isfinite(m.compute()) for m in loss.metrics.values()), name


def needs(group):
  """It declares reference and head exactly if it reads them, and says so when there is none."""
  stats, batch = as32(make(7, group.size))
  without = batch.replace(ref_logp_BT=None)
  headless = stats.replace(value_BT=None, extras={})
  for case in group.cases:
    fn = functools.partial(case.fn, **case.hyper)
    if types.needs_of(fn) == {"ref_logp"}:
      with pytest.raises(ValueError, match="ref_logp_BT"):
        jax.eval_shape(fn, stats, without)
    else:
      jax.eval_shape(fn, stats, without)
      assert types.needs_of(fn) <= {"scores"}, case.name
    if "scores" in types.needs_of(fn):
      with pytest.raises(ValueError, match="head"):
        jax.eval_shape(fn, headless, batch)


CHECKS = [reference, flips, removed, padded, permuted, split, extremes, needs]


def contract(cases):
  """The decorator of a test `(group, check)` of all checks on all cases."""
  def wrap(test):
    test = pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)(test)
    return pytest.mark.parametrize("group", groups(cases), ids=repr)(test)
  return wrap
