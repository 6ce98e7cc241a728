"""SCoRe's testbed: sums, their check, what the demonstrations do not know."""

import jax
import numpy as np

from experiments import score
from rljax import types
from rljax.data import text
from rljax.rollouts import revise
from tests.rollouts import fake


def test_an_expression_must_be_the_digits_in_their_order():
  assert score.value("7351", "7+3-5+1") == 6 and score.value("7351", "7-3-5-1") == -2
  for wrong in ("", "7+3-5", "7+5-3+1", "7+3*5+1", "7+3-5+1+", "73-5+1", "-7+3-5+1"):
    assert score.value("7351", wrong) is None, wrong
  task = types.Task("t", "7351=6:", answer=6, info={"digits": "7351"})
  said = ("7+3-5+1", "=10,5,6=;7+3-5+1", "=10,5,6=;7-3-5+1", "6")
  assert [score.oracle(task, t) for t in said] == [1, 1, 0, 0]


def test_demonstrations_check_rightly_and_choose_blindly():
  some = list(score.sums(size=1500))
  right = [score.oracle(t, t.info["turns"][0]) for t in some]
  kept = []
  for t, ok in zip(some, right):
    first, second = t.info["turns"]
    check, again = second.split(";")
    found = [eval(first[:k]) for k in (3, 5, 7)]
    sign = "<=>"[1 + (found[-1] > t.answer) - (found[-1] < t.answer)]
    assert check == "={},{},{}".format(*found) + sign
    assert (check[-1] == "=") == bool(ok)
    kept.append(again == first)
  assert abs(np.mean(right) - 0.68) < 0.05  # 0.6, and 1.5 of 8 of the others by chance
  right, kept = np.array(right, bool), np.array(kept)
  assert abs(kept[right].mean() - 0.5) < 0.05 and abs(kept[~right].mean() - 0.5) < 0.07
  test = {t.prompt for t in score.sums(split="test", size=200)}
  assert not test & {t.prompt for t in some}


def test_they_are_episodes_of_two_attempts():
  sampler = fake.Sampler(lambda *_: "", observation=1)
  sampler.tokenizer = text.char(alphabet="0123456789+-,<=>:;?")
  tasks = list(score.sums(size=3))
  shown = revise.demonstrations({"policy": sampler}, tasks, jax.random.key(0), feedback="?")
  for e, t in zip(shown, tasks):
    assert [turn.text for turn in e.turns] == [t.prompt, t.info["turns"][0], "?",
                                               t.info["turns"][1]]
    assert e.status == types.STOP and e.turns[1].logp is None
