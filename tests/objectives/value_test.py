"""The clipped value loss: reference, by hand, invariances, extremes, every knob."""

import functools

import jax
import numpy as np
import pytest

from rljax import types
from rljax.objectives import value
from tests.objectives import cases
from tests.objectives.cases import x64  # noqa: F401

pytestmark = cases.X64


def loops(stats, batch, *, clip=0.2, coef=1.0, aggregation="token-mean", constant=None):
  """max((V - R)^2, (clip(V) - R)^2) / 2, one token at a time; and its gradient."""
  n, length = batch.mask_BT.shape
  mask = batch.mask_BT * batch.valid_B[:, None]
  loss, slope = np.zeros((n, length)), np.zeros((n, length))
  for i in range(n):
    for t in range(length):
      V, old, R = stats.value_BT[i, t], batch.value_BT[i, t], batch.extras["return_BT"][i, t]
      near, d_near = 0.5 * (V - R) ** 2, V - R
      if clip is not None:
        moved = min(max(V, old - clip), old + clip)
        far, d_far = 0.5 * (moved - R) ** 2, (moved - R if abs(V - old) < clip else 0.0)
        if far > near:
          near, d_near = far, d_far
      loss[i, t], slope[i, t] = coef * near, coef * d_near
  grad = np.zeros((n, length))
  for i, t in np.ndindex(n, length):
    one = np.zeros((n, length))
    one[i, t] = slope[i, t]
    grad[i, t] = cases.reduce_loops(one, mask, aggregation, constant)
  return cases.reduce_loops(loss, mask, aggregation, constant), grad


@pytest.mark.parametrize("h", [
    {}, {"clip": None}, {"clip": 0.8, "coef": 0.5}, {"aggregation": "seq-mean-token-mean"},
    {"aggregation": "constant", "constant": 7.0}])
def test_reference(h):
  for seed in (1, 2):
    stats, batch = cases.random_batch(seed)
    batch = batch.replace(valid_B=np.array([1.0, 1, 0, 1, 1, 1]))
    loss, grad = loops(stats, batch, **h)
    ours, our_grad = cases.value_and_gradient(value.clipped, stats, batch, of="value_BT", **h)
    np.testing.assert_allclose(ours, loss, rtol=1e-9)
    np.testing.assert_allclose(our_grad, grad, rtol=1e-9, atol=1e-12)


def one_row(values, old, returns):
  """By hand: three tokens of one row, in the common shape."""
  stats, batch = cases.random_batch(3)
  def put(x):
    out = np.zeros((cases.B, cases.T))
    out[0, :3] = x
    return out
  batch = batch.replace(mask_BT=put(1.0), value_BT=put(old), extras={"return_BT": put(returns)})
  return types.TokenStats(stats.logp_BT, value_BT=put(values)), batch


def test_by_hand():
  stats, batch = one_row([2.0, 0.5, 1.0], [0.0, 0.4, 0.0], [1.0, 1.0, 0.0])
  # clipped to 0.2, 0.5, 0.2: max(1, 0.64), 0.25 (inside), max(1, 0.04)
  assert cases.value(value.clipped, stats, batch) == pytest.approx((1 + 0.25 + 1) / 6)
  # the clip binds when the value moved towards the return and passed the range
  stats, batch = one_row([0.9, 0.5, 1.0], [0.0, 0.4, 1.0], [1.0, 1.0, 0.0])
  loss, grad = cases.value_and_gradient(value.clipped, stats, batch, of="value_BT", coef=2.0)
  assert loss == pytest.approx(2 * (0.64 + 0.25 + 1) / 6)
  np.testing.assert_allclose(grad[0, :3], [0, -1 / 3, 2 / 3])
  metrics = value.clipped(stats, batch).metrics
  wanted = {"value/mean": 0.8, "value/return_mean": 2 / 3, "value/error": (0.01 + 0.25 + 1) / 3,
            "value/clip_fraction": 1 / 3}
  assert {k: float(m.compute()) for k, m in metrics.items()} == pytest.approx(wanted)


