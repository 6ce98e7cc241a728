"""Key phrases by hand, the repetition penalty, the calibration of a low score."""

import numpy as np
import pytest

from rljax import types
from rljax.rewards import phrases

WORDS = ("first,", "wait", "let me check", "so")


def episode(text):
  turn = types.Turn("assistant", np.arange(1, dtype=np.int32), text=text)
  return types.Episode(types.Task(id="t", prompt="?"), (turn,))


def score(text, **kwargs):
  return phrases.reasoning_patterns(
      [episode(text)], None, **{"phrases": WORDS, "full": 4, **kwargs})[0]


def test_presence_counts_once_without_case_and_caps_at_one():
  assert score("First, wait. WAIT wait") == 0.5
  assert score("nothing") == 0.0
  assert score("first, wait let me check so", full=2) == 1.0


def test_the_marker_of_an_answer_is_required_where_asked_for():
  assert score("wait 5", marker="#") == 0.0 and score("wait #5", marker="#") == 0.25


def test_repetition_is_subtracted_from_twenty_words_on():
  words = [f"w{i}" for i in range(20)]
  assert phrases.repeated_share(words[:19]) == 0.0 and phrases.repeated_share([]) == 0.0
  # 21 windows, of which the last is a copy of the first
  assert phrases.repeated_share(words * 2) == pytest.approx(1 / 21)
  text = "wait first, so " + "x " * 60
  assert score(text) < 0.1 and score(text, repetition=False) == 0.75


def test_only_scores_below_the_threshold_are_raised():
  batch = [episode("wait"), episode("wait"), episode("no")]
  reward = lambda episodes, ctx: np.array([0.2, 0.5, 0.2])
  patterns = lambda episodes, ctx: phrases.reasoning_patterns(
      episodes, ctx, phrases=WORDS, full=1)
  np.testing.assert_allclose(
      phrases.calibrated(batch, None, reward=reward, patterns=patterns), [0.3, 0.5, 0.2])
  np.testing.assert_allclose(
      phrases.calibrated(batch, None, reward=reward, patterns=patterns, threshold=0.6, weight=1.0),
      [1.0, 1.0, 0.2])
