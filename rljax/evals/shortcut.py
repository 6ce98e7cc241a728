"""Right answers that the description does not carry: the language-shortcut rate."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax.types import Episode


def rate(right: Sequence[float], read: Sequence[float]) -> float:
  """P(a right, the reader wrong) / P(a right); 0 if nothing is right.

  Vision-SR1, https://github.com/zli12321/Vision-SR1.
  """
  right, read = np.asarray(right) > 0.5, np.asarray(read) > 0.5
  return float(np.sum(right & ~read) / right.sum()) if right.any() else 0.0


def measure(episodes: Sequence[Episode], problems: int, ctx, *, reader: Callable,
            score: str = "correct") -> dict[str, float]:
  """`accuracy`; `sufficiency`, how often the reader is right; `shortcut`, see `rate`.

  Args:
    episodes: scored. problems: how many there are; one without an episode counts as wrong.
    reader: a reward that asks who reads (`rljax.rewards.reader:sufficient`), of a frozen role:
      the reader of training moves with the policy.
    score: name of the score that says whether an answer is right.
  """
  right = np.array([e.scores[score] for e in episodes])
  read = np.asarray(reader(episodes, ctx))
  tried = len({e.group for e in episodes}) / max(problems, 1)
  return {"accuracy": float(np.mean(right > 0.5)) * tried,
          "sufficiency": float(np.mean(read > 0.5)) * tried, "shortcut": rate(right, read)}
