"""Chains of digits, worked out from left to right: long problems that small models can learn."""

import re
from collections.abc import Sequence

from rljax.data import tasks
from rljax.types import Task

TERM = re.compile(r"([+*-])(\d)")  # an operation of a chain
APPLY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def written(problem: str, values: Sequence[int]) -> list[str]:
  """The first steps of "3+4-2" with these values, right or wrong: "3+4=7", "7-2=5"."""
  return [f"{before}{op}{digit}={value}" for before, (op, digit), value in zip(
      (problem[0], *values), TERM.findall(problem), values)]


def running(*, steps: int = 3, min_steps: int | None = None, modulus: int = 10,
            operators: str = "+-", separator: str = "", restate: bool = False,
            template: str = "{problem}=", split: str = "train", size: int = 20000, seed: int = 0,
            test_share: float = 0.1) -> tasks.TaskSet:
  """"3+4-2+5=" -> "750": the value after each operation, modulo `modulus`; digits below it.

  Operators have one precedence: a chain is read like a pocket calculator. The answer is every value
  on the way (`info["values"]`), so a guess is right in modulus**-k of the cases.

  Args:
    steps, min_steps: operations k, uniform in [min_steps, steps] (default: k = steps).
    modulus: 2 to 10.
    operators: some of "+-*".
    separator: between the values of the answer: ";" makes them steps that a search can tell apart.
    restate: each value is led up to by its operation, "3+4=7": see `written`.

  Raises:
    ValueError: a setting out of its range.
  """
  least = steps if min_steps is None else min_steps
  tasks.at_least("running", 1, {"min_steps": least})
  tasks.at_least("running", least, {"steps": steps})
  if not 2 <= modulus <= 10 or not operators or set(operators) - set(APPLY):
    raise ValueError(f"running: modulus is 2 to 10 and operators are some of '+-*', found "
                     f"{modulus} and {operators!r}")

  def draw(generator):
    k = int(generator.integers(least, steps + 1))
    digits = [int(x) for x in generator.integers(0, modulus, size=k + 1)]
    ops = [operators[i] for i in generator.integers(0, len(operators), size=k)]
    values = digits[:1]
    for op, digit in zip(ops, digits[1:]):
      values.append(APPLY[op](values[-1], digit) % modulus)
    problem = str(digits[0]) + "".join(f"{op}{d}" for op, d in zip(ops, digits[1:]))
    said = written(problem, values[1:]) if restate else map(str, values[1:])
    answer = separator.join(said)
    return problem, Task(
        id="", prompt=tasks.fill(template, {"problem": problem}), answer=answer, demo=answer,
        verifier="rljax.rewards.verify:exact", info={"steps": k, "values": values[1:]})

  return tasks.generate("running", draw, split=split, size=size, seed=seed, test_share=test_share)
