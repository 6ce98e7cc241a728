"""Chains of digits, worked out from left to right: long problems that small models can learn."""

from rljax.data import tasks
from rljax.types import Task

APPLY = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def running(*, steps: int = 3, min_steps: int | None = None, modulus: int = 10,
            operators: str = "+-", separator: str = "", template: str = "{problem}=",
            split: str = "train", size: int = 20000, seed: int = 0, test_share: float = 0.1
            ) -> tasks.TaskSet:
  """"3+4-2+5=" -> "750": the value after each operation, modulo `modulus`; digits below it.

  Operators have one precedence: a chain is read like a pocket calculator. The answer is every value
  on the way (`info["values"]`), so a guess is right in modulus**-k of the cases.

  Args:
    steps, min_steps: operations k, uniform in [min_steps, steps] (default: k = steps).
    modulus: 2 to 10.
    operators: some of "+-*".
    separator: between the values of the answer: ";" makes them steps that a search can tell apart.

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
    answer = separator.join(map(str, values[1:]))
    return problem, Task(
        id="", prompt=tasks.fill(template, {"problem": problem}), answer=answer, demo=answer,
        verifier="rljax.rewards.verify:exact", info={"steps": k, "values": values[1:]})

  return tasks.generate("running", draw, split=split, size=size, seed=seed, test_share=test_share)
