"""State of a recipe over its steps: moving baselines, normalisers, records per task.

A memory sits between the rewards and the selection: it sees all scored episodes of a step and may
change them (a column, a score). Its state is JSON and part of the checkpoint, so a run that was
killed goes on with the same numbers.
"""

import dataclasses
import math
from collections.abc import Callable

from rljax import advantages, types
from rljax.data import pairs


@dataclasses.dataclass(frozen=True)
class Memory:
  """Two pure functions.

  Attributes:
    init: () -> state, JSON-like.
    update: (state, episodes) -> (state, episodes), as many episodes in the same order.
  """

  init: Callable
  update: Callable


def baselines(*, by: tuple[str, ...] = ("game", "seat"), decay: float = 0.95,
              start: float = 0.0, score: str = "reward", update_first: bool = False) -> Memory:
  """A moving average of the score per key, in the column baseline_B (`advantages.baseline`).

  SPIRAL's role-conditioned advantage estimation, https://arxiv.org/abs/2506.24119. An episode in
  which the policy said nothing, that failed, or whose score is NaN, leaves the averages alone.

  Args:
    by: entries of `Episode.info` that make the key; () keeps one baseline for all.
    decay, start, update_first: see `advantages.ema_baselines`.
    score: which score.
  """
  def update(state, episodes):
    keys = ["/".join(str(e.info.get(name, "")) for name in by) for e in episodes]
    counts = lambda e: e.num_actions and e.status != types.ERROR
    values = [e.scores.get(score, math.nan) if counts(e) else math.nan for e in episodes]
    columns, state = advantages.ema_baselines(
        state, keys, values, decay=decay, start=start, update_first=update_first)
    return state, [pairs.with_columns(e, baseline_B=b) for e, b in zip(episodes, columns)]

  return Memory(dict, update)
