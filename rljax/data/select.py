"""Which episodes train: `(episodes, *, ...) -> episodes`, order kept; all but `right` keep whole
groups.

A dropped episode leaves the batch before `collate`: it enters no group statistic, no whitening and
no divisor: N in "mean over rows" counts the kept ones only. DAPO refills the batch; without a
refill the step is a mean over fewer rows.
"""

from collections.abc import Callable, Sequence

import numpy as np

from rljax import types

ZERO_SPREAD = 1e-6  # as in advantages.group_norm: below it is rounding, not signal


def groups(episodes: Sequence[types.Episode], score: str) -> dict[int, np.ndarray]:
  """The finite scores of every group, by `Episode.group`; a missing score counts as NaN."""
  found: dict[int, list[float]] = {}
  for e in episodes:
    value = float(e.scores.get(score, np.nan))
    found.setdefault(e.group, []).extend([value] if np.isfinite(value) else [])
  return {group: np.array(values) for group, values in found.items()}


def drop_zero_variance(episodes: Sequence[types.Episode], *,
                       score: str = "reward") -> list[types.Episode]:
  """Keeps the groups whose scores differ: those that have a group-relative advantage at all.

  A group with fewer than two scored episodes is dropped. Dropped rows leave the divisor (see the
  module).

  Args:
    episodes: of any groups.
    score: name of the score.
  """
  spread = {g: len(x) > 1 and np.ptp(x) > ZERO_SPREAD for g, x in groups(episodes, score).items()}
  return [e for e in episodes if spread[e.group]]


def dynamic_sampling(episodes: Sequence[types.Episode], *, score: str = "reward", low: float = 0.0,
                     high: float = 1.0) -> list[types.Episode]:
  """Keeps the groups with low < mean score < high: neither all wrong nor all right.

  DAPO, https://arxiv.org/abs/2503.14476 equation 11, on a score in [0, 1] such as correctness (the
  metric may differ from the training reward). An accuracy band is the same function. Refilling the
  batch is the loop's: it draws again until enough groups are kept. Dropped rows leave the divisor
  (see the module).

  Args:
    episodes: of any groups.
    score: name of the score.
    low, high: open interval for the group's mean over its scored episodes.
  """
  means = {g: x.mean() if len(x) else np.nan for g, x in groups(episodes, score).items()}
  return [e for e in episodes if low < means[e.group] < high]


def right(episodes: Sequence[types.Episode], *, score: str = "correct", threshold: float = 0.5
          ) -> list[types.Episode]:
  """Keeps the episodes with a score of at least `threshold`: what expert iteration and ReST-EM
  (https://arxiv.org/abs/2312.06585) imitate. A NaN is not kept."""
  return [e for e in episodes if e.scores.get(score, np.nan) >= threshold]


def top_variance(episodes: Sequence[types.Episode], *, score: str = "reward",
                 fraction: float = 0.75) -> list[types.Episode]:
  """Keeps the `fraction` of groups (rounded up) with the largest standard deviation.

  SPEAR, https://arxiv.org/abs/2509.22601 (0.75). Ties keep the earlier group. Dropped rows leave
  the divisor (see the module).

  Args:
    episodes: of any groups.
    score: name of the score.
    fraction: in (0, 1].
  """
  spread = {g: x.std() if len(x) else -1.0 for g, x in groups(episodes, score).items()}
  ranked = sorted(spread, key=lambda g: -spread[g])
  kept = set(ranked[:int(np.ceil(fraction * len(ranked)))])
  return [e for e in episodes if e.group in kept]


def chain(episodes: Sequence[types.Episode], *, steps: tuple[Callable, ...]
          ) -> list[types.Episode]:
  """Applies several in order, for example (pairs.win_rates, pairs.best_worst)."""
  for step in steps:
    episodes = step(episodes)
  return list(episodes)
