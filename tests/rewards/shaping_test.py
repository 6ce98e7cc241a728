"""Rewards made of rewards, by the numbers of their papers."""

import numpy as np
import pytest

from rljax import config
from rljax.rewards import run, shaping
from tests.rewards import make

close = np.testing.assert_allclose
GROUPED = [make.episode(group=g) for g in (0, 0, 1, 1)]
R = make.given([1.0, 3.0, -2.0, np.nan])


def ctx(step=0):
  return run.Context(step=step, seed=0, tokenizer=None)


def test_clip_centre_linear_gate():
  close(shaping.clip(GROUPED, None, reward=R, low=-1, high=2), [1, 2, -1, np.nan])
  close(shaping.clip(GROUPED, None, reward=R, high=0, shift=2), [-1, 0, -4, np.nan])
  close(shaping.centre(GROUPED, None, reward=R), [-1, 1, 0, np.nan])
  close(shaping.linear(GROUPED, None, reward=R, scale=2.0, offset=-1.0), [1, 5, -5, np.nan])
  by = make.given([0.2, 0.9, np.nan, 0.9])
  close(shaping.gate(GROUPED, None, reward=R, by=by), [0, 3, np.nan, np.nan])
  close(shaping.gate(GROUPED, None, reward=R, by=by, threshold=0.1, below=-1),
        [1, 3, np.nan, np.nan])
  close(shaping.gate(GROUPED, None, reward=R, by=by, below=-1)[:2], [-1, 3])


def test_sigmoid_of_a_logit():
  r = make.given([0.0, np.log(3), 1e6, np.nan])
  close(shaping.sigmoid(GROUPED, None, reward=r), [0.5, 0.75, 1, np.nan])
  close(shaping.sigmoid(GROUPED, None, reward=r, slope=2)[1], 0.9)


@pytest.mark.parametrize("m, value", [(1, 0.0099), (2, 0.0995), (3, 0.215), (5, 0.397)])
def test_geometric_gate_of_one_broken_constraint(m, value):
  bottom = {str(i): make.given([float(i > 0)]) for i in range(m)}
  utility = {"u": make.given([1.0])}
  gate = lambda **k: shaping.geometric_gate([make.episode()], None, **{
      "bottom": bottom, "utility": utility, **k})[0]
  assert gate() == pytest.approx(value, abs=5e-4)
  assert gate(delta=1e-6) < gate()
  assert gate(bottom={"a": make.given([1.0])}) == 1
  two = {"a": make.given([1.0]), "b": make.given([0.0])}
  assert gate(bottom={"x": make.given([1.0])}, utility=two, weights={"a": 3.0}) == 0.75
  with pytest.raises(config.ConfigError, match="positive weights"):
    gate(weights={"u": 0.0})


def test_trust_falls_when_thinking_contradicts_the_outcome():
  o, t = make.given([1, 0, 1, 1]), make.given([0.2, 0.6, 0.5, 0.5])
  out = shaping.trusted(GROUPED, ctx(), outcome=o, thinking=t)
  gamma = np.exp(0.2 - 0.6)
  close(out, [1 + gamma * 0.3 * 0.2, gamma * 0.3 * 0.6, 1.15, 1.15])
  close(shaping.trusted(GROUPED, ctx(100), outcome=o, thinking=t, alpha=1.0, horizon=100.0)[2],
        1 + 0.5 / np.e)
  agree = make.given([0.6, 0.2, 0.5, 0.5])
  close(shaping.trusted(GROUPED, ctx(), outcome=o, thinking=agree)[:2], [1.18, 0.06])


def test_anneal():
  value = lambda step, **k: shaping.anneal(GROUPED, ctx(step), reward=R, steps=10, **k)[1]
  close([value(0), value(5), value(10), value(99)], [3, 1.5, 0, 0])
  close(value(5, start=0.0, end=2.0), 3)


def test_step_deltas_telescope():
  p = np.array([0.9, 0.4, 0.7, 0.2])
  d = shaping.step_deltas(p, alpha=2.0)
  close(d, 2 * np.array([0.5, -0.3, 0.7, 0]))
  close(np.cumsum(d[::-1])[::-1][:3], 2 * p[:3])  # the return from step k is alpha p_k
  assert shaping.step_deltas(np.array([0.9])).tolist() == [0]
  assert shaping.step_deltas(np.array([])).size == 0
