"""Rewards that an environment has decided already: what a rollout wrote into `Episode.info`."""

import math
from collections.abc import Sequence

import numpy as np

from rljax.types import Episode


def outcome(episodes: Sequence[Episode], ctx, *, key: str = "return", default: float = math.nan,
            success: float = math.nan) -> np.ndarray:
  """info[key] of each episode, float [B].

  Args:
    key: entry of `Episode.info`, a number or a truth value.
    default: where it is missing or no number; NaN = could not be scored.
    success: score 1 where the value is at least this and 0 elsewhere, as an evaluation wants it;
      NaN = the value itself.
  """
  del ctx
  out = np.full(len(episodes), default)
  for i, e in enumerate(episodes):
    value = e.info.get(key)
    if isinstance(value, int | float | np.number) and not math.isnan(value):
      out[i] = value if math.isnan(success) else float(value >= success)
  return out
