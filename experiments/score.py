"""SCoRe's testbed: signs before given digits so that the sum is right. Finding them is a search,
checking them is one sum from left to right."""

import itertools

import numpy as np

from rljax.data import tasks
from rljax.types import Task


def final(text: str) -> str:
  """The expression of an attempt: what stands behind the check of the one before, "=-3<;"."""
  return text.rpartition(";")[2]


def value(digits: str, expression: str) -> int | None:
  """The sum, if the expression is these digits in their order with a sign between; else None."""
  if expression[::2] != digits or not set(expression[1::2]) <= set("+-"):
    return None
  signs = [1, *(1 if s == "+" else -1 for s in expression[1::2])]
  return sum(s * int(d) for s, d in zip(signs, digits)) if len(signs) == len(digits) else None


def oracle(task: Task, text: str) -> float:
  """Verifier: the final expression is the digits with the right sum."""
  return float(value(task.info["digits"], final(text)) == task.answer)


def written(digits: str, signs) -> str:
  return digits[0] + "".join(s + d for s, d in zip(signs, digits[1:]))


def sums(*, digits: int = 4, split: str = "train", size: int = 300, right: float = 0.6,
         seed: int = 0, test_share: float = 0.1) -> tasks.TaskSet:
  """"7351=10:" with two demonstrated attempts such as "7+3+5-1" and "=14>;7+3-5+1".

  The second attempt begins with the correct sum of the first and how it compares to the wanted one,
  and goes on, whatever that is, with the same expression or, as often, with another one: what a
  base learns is to check, not what to do about it.

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
    found = value(shown, first)
    check = f"={found}{'<' if found < answer else '>' if found > answer else '='};"
    prompt = f"{shown}={answer}:"
    return prompt, Task(
        id="", prompt=prompt, answer=answer, demo=first, verifier="experiments/score.py:oracle",
        info={"digits": shown, "turns": [first, check + again]})

  return tasks.generate("signed_sums", draw, split=split, size=size, seed=seed,
                        test_share=test_share)
