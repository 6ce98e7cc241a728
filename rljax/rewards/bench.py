"""`python -m rljax.rewards.bench`: how many answers and programs a second this machine judges."""

import argparse
import json
import os
import resource
import sys
import time

import numpy as np

from rljax import sandbox
from rljax.rewards import code, pool
from rljax.types import Episode, Task, Turn

# What a batch of maths tasks looks like: mostly plain numbers, some LaTeX; half the answers wrong.
GOLDS = ("72", "18", "5", "\\frac{1}{2}", "1,234", "0.75", "-3", "14\\frac{6}{7}", "2\\sqrt{13}",
         "(18,6)", "x^2+7x+10", "25\\%")


def maths(seconds: float) -> float:
  """Answers judged per second by `rljax.rewards.math:answer` in the pool, after a warm-up."""
  items = []
  for i in range(1200):
    gold = GOLDS[i % len(GOLDS)]
    said = gold if i % 2 else GOLDS[(i + 3) % len(GOLDS)]
    text = f"First we look at the question. Then ... so the result is \\boxed{{{said}}}."
    items.append((Task(str(i), "p", answer=gold), text))
  judge = lambda: pool.shared().map("rljax.rewards.math:answer", items, deadline=30)
  judge()
  start, done = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    assert all(o.status == "ok" for o in judge())
    done += len(items)
  return done / (time.perf_counter() - start)


def programs(seconds: float, mode: str) -> tuple[float, float]:
  """(programs judged per second, processor seconds of one), two tests each."""
  tests = {"entry": "f", "tests": ["assert f(3) == 9", "assert f([1, 2]) == [1, 4]"]}
  text = "```python\ndef f(x):\n  return [y * y for y in x] if isinstance(x, list) else x * x\n```"
  batch = [Episode(Task("t", "p", info={"code": tests}),
                   (Turn("assistant", np.zeros(1, np.int32), text=text),))] * 32
  code.unit_tests(batch[:2], None, mode=mode)
  used = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
  start, before, done = time.perf_counter(), used(), 0
  while time.perf_counter() - start < seconds:
    assert code.unit_tests(batch, None, mode=mode).all()
    done += len(batch)
  return done / (time.perf_counter() - start), (used() - before) / done


def main() -> int:
  parser = argparse.ArgumentParser("rljax.rewards.bench")
  parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
  parser.add_argument("--json", action="store_true")
  args = parser.parse_args()
  mode = "required" if sandbox.describe().startswith("bubblewrap") else "rlimit"
  rate, cost = programs(args.seconds, mode)
  result = {"maths_per_second": maths(args.seconds), "programs_per_second": rate,
            "program_cpu_seconds": cost, "sandbox": sandbox.describe(),
            "processors": len(pool.shared()), "load_average": os.getloadavg()[0]}
  if args.json:
    print(json.dumps(result))
    return 0
  print(f"{result['processors']} processors, load average {result['load_average']:.2f}; "
        f"{result['sandbox']}")
  print(f"  maths answers      {result['maths_per_second']:8.0f} / s")
  print(f"  sandboxed programs {rate:8.1f} / s   ({cost * 1e3:.0f} ms of processor time each)")
  return 0


if __name__ == "__main__":
  sys.exit(main())
