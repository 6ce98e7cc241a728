"""Votes by hand: own and crossed labels, ties, empty answers, missing views."""

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.rewards import vote


def episodes(groups, answer="1"):
  """[(pair, view, [responses]), ...] as episodes, one group each."""
  out = []
  for g, (pair, view, texts) in enumerate(groups):
    task = types.Task(id=f"{pair}/{view}", prompt="?", answer=answer,
                      info={"pair": pair, "view": view})
    for text in texts:
      turn = types.Turn("assistant", np.arange(1, dtype=np.int32), text=text)
      out.append(types.Episode(task, (turn,), group=g))
  return out


TWO = [("a", 0, ["1", "1", "2"]), ("a", 1, ["2", " 2", "1"])]


def test_own_and_crossed_labels_by_hand():
  np.testing.assert_array_equal(vote.agreement(episodes(TWO), None), [1, 1, 0, 1, 1, 0])
  np.testing.assert_array_equal(
      vote.agreement(episodes(TWO), None, of="other"), [0, 0, 1, 0, 0, 1])
  np.testing.assert_array_equal(vote.vote_accuracy(episodes(TWO), None), [1, 1, 1, 0, 0, 0])
  np.testing.assert_array_equal(
      vote.vote_accuracy(episodes(TWO), None, of="other"), [0, 0, 0, 1, 1, 1])


def test_ties_go_to_the_first_seen_and_empty_answers_do_not_vote():
  tie = episodes([("a", 0, ["3", "4", "", ""])])
  np.testing.assert_array_equal(vote.agreement(tie, None), [1, 0, 0, 0])
  nothing = episodes([("a", 0, ["", ""]), ("a", 1, ["1", "1"])])
  np.testing.assert_array_equal(vote.agreement(nothing, None, of="other"), [0, 0, 0, 0])


def test_an_extractor_may_refuse():
  read = lambda text: text[1:] if text.startswith("#") else None
  np.testing.assert_array_equal(
      vote.agreement(episodes([("a", 0, ["#1", "1", "1"])]), None, answer=read), [1, 0, 0])


def test_the_common_answer_is_that_of_the_whole_batch():
  np.testing.assert_array_equal(vote.common_answer(episodes(TWO), None), [1, 1, 0, 0, 0, 1])


def test_errors():
  with pytest.raises(config_lib.ConfigError, match="1 views in the batch"):
    vote.agreement(episodes(TWO[:1]), None, of="other")
  with pytest.raises(config_lib.ConfigError, match="'own' or 'other'"):
    vote.agreement(episodes(TWO), None, of="both")
