"""Shapes of a reward-model score, by hand, and what they do at the ends."""

import functools
import inspect

import numpy as np
import pytest

from rljax import config
from rljax.rewards import shapes

close = np.testing.assert_allclose
NONE = shapes.Stats()
R, REFS = np.array([1.0, 1.0, np.nan]), np.array([[0.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
one = lambda x: 1 / (1 + np.exp(-x))
ALL = [f for name, f in inspect.getmembers(shapes, inspect.isfunction)
       if list(inspect.signature(f).parameters)[:3] == ["r_B", "refs_BM", "stats"]]


def test_par_is_a_mean_of_sigmoids():
  close(shapes.bounded(R, REFS, NONE), [one(1), (one(1) + one(-3)) / 2, np.nan])
  assert abs((one(1) + one(-3)) / 2 - one(-1)) > 0.1  # not the sigmoid of the mean
  close(shapes.bounded(R, REFS, NONE, slope=3.0)[0], one(3))
  close(shapes.bounded(R, REFS, NONE, centred=False), [one(1), one(1), np.nan])
  close(shapes.bounded(R, REFS, NONE, centred=False, slope=2.0, shift=3.0)[0], one(-4))
  close(shapes.bounded(R, REFS, NONE, form="tanh")[0], np.tanh(1))
  big = np.array([1e6, -1e6])
  close(shapes.bounded(big, np.zeros((2, 1)), NONE), [1, 0])
  with pytest.raises(config.ConfigError, match="form='sine'"):
    shapes.bounded(R, REFS, NONE, form="sine")


@pytest.mark.parametrize("form, low, high, slope", [
    ("sigmoid", 0, 1, 0.25), ("tanh", -1, 1, 1), ("polynomial", 0, 1, 0.25)])
def test_bounded_shapes_are_odd_about_their_centre_and_steepest_there(form, low, high, slope):
  x = np.linspace(-40, 40, 8001)
  f = shapes.bounded(x, np.zeros((len(x), 1)), NONE, form=form)
  assert low <= f.min() and f.max() <= high
  close([f[0], f[-1]], [low, high], atol=1e-9)
  close(f + f[::-1], low + high, atol=1e-12)
  slopes = np.diff(f) / np.diff(x)
  assert slopes.min() >= 0 and slopes.argmax() in (3999, 4000)
  close(slopes.max(), slope, rtol=1e-3)


def test_slow_growth_comes_first_with_a_shift():
  x = np.array([-1.0, 0.0, 3.0])
  late = shapes.bounded(x, np.zeros((3, 1)), NONE, slope=2.0, shift=3.0)
  close(late, [one(-8), one(-6), 0.5])


def test_affine_shapes():
  stats = shapes.Stats().add(np.array([0.0, 4.0, np.nan]))
  assert stats == shapes.Stats(2, 2.0, 2.0, 0.0, 4.0)
  close(shapes.vanilla(R, REFS, stats), R)
  close(shapes.centred(R, REFS, stats), [1, -1, np.nan])
  close(shapes.mean_std(R, REFS, stats), [-0.5, -0.5, np.nan], rtol=1e-6)
  close(shapes.min_max(R, REFS, stats), [0.25, 0.25, np.nan])


def test_bounds():
  stats = shapes.Stats(9, 0.0, 2.0, -5.0, 5.0)
  x = np.array([-3.0, 0.5, 3.0, np.nan])
  close(shapes.clip(x, x[:, None], stats), [-2, 0.5, 2, np.nan])
  close(shapes.clip(x, x[:, None], stats, width=0.5), [-1, 0.5, 1, np.nan])
  close(shapes.ceiling(x, x[:, None], stats, high=1.0), [-3, 0.5, 1, np.nan])


def test_log_sigmoid_to_the_quantile():
  close(shapes.log_sigmoid(R, REFS, NONE, quantile=0.5), np.log([one(1), one(-1), np.nan]))
  close(shapes.log_sigmoid(R, REFS, NONE)[1], np.log(one(1 - 3.4)))
  far = shapes.log_sigmoid(np.array([-1e4, 1e4]), np.zeros((2, 1)), NONE)
  close(far, [-1e4, 0])


def test_min_max_of_one_sample_is_one_half():
  stats = shapes.Stats().add(np.array([3.0]))
  close(shapes.min_max(np.array([3.0, np.nan]), np.zeros((2, 1)), stats), [0.5, np.nan])
  assert shapes.mean_std(np.array([3.0]), np.zeros((1, 1)), stats)[0] == 0


@pytest.mark.parametrize("shape", ALL, ids=lambda f: f.__name__)
def test_nan_stays_nan_and_nothing_else_becomes_it(shape):
  keywords = {"high": 1.0} if shape is shapes.ceiling else {}
  for stats in (shapes.Stats().add(R), shapes.Stats().add(np.array([-1.0, 5.0]))):
    out = functools.partial(shape, **keywords)(R, REFS, stats)
    assert np.isfinite(out).tolist() == [True, True, False]


def test_running_statistics_are_those_of_all_numbers():
  x = np.random.default_rng(0).normal(3, 2, 60)
  stats = shapes.Stats()
  for part in np.split(x, [1, 20, 20, 59]):
    stats = stats.add(part)
  close(stats, (60, x.mean(), x.std(), x.min(), x.max()), rtol=1e-12)
  assert shapes.Stats().add(np.array([np.nan])) == shapes.Stats()
