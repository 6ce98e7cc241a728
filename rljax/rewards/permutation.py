"""Rewards for an order of K things, told as "3,1,2": exact, graded by position, gated by format.

Visual Jigsaw, https://github.com/penghao-wu/visual_jigsaw. `task.answer` is the true order, K
distinct integers from 1 to K.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from rljax import config
from rljax.rewards import verify
from rljax.types import Episode, Task

_INTEGERS = re.compile(r"\s*[0-9]{1,4}(\s*,\s*[0-9]{1,4})*\s*")
FORMATS = ("integers", "boxed")
WORDS, REPEATS = 7, 3  # a line of so many words may follow itself so often


def said(text: str, size: int, form: str = "integers") -> tuple[bool, tuple[int, ...]]:
  """(the format is right, the integers given; () if there are none).

  Args:
    size: K. form: "integers", K of them with commas and nothing else; or "boxed", a thinking block
      and then a box, with whatever in it.

  Raises:
    ConfigError: another form.
  """
  if form not in FORMATS:
    raise config.ConfigError(f"permutation: form must be one of {', '.join(FORMATS)}, found "
                             f"{form!r}")
  text = text[-verify.MAX_CHARS:]
  if form == "boxed":
    thought, end, rest = text.strip().partition("</think>")
    _, box, inside = rest.rpartition("\\boxed{")
    formed = bool(thought.startswith("<think>") and end and box and inside.endswith("}"))
    readable = formed and _INTEGERS.fullmatch(inside[:-1])
    return formed, tuple(map(int, inside[:-1].split(","))) if readable else ()
  if not _INTEGERS.fullmatch(text):
    return False, ()
  numbers = tuple(map(int, text.split(",")))
  return len(numbers) == size, numbers


def matches(answer: Sequence[int], numbers: Sequence[int]) -> int | None:
  """At how many positions they agree; None unless `numbers` is a permutation of 1 .. K.

  Raises:
    ConfigError: the true order is no permutation.
  """
  if sorted(answer) != list(range(1, len(answer) + 1)):
    raise config.ConfigError(f"the true order {tuple(answer)} is no permutation of "
                             f"1 .. {len(answer)}")
  if sorted(numbers) != sorted(answer):
    return None
  return sum(a == b for a, b in zip(answer, numbers))


@verify.bounded
def exact(task: Task, text: str) -> float:
  """Verifier: the whole text is the true order."""
  return float(matches(task.answer, said(text, len(task.answer))[1]) == len(task.answer))


def placed(episodes: Sequence[Episode], ctx, *, form: str = "integers") -> np.ndarray:
  """Share of the positions that are right; 0 where no permutation is given. float64 [B]."""
  del ctx
  out = []
  for e in episodes:
    right = matches(e.task.answer, said(e.response, len(e.task.answer), form)[1])
    out.append((right or 0) / len(e.task.answer))
  return np.array(out)


def graded(episodes: Sequence[Episode], ctx, *, partial: float = 0.2, form_bonus: float = 0.2,
           partial_from: int = 5, form: str = "integers") -> np.ndarray:
  """1 + f for the true order; gamma * share of right positions + f for another one; f for a format
  without a permutation; 0 without the format; and 0.5 less for a line that repeats itself.

  As the released code, but partial credit asks for a true permutation of 1 .. K (there, distinct
  integers are enough). Below `partial_from` pieces there is none: with K <= 4 a wrong order gets f.

  Args:
    partial: gamma; 0 rewards exact answers only.
    form_bonus: f.
    partial_from: least K with partial credit.
    form: see `said`.

  Returns:
    float64 [B], in [-0.5, 1 + f].

  Raises:
    ConfigError: another form, or a true order that is no permutation.
  """
  del ctx
  out = []
  for e in episodes:
    answer = e.task.answer
    formed, numbers = said(e.response, len(answer), form)
    right, reward = matches(answer, numbers), form_bonus if formed else 0.0
    if formed and right == len(answer):
      reward += 1.0
    elif formed and right is not None and len(answer) >= partial_from:
      reward += partial * right / len(answer)
    out.append(reward - 0.5 * repeats_itself(e.response))
  return np.array(out)


def repeats_itself(text: str) -> bool:
  """A line of at least 7 words stands more than 3 times in a row."""
  lines = (line.strip() for line in text.splitlines())
  return any(len(line.split()) >= WORDS and sum(1 for _ in same) > REPEATS
             for line, same in itertools.groupby(lines))
