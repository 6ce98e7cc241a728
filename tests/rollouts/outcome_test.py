"""The reward that reads what an environment decided."""

import math

import numpy as np

from rljax import types
from rljax.rewards import outcome


def test_outcome_reads_info():
  episodes = [types.Episode(types.Task("t", ""), (), info=i)
              for i in ({"return": -1.5}, {"return": 1.0}, {}, {"return": "x"},
                        {"return": math.nan}, {"won": True, "return": 0})]
  assert np.array_equal(outcome.outcome(episodes, None),
                        [-1.5, 1.0, math.nan, math.nan, math.nan, 0], equal_nan=True)
  assert outcome.outcome(episodes, None, success=1.0, default=0.0).tolist() == [0, 1, 0, 0, 0, 0]
  assert outcome.outcome(episodes, None, key="won", default=0.0).tolist() == [0, 0, 0, 0, 0, 1]
