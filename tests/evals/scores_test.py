"""Mean scores and win rates with ties, by hand."""

import math

import pytest

from rljax import types
from rljax.evals import scores


def episodes(*groups, status=types.STOP):
  """Each group: (the policy's scores, the opponent's)."""
  return [types.Episode(types.Task(f"t{g}", "?"), (), group=g, scores={"q": v}, status=status,
                        info={"role": role})
          for g, sides in enumerate(groups) for role, values in zip(("policy", "ref"), sides)
          for v in values]


def test_by_hand():
  found = episodes(([1.0, 3.0], [1.0]), ([0.0], [2.0, -1.0]), ([math.nan], [5.0]))
  out = scores.measure(found, 3, None, score="q", opponent="ref")
  assert out["win_rate"] == pytest.approx(((0.5 + 1) / 2 + (0 + 1) / 2) / 2)
  assert out["score"] == pytest.approx(4 / 3) and out["best"] == pytest.approx(3 / 2)
  assert out["opponent"] == pytest.approx(2 / 3) and out["unscored"] == 1
  alone = scores.measure(found, 3, None, score="q")
  assert "win_rate" not in alone and alone["score"] == pytest.approx(11 / 7)
  assert scores.measure(episodes(([1.0], [1.0]), status=types.ERROR), 1, None, score="q") == {
      "unscored": 2.0}
  assert scores.measure(found, 3, None)["unscored"] == 8  # no such score
