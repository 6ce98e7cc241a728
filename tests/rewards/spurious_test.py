"""Spurious rewards: rates, what is shared within a question, what is never flipped."""

import types as pytypes

import numpy as np

from rljax import types
from rljax.rewards import spurious

CTX = pytypes.SimpleNamespace(seed=1, step=0)


def episode(group, text, status="stop", answer="1"):
  task = types.Task(id=f"t{group}", prompt="?", answer=answer,
                    verifier="rljax.rewards.verify:exact")
  turn = types.Turn("assistant", np.arange(1, dtype=np.int32), text=text)
  return types.Episode(task, (turn,), group=group, status=status)


MANY = [episode(g, text) for g in range(400) for text in ("1", "2")]


def test_random_reward_has_its_rate_ignores_content_and_changes_with_step_and_sample():
  values = spurious.random_reward(MANY, CTX, rate=0.25)
  assert abs(values.mean() - 0.25) < 0.05 and set(values) == {0, 1}
  assert abs(np.corrcoef(values[::2], values[1::2])[0, 1]) < 0.15
  np.testing.assert_array_equal(values, spurious.random_reward(MANY, CTX, rate=0.25))
  later = pytypes.SimpleNamespace(seed=1, step=1)
  assert np.any(values != spurious.random_reward(MANY, later, rate=0.25))


def test_inverted():
  np.testing.assert_array_equal(spurious.inverted(MANY[:4], CTX), [0, 1, 0, 1])


def test_a_question_is_flipped_as_a_whole_at_the_stated_rate():
  values = spurious.flipped(MANY, CTX, rate=0.3).reshape(-1, 2)
  assert np.all(values.sum(1) == 1)  # the two responses stay opposite: flipped together
  assert abs((values[:, 0] == 0).mean() - 0.3) < 0.07


def test_no_answer_is_zero_and_never_flipped():
  cut, none = episode(0, "1", status="length"), episode(1, "no")
  read = lambda text: text if text.isdigit() else None
  np.testing.assert_array_equal(
      spurious.flipped([cut, none, episode(2, "1"), episode(2, "2")], CTX, rate=1.0, answer=read),
      [0, 0, 0, 1])


def test_a_wrong_majority_is_rewarded_and_a_right_one_is_not():
  wrong = [episode(0, t) for t in ("2", "2 ", "1", "3")]
  right = [episode(1, t) for t in ("1", "1", "2", "2", "1")]
  np.testing.assert_array_equal(
      spurious.wrong_vote(wrong + right, CTX), [1, 1, 0, 0, 0, 0, 0, 0, 0])