def test_without_old_values_the_clip_cannot_bind():
  stats, batch = cases.random_batch(4)
  batch = batch.replace(value_BT=None)
  one = cases.value_and_gradient(value.clipped, stats, batch, of="value_BT", clip=1e-6)
  two = cases.value_and_gradient(value.clipped, stats, batch, of="value_BT", clip=None)
  assert one[0] == pytest.approx(two[0])
  np.testing.assert_allclose(one[1], two[1], rtol=1e-9)


def test_a_wide_clip_is_the_squared_error():
  stats, batch = cases.random_batch(5)
  assert cases.value(value.clipped, stats, batch, clip=1e3) == pytest.approx(
      cases.value(value.clipped, stats, batch, clip=None))


def test_invariances():
  stats, batch = cases.random_batch(6, rows=4, length=3)
  padded = cases.pad(stats, batch, tokens=cases.T - 3, padding_rows=cases.B - 4)
  loss, grad = cases.value_and_gradient(value.clipped, *padded, of="value_BT")
  assert loss == pytest.approx(cases.value(value.clipped, stats, batch))
  assert np.all(np.isfinite(grad)) and np.all(grad[4:] == 0) and np.all(grad[:, 3:] == 0)
  stats, batch = cases.random_batch(7)
  order = np.array([3, 1, 5, 0, 2, 4])
  assert cases.value(value.clipped, *cases.rows(stats, batch, order)) == pytest.approx(
      cases.value(value.clipped, stats, batch))
  parts = [value.clipped(stats, cases.only(batch, i)) for i in ([0, 3], [1, 2, 5], [4])]
  whole = value.clipped(stats, batch)
  assert sum(float(p.total) for p in parts) == pytest.approx(float(whole.total))
  assert sum(float(p.weight) for p in parts) == pytest.approx(float(whole.weight))
  noise = np.where(batch.mask_BT > 0, stats.value_BT, 1e6)
  assert cases.value(value.clipped, stats.replace(value_BT=noise), batch) == pytest.approx(
      cases.value(value.clipped, stats, batch))


def test_perfect_values_and_empty_batches_have_a_zero_gradient():
  stats, batch = cases.random_batch(8)
  perfect = batch.replace(value_BT=stats.value_BT, extras={"return_BT": stats.value_BT})
  for b in (perfect, batch.replace(mask_BT=0 * batch.mask_BT), cases.only(batch, [])):
    loss, grad = cases.value_and_gradient(value.clipped, stats, b, of="value_BT")
    assert loss == 0 and np.all(grad == 0)


def test_extremes_stay_finite():
  stats, batch = cases.random_batch(9)
  stats = stats.replace(value_BT=np.resize([1e8, -1e8, 0.0], stats.value_BT.shape))
  loss, grad = cases.value_and_gradient(value.clipped, stats, batch, of="value_BT")
  assert np.isfinite(loss) and np.all(np.isfinite(grad))


FLIPS = {"clip": ({}, 0.7), "coef": ({}, 0.5), "aggregation": ({}, "seq-mean-token-sum"),
         "constant": ({"aggregation": "constant", "constant": 8.0}, 16.0)}


def test_every_knob_is_alive():
  stats, batch = cases.random_batch(10)
  for parameter in cases.hyperparameters(value.clipped):
    base, new = FLIPS[parameter]
    one, two = (cases.value(value.clipped, stats, batch, **h)
                for h in (base, {**base, parameter: new}))
    assert abs(one - two) > 1e-6, parameter


def test_defaults():
  assert cases.hyperparameters(value.clipped) == {
      "clip": 0.2, "coef": 1.0, "aggregation": "token-mean", "constant": None}


def test_needs_and_errors():
  assert types.needs_of(functools.partial(value.clipped, clip=None)) == {"value"}
  stats, batch = cases.random_batch(11)
  with pytest.raises(ValueError, match="value_BT"):
    value.clipped(stats.replace(value_BT=None), batch)
  with pytest.raises(ValueError, match="return_BT"):
    value.clipped(stats, batch.replace(extras={}))


def test_returns_and_old_values_get_no_gradient():
  stats, batch = cases.random_batch(12)
  grad = jax.grad(lambda r: value.clipped(stats, batch.replace(extras={"return_BT": r})).total)
  assert np.all(grad(jax.numpy.asarray(batch.extras["return_BT"])) == 0)
