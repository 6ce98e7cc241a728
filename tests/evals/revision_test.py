"""What a second attempt changes, on episodes written by hand."""

import numpy as np
import pytest

from rljax.evals import revision
from tests.rewards.turns_test import episode


def grade(episodes, ctx):
  return np.array([float(e.response.endswith("1")) for e in episodes])


def test_shares_of_all_problems():
  some = [episode(0, 0, a) for a in (
      ("x0", "x1"),   # fixed
      ("x1", "x0"),   # broken
      ("x1", "x1"),   # stays right
      ("x0", "c;x0"),  # stays wrong, not edited
      ("x0",))]       # cut: no second attempt
  got = revision.measure(some, 5, None, grade=grade, final=lambda t: t.rpartition(";")[2])
  assert got == pytest.approx({"first": 0.4, "last": 0.4, "delta": 0.0, "fixed": 0.2, "broken": 0.2,
                               "edited": 0.4, "edited_wrong": 1 / 3})
  assert revision.measure(some, 5, None, grade=grade)["edited"] == pytest.approx(0.6)
  assert np.isnan(revision.measure(some[2:3], 1, None, grade=grade)["edited_wrong"])
