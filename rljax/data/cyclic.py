"""CYC: five responses whose preferences form a cycle, so that no reward can express them.

0 beats 1, 1 beats 2 and 2 beats 0 with probability 0.9; 0 beats 3 and 4 with 0.95, 1 and 2 beat
them with 0.6. The Borda (Bradley-Terry) winner is 0, which 2 exploits by 0.4; the minimax winner is
uniform on 0, 1, 2, which nothing exploits.
"""

from collections.abc import Sequence

import numpy as np

from rljax import rng
from rljax.data import tasks
from rljax.types import Episode, Task

OPTIONS = "01234"
P = ((0.5, 0.9, 0.1, 0.95, 0.95),
     (0.1, 0.5, 0.9, 0.6, 0.6),
     (0.9, 0.1, 0.5, 0.6, 0.6),
     (0.05, 0.4, 0.4, 0.5, 0.5),
     (0.05, 0.4, 0.4, 0.5, 0.5))


def choices(*, weights: Sequence[float] = (1, 1, 1, 1, 1), prompt: str = "?",
            size: int = 4096) -> tasks.TaskSet:
  """Tasks that all ask the same; each demo is one of OPTIONS, drawn by weight.

  The answer is option 3, so that pass@1 is the probability of 3.
  """
  share = np.asarray(weights, float) / np.sum(weights)

  def draw(i):
    demo = OPTIONS[rng.host(0, "choices", i).choice(len(OPTIONS), p=share)]
    return Task(id=f"choices/{i}", prompt=prompt, answer="3", demo=demo,
                verifier="rljax.rewards.verify:exact", info={"options": list(OPTIONS)})
  return tasks.TaskSet(draw, size)


def preferences(episodes: Sequence[Episode], *, p: Sequence[Sequence[float]] = P) -> np.ndarray:
  """float [K, K]: P(i preferred to j) of each pair of responses, by what they say.

  NaN, everywhere in its row and column, for a response that is none of the OPTIONS. A leaf for
  `pairs.win_rates`.
  """
  kinds = [OPTIONS.find(e.response) if len(e.response) == 1 else -1 for e in episodes]
  found = np.asarray(p, np.float64)[np.ix_(kinds, kinds)]
  unknown = np.array(kinds) < 0
  found[unknown] = found[:, unknown] = np.nan
  return found


def exploitability(policy: np.ndarray, *, p: Sequence[Sequence[float]] = P) -> dict[str, float]:
  """max_y P(y > policy) - 1/2: what the best answer to a policy wins more than half.

  Args:
    policy: float [options], probabilities.
    p: p[i][j] = P(i > j).

  Returns:
    {"exploitability": number in [0, 1/2]}.
  """
  return {"exploitability": float(np.max(np.asarray(p, float) @ policy) - 0.5)}
