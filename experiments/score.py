"""SCoRe's testbed: signs before given digits so that the sum is right. Finding them is a search,
checking them is one sum from left to right."""

import itertools

import numpy as np

from rljax.data import tasks
from rljax.types import Task


def final(text: str) -> str:
  """The expression of an attempt: what stands behind the check of the one before, "=10,15,14>;"."""
  return text.rpartition(";")[2]


def sums_of(digits: str, expression: str) -> list[int]:
  """The sums on the way, the first digit being one, if the expression is these digits in their
  order with a sign between; else []."""
  signs = "+" + expression[1::2]
  if expression[::2] != digits or not set(signs) <= set("+-") or len(signs) != len(digits):
    return []
  return list(itertools.accumulate(int(s + d) for s, d in zip(signs, digits)))


def value(digits: str, expression: str) -> int | None:
  """The sum of such an expression; else None."""
  found = sums_of(digits, expression)
  return found[-1] if found else None


def check(digits: str, expression: str, wanted: int) -> str:
  """"=10,15,14>;" of "7+3+5-1" where 6 is wanted."""
  found = sums_of(digits, expression)
  sign = "=" if found[-1] == wanted else "<" if found[-1] < wanted else ">"
  return f"={','.join(map(str, found[1:]))}{sign};"


def oracle(task: Task, text: str) -> float:
  """Verifier: the final expression is the digits with the right sum."""
  return float(value(task.info["digits"], final(text)) == task.answer)


def written(digits: str, signs) -> str:
  return digits[0] + "".join(s + d for s, d in zip(signs, digits[1:]))


def sums(*, digits: int = 4, split: str = "train", size: int = 300, right: float = 0.6,
         seed: int = 0, test_share: float = 0.1) -> tasks.TaskSet:
  """"7351=10:" with two demonstrated attempts such as "7+3+5-1" and
  "=10,15,14>;7+3-5+1".

  The second attempt begins with the correct sums of the first and how the last compares to the
  wanted one, and goes on, whatever that is, with the same expression or, as often, with another
  one: what a base learns is to check, not what to do about it.

  Args:
    digits: n; there are 2^(n-1) expressions.
    right: share of right first attempts; the others are any expression.
  """
  signs = ["".join(s) for s in itertools.product("+-", repeat=digits - 1)]

  def draw(draws: np.random.Generator):
    shown = "".join(map(str, draws.integers(1, 10, digits)))
    wanted = written(shown, signs[draws.integers(len(signs))])
    answer = value(shown, wanted)
    first = wanted if draws.random() < right else written(shown, signs[draws.integers(len(signs))])
    others = [e for e in (written(shown, s) for s in signs) if e != first]
    again = first if draws.random() < 0.5 else others[draws.integers(len(others))]
    prompt = f"{shown}={answer}:"
    return prompt, Task(
        id="", prompt=prompt, answer=answer, demo=first, verifier="experiments/score.py:oracle",
        info={"digits": shown, "turns": [first, check(shown, first, answer) + again]})

  return tasks.generate("signed_sums", draw, split=split, size=size, seed=seed,
                        test_share=test_share)
