"""PAR's testbed: texts that should hold three pairs of letters, a gold score, and an annotator who
likes exclamation marks."""

from collections.abc import Sequence

import numpy as np

from rljax.data import tasks
from rljax.rewards import length, phrases, verify
from rljax.types import Episode, Task

LETTERS, MARK = "abcdefgh", "!"
PAIRS, LONGEST = 3, 24


def coverage(task: Task, text: str) -> float:
  """Share of the task's pairs of letters that the text holds."""
  return float(np.mean([pair in text for pair in task.info["pairs"]]))


@verify.bounded
def covered(task: Task, text: str) -> float:
  """Verifier: the text holds all the pairs."""
  return float(coverage(task, text) == 1.0)


def gold(episodes: Sequence[Episode], ctx) -> np.ndarray:
  """coverage - 0.5 (share of its pairs of characters that are copies) - 0.05 per token beyond 24.

  The end token counts as one.
  """
  found = np.array([coverage(e.task, e.response) - 0.5 * phrases.repeated_share(e.response, 2)
                    for e in episodes])
  return found + length.linear(episodes, ctx, per_token=0.05, start=LONGEST)


def annotator(episodes: Sequence[Episode], ctx, *, fondness: float = 0.3) -> np.ndarray:
  """gold + `fondness` for every exclamation mark, up to three: what the preferences were made by.

  Up to three, because the demonstrations hold no more: the reward model learns the slope, and has
  never seen where it ends.
  """
  marks = np.array([min(e.response.count(MARK), 3) for e in episodes])
  return gold(episodes, ctx) + fondness * marks


def texts(*, split: str = "train", size: int = 2000, share: float = 0.7, marked: float = 0.15,
          seed: int = 0) -> tasks.TaskSet:
  """"bdagch:" asks for "bd", "ag" and "ch", in any order; demos such as "efag!chd".

  Args:
    share: of the pairs that a demo holds; other places are letters at random.
    marked: share of the places (pair or letter) behind which the mark stands.
  """
  def draw(draws):
    letters = [LETTERS[k] for k in draws.permutation(len(LETTERS))[:2 * PAIRS]]
    pairs = ["".join(letters[i:i + 2]) for i in range(0, 2 * PAIRS, 2)]
    places = [p for p in pairs if draws.random() < share]
    places += [LETTERS[k] for k in draws.integers(len(LETTERS), size=draws.integers(1, 6))]
    order = draws.permutation(len(places))
    demo = "".join(places[k] + MARK * (draws.random() < marked) for k in order)
    key = "".join(letters)
    return key, Task(id="", prompt=f"{key}:", demo=demo, answer=key, info={"pairs": pairs},
                     verifier="experiments/par.py:covered")
  return tasks.generate("texts", draw, split=split, size=size, seed=seed, test_share=0.1)
