"""Prices of calls: factors by hand, the order of the running minimum, its state."""

import functools
import json
import math

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.rewards import pay


def episode(name="q", calls=0, reward=1.0, status=types.STOP):
  info = {} if calls is None else {"calls": calls}
  return types.Episode(types.Task(name, "?"), (types.Turn("user", np.zeros(1, np.int32)),),
                       scores={"correct": reward, "reward": reward}, status=status, info=info)


def rewards(episodes):
  return [e.scores["reward"] for e in episodes]


def test_factors_by_hand():
  assert [pay.exponential(n, 1) for n in (1, 2, 3)] == [1.0, 0.5, 0.25]
  assert pay.exponential(2, 0, base=0.8) == pytest.approx(0.64)
  assert pay.otc(0, 0) == 1.0
  assert pay.otc(1, 0) == pytest.approx(math.cos(math.pi / 7)) == pytest.approx(0.901, abs=1e-3)
  assert pay.otc(2, 0) == pytest.approx(math.cos(2 * math.pi / 9))
  assert pay.otc(1, 1) == pytest.approx(1.0)  # f = m: sin(pi / 2)
  assert pay.otc(3, 1) == pytest.approx(math.sin(1.5 * math.pi / 2))  # f = 6 / 4
  assert pay.otc(0, 2) == 1.0  # f = 0
  assert pay.otc(1, 0, strict=True) == 0.0 and pay.otc(0, 0, strict=True) == 1.0
  assert pay.otc(3, 1, strict=True) == pay.otc(3, 1)
  assert [pay.linear(n, 0) for n in (0, 3, 6, 9)] == [1.0, 0.5, 0.0, 0.0]


def test_a_wrong_answer_is_worth_nothing_and_a_right_one_needs_a_minimum():
  assert pay.paid(0.0, 3, math.inf, pay.exponential) == 0.0
  assert math.isnan(pay.paid(math.nan, 3, math.inf, pay.exponential))
  with pytest.raises(ValueError, match="none was counted"):
    pay.paid(1.0, 0, math.inf, pay.exponential)


def test_the_minimum_is_updated_before_the_step_is_paid():
  m = pay.per_call(factor=pay.exponential)
  state, out = m.update(m.init(), [episode(calls=2), episode(calls=1), episode(calls=0, reward=0.0),
                                   episode("r", calls=2)])
  assert state == {"q": 1, "r": 2} and rewards(out) == [0.5, 1.0, 0.0, 1.0]
  assert out[0].scores["unpaid"] == 1.0 and out[0].scores["correct"] == 1.0
  state, out = m.update(state, [episode(calls=2), episode(calls=0)])
  assert state == {"q": 0, "r": 2} and rewards(out) == [0.25, 1.0]
  state, out = m.update(state, [episode(calls=3)])  # a minimum never rises
  assert state["q"] == 0 and rewards(out) == [0.125]


def test_the_state_is_json_and_keyed_by_task():
  m = pay.per_call(factor=pay.exponential)
  state, _ = m.update(m.init(), [episode("a", calls=0), episode("b", calls=2)])
  resumed = json.loads(json.dumps(state))
  _, out = m.update(resumed, [episode("a", calls=2), episode("b", calls=2)])
  assert rewards(out) == [0.25, 1.0]
  assert m.metrics(resumed) == {"tasks": 2.0, "mean": 1.0, "free": 0.5}
  assert m.metrics(m.init()) == {"tasks": 0.0}


def test_what_failed_neither_counts_nor_is_paid():
  m = pay.per_call(factor=pay.exponential)
  state, out = m.update(m.init(), [episode(calls=0, status=types.ERROR), episode(calls=1),
                                   episode(calls=0, reward=math.nan), episode(calls=None)])
  assert state == {"q": 0}  # the last: no call was noted
  assert rewards(out)[:2] == [1.0, 0.5] and math.isnan(rewards(out)[2]) and rewards(out)[3] == 1.0


def test_a_lucky_guess_may_need_confirmation():
  least = functools.partial(pay.least, confirm=2)
  assert least(math.inf, [0, 2, 2]) == 2  # at most two calls were enough twice
  assert least(math.inf, [1]) == 1 and least(math.inf, []) == math.inf
  assert least(2, [0]) == 2 and least(2, [0, 1]) == 1 and least(2, [0, 0]) == 0
  assert pay.least(2, [0]) == 0
  m = pay.per_call(factor=pay.otc, confirm=2)
  state, out = m.update({"q": 2}, [episode(calls=0), episode(calls=2)])
  assert state == {"q": 2} and rewards(out) == pytest.approx([1.0, 1.0])
  with pytest.raises(ConfigError, match="confirm=0"):
    pay.per_call(factor=pay.otc, confirm=0)
