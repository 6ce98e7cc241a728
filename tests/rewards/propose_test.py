"""What a proposed problem is worth, to its setter and to those who solve it."""

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.rewards import propose, shaping

TABLE = [0, .875, .75, .625, .5, .375, .25, .125, 0]  # of k solvers among 8


def proposal(number, valid=True):
  return types.Episode(types.Task("r", "P"), (), info={"proposal": number, "valid": valid})


def answer(text, number=None):
  turn = types.Turn("assistant", np.zeros(1, np.int32), text=text)
  return types.Episode(types.Task("t", "?"), (turn,),
                       info={} if number is None else {"proposal": number})


def solved(episodes, ctx):
  return np.array([{"r": 1.0, "w": 0.0, "x": 0.0, "n": np.nan}[e.response] for e in episodes])


def form(task, text):
  return text != "x"


def test_what_a_problem_is_worth():
  assert [propose.learnability(k / 8) for k in range(9)] == TABLE
  for k in range(9):
    some = [proposal(0), *[answer("r" if i < k else "w", 0) for i in range(8)]]
    out = propose.outcome(some, None, solved=solved)
    assert out[0] == TABLE[k] and out[1:].sum() == k
    assert propose.outcome(some, None, solved=solved, form="valid")[0] == 1.0


def test_only_its_own_answers_rate_a_proposal():
  some = [proposal(0), proposal(1), proposal(2, valid=False), answer("r", 0), answer("w", 0),
          answer("w", 1), answer("n", 0), answer("r")]
  assert propose.rates(some, [9, 9, 9, 1, 0, 0, np.nan, 1]) == {0: pytest.approx(1 / 3), 1: 0.0}
  out = propose.outcome(some, None, solved=solved)
  assert out[:3] == pytest.approx([2 / 3, 0, 0]) and out[-1] == 1.0
  assert propose.outcome(some, None, solved=solved, form="valid")[:3].tolist() == [1, 1, 0]
  kept = propose.without_estimates(some)
  assert kept == [*some[:3], some[-1]]
  with pytest.raises(ConfigError, match="form='x'"):
    propose.outcome(some, None, solved=solved, form="x")
  assert types.is_whole(propose.outcome)


def test_three_levels():
  some = [proposal(0), proposal(1), proposal(2, valid=False), answer("r", 0), answer("w", 0),
          answer("x", 1), answer("n")]
  out = shaping.three_levels(
      some, None, reward=lambda e, ctx: propose.outcome(e, ctx, solved=solved),
      formatted=lambda e, ctx: propose.formatted(e, ctx, form=form))
  np.testing.assert_allclose(out, [0.5, -0.5, -1, 1, -0.5, -1, np.nan])
  assert shaping.three_levels(some[5:6], None, reward=lambda *_: [1.0], formatted=lambda *_: [0.0],
                              broken=-3.0)[0] == -3.0
