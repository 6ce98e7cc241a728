"""Length rewards by hand, and what they do at their edges."""

import numpy as np
import pytest

from rljax import config
from rljax.rewards import length
from tests.rewards import make

close = np.testing.assert_allclose
EPISODES = [make.episode(tokens=n, group=g, info={"target_tokens": 10})
            for n, g in ((10, 0), (20, 0), (30, 0), (5, 1), (5, 1))]
RIGHT = make.given([1, 1, 0, 0, 0])


def test_linear():
  close(length.linear(EPISODES, per_token=0.1, start=10), [0, -1, -2, 0, 0])
  close(length.linear(EPISODES, per_token=0.1), [-1, -2, -3, -0.5, -0.5])


def test_cosine():
  out = length.cosine(EPISODES, max_tokens=30, correct=RIGHT, right=(2.0, 1.0), wrong=(-9.0, -1.0),
                      exceeded=-20.0)
  half = lambda a, b, x: b + (a - b) * (1 + np.cos(np.pi * x)) / 2
  close(out, [half(2, 1, 1 / 3), half(2, 1, 2 / 3), -20, half(-9, -1, 1 / 6), half(-9, -1, 1 / 6)])
  assert out[0] > out[1] and out[3] < -8
  close(length.cosine(EPISODES, max_tokens=20, correct=RIGHT)[1], -1)


def test_relative():
  close(length.relative(EPISODES, correct=RIGHT), [0.5, 0, -0.5, 0, 0])
  close(length.relative(EPISODES, correct=make.given([0] * 5)), [0, 0, -0.5, 0, 0])


def test_standardised():
  z = 5 / (5 + 1e-5)
  sigmoid = 1 / (1 + np.exp(-z))
  close(length.standardised(EPISODES, correct=RIGHT), [2 * sigmoid - 1, 1 - 2 * sigmoid, 0, 0, 0])
  assert not length.standardised(EPISODES, correct=make.given([1, 0, 0, 1, 0])).any()
  same = length.standardised(EPISODES, correct=make.given([0, 0, 0, 1, 1]))
  assert not same.any() and np.isfinite(same).all()


def test_pruner():
  close(length.pruner(EPISODES), [1, 0, -1 / 3, 0, 0])
  assert np.isfinite(length.pruner([make.episode(tokens=0)])).all()


def test_target():
  close(length.target(EPISODES, correct=RIGHT, alpha=0.01), [0.5, 0.4, 0, 0, 0])
  close(length.target(EPISODES, correct=RIGHT, alpha=0.01, delta=0.7)[:2], [0.7, 0.6])
  close(length.target(EPISODES, correct=RIGHT, alpha=0.01, exact=True),
        [1, 0.9, -0.2, -0.05, -0.05])
  with pytest.raises(config.ConfigError, match="target_tokens"):
    length.target([make.episode()], correct=RIGHT)


def test_by_solve_rate():
  close(length.by_solve_rate(EPISODES, beta=0.03, correct=RIGHT),
        [-0.2, -0.4, -0.6, -0.075, -0.075])


def test_within_and_shortest_right():
  assert length.within(EPISODES, tokens=15, correct=RIGHT).tolist() == [1, 0, 0, 0, 0]
  assert length.within(EPISODES, tokens=20, correct=RIGHT).tolist() == [1, 1, 0, 0, 0]
  assert length.shortest_right(EPISODES, correct=RIGHT).tolist() == [0, -10, -20, 0, 0]
  assert length.shortest_right(EPISODES[:3], correct=make.given([0] * 3)).tolist() == [-10, 0, -10]


@pytest.mark.parametrize("name, knobs", [
    ("cosine", {"max_tokens": 40}), ("relative", {}), ("standardised", {}), ("target", {}),
    ("by_solve_rate", {"beta": 0.1}), ("within", {"tokens": 9}), ("shortest_right", {})])
def test_unknown_correctness_stays_unknown(name, knobs):
  out = getattr(length, name)(EPISODES, correct=make.given([1, np.nan, 0, 1, 0]), **knobs)
  assert np.isnan(out).tolist() == [False, True, False, False, False]
