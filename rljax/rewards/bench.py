"""`python -m rljax.rewards.bench`: how many answers and programs a second this machine judges."""

import argparse
import json
import os
import sys
import time

import numpy as np

from rljax import sandbox
from rljax.rewards import code, pool
from rljax.types import Episode, Task, Turn


def numbers(i: int) -> tuple[str, str]:
  """A gold answer and a response's, as GSM8K has them; all differ, half are wrong."""
  n = 7919 * i % 100_003
  gold = (f"{n:,}", f"{n / 8}", f"\\frac{{{n}}}{{7}}", f"\\${n}")[i % 4]
  right = (f"{n}.0", f"{n}/8", f"{2 * n}/14", f"{n}.00 dollars")[i % 4]
  return gold, right if i % 2 else str(n + 1)


def expressions(i: int) -> tuple[str, str]:
  """LaTeX that has to be read and evaluated; all differ, half are wrong."""
  a, b, c = i + 2, 7919 * i % 97 + 2, 31 * i % 101 + 2
  gold = f"{a}\\sqrt{{{b}}}+\\frac{{{c}}}{{3}}"
  return gold, f"\\frac{{{c}+{3 * a + 1 - i % 2}\\sqrt{{{b}}}}}{{3}}"


def maths(pair, seconds: float, count: int) -> float:
  """Answers judged per second by `rljax.rewards.math:answer` in the pool; no pair comes twice."""
  judge, done = "rljax.rewards.math:answer", -1
  pool.shared().map(judge, [(Task("", "", answer="x^2"), "\\boxed{y^2}")] * 8, deadline=30)
  start = time.perf_counter()
  while time.perf_counter() - start < seconds:
    done += 1
    items = [(Task(str(i), "p", answer=gold), f"We add them up ... so it is \\boxed{{{said}}}.")
             for i, (gold, said) in enumerate(map(pair, range(done * count, (done + 1) * count)))]
    out = pool.shared().map(judge, items, deadline=30)
    assert sum(o.value for o in out) >= 0.45 * count
  return (done + 1) * count / (time.perf_counter() - start)


def programs(seconds: float, mode: str) -> float:
  """Programs judged per second, two tests each."""
  tests = {"entry": "f", "tests": ["assert f(3) == 9", "assert f([1, 2]) == [1, 4]"]}
  text = "```python\ndef f(x):\n  return [y * y for y in x] if isinstance(x, list) else x * x\n```"
  batch = [Episode(Task("t", "p", info={"code": tests}),
                   (Turn("assistant", np.zeros(1, np.int32), text=text),))] * 32
  code.unit_tests(batch[:2], None, mode=mode)
  start, done = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    assert code.unit_tests(batch, None, mode=mode).all()
    done += len(batch)
  return done / (time.perf_counter() - start)


def main() -> int:
  parser = argparse.ArgumentParser("rljax.rewards.bench")
  parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
  parser.add_argument("--json", action="store_true")
  args = parser.parse_args()
  mode = "required" if sandbox.describe().startswith("bubblewrap") else "rlimit"
  result = {"programs_per_second": programs(args.seconds, mode),
            "numbers_per_second": maths(numbers, args.seconds, 1000),
            "expressions_per_second": maths(expressions, args.seconds, 64),
            "sandbox": sandbox.describe(), "processors": len(pool.shared()),
            "load_average": os.getloadavg()[0]}
  if args.json:
    print(json.dumps(result))
    return 0
  print(f"{result['processors']} processors, load average {result['load_average']:.2f}; "
        f"{result['sandbox']}")
  for name, key in (("answers, numbers", "numbers"), ("answers, expressions", "expressions"),
                    ("sandboxed programs", "programs")):
    print(f"  {name:<22}{result[key + '_per_second']:8.0f} / s")
  return 0


if __name__ == "__main__":
  sys.exit(main())
