"""A run on several hosts, ended N times at random; it must come out as the one left in peace.

  python -m tests.drills.kill --n 30 --processes 4

Each time a random host gets SIGKILL or SIGTERM at a random moment, from its start to its last step.
All hosts must end by themselves within the deadline; the same command then goes on. At the end the
weights (checksums), metrics and episodes equal, bit for bit, those of the run left in peace.
"""

import argparse
import collections
import os
import random
import signal
import sys
import tempfile
import threading
import time

from rljax.train import checkpoint
from tests.multihost import fleet
from tests.train import loop_test

STARTING = 0.2  # share of the ends that fall into the start


def follow(child, phases):
  """Keeps the last phase a child has entered, and counts its steps."""
  for line in child.stdout:
    phases["last"] = line.strip()
    phases["steps"] += line.strip() == "step"


def end_once(rs, count, args, cache, deadline) -> dict:
  """Starts all hosts and ends one of them; what was seen."""
  children = fleet.start(count, args, cache=cache, deadline=deadline)
  phases = [{"last": "start", "steps": 0} for _ in children]
  for child, phase in zip(children, phases):
    threading.Thread(target=follow, args=(child, phase), daemon=True).start()
  victim = rs.randrange(count)
  how = rs.choice([signal.SIGKILL, signal.SIGTERM])
  wait = rs.uniform(0, 2.0)
  if rs.random() < STARTING:
    time.sleep(rs.uniform(0, 8.0))
  else:
    while not phases[victim]["steps"] and not any(c.poll() is not None for c in children):
      time.sleep(0.01)
    time.sleep(wait)
  seen = {"host": victim, "signal": how.name, "phase": phases[victim]["last"]}
  children[victim].send_signal(how)
  began = time.monotonic()
  most = deadline + 30
  while any(c.poll() is None for c in children) and time.monotonic() - began < most:
    time.sleep(0.05)
  hung = [i for i, c in enumerate(children) if c.poll() is None]
  for c in children:
    if c.poll() is None:
      c.kill()
    c.wait()
  return {**seen, "seconds": time.monotonic() - began, "hung": hung,
          "codes": [c.returncode for c in children], "errors": [fleet.said(c) for c in children]}


def result(workdir):
  step, host = checkpoint.read_host(os.path.join(workdir, "checkpoints"))
  return (step, host["checksums"], host["curriculum"], host["tokens"],
          loop_test.metrics(workdir), loop_test.episodes(workdir))


def drill(n: int, processes: int, steps: int, seed: int, deadline: float, folder: str,
          show=print) -> dict:
  """Runs the drill; raises AssertionError when it fails."""
  rs = random.Random(seed)
  whole, broken, cache = (os.path.join(folder, x) for x in ("whole", "broken", "cache"))
  args = lambda workdir: ["--config", loop_test.TINY, "--workdir", workdir,
                          f"--config.steps={steps}", "--config.eval.every=0"]
  fleet.run(processes, args(whole), cache=cache, deadline=deadline)
  counts, longest, codes = collections.Counter(), 0.0, collections.Counter()
  for k in range(n):
    seen = end_once(rs, processes, args(broken), cache, deadline)
    newest = checkpoint.read_host(os.path.join(broken, "checkpoints"))
    show(f"{k + 1:>3}/{n}  {seen['signal']} to host {seen['host']} in {seen['phase']!r}: codes "
         f"{seen['codes']} within {seen['seconds']:.1f} s; checkpoint {newest and newest[0]}",
         flush=True)
    assert not seen["hung"], f"hosts {seen['hung']} did not end\n" + "\n".join(seen["errors"])
    assert 2 not in seen["codes"], "\n".join(seen["errors"])
    counts[seen["phase"]] += 1
    longest = max(longest, seen["seconds"])
    codes.update(seen["codes"])
    if newest and newest[0] >= steps:
      show("the run was done; a new one", flush=True)
      assert result(whole) == result(broken)
      broken = os.path.join(folder, f"broken-{k}")
  fleet.run(processes, args(broken), cache=cache, deadline=deadline)
  assert result(whole) == result(broken), "the broken run came out differently"
  return {"ends": n, "phases": dict(counts), "codes": dict(codes), "longest_s": round(longest, 1)}


def main() -> int:
  parser = argparse.ArgumentParser("python -m tests.drills.kill", description=__doc__)
  parser.add_argument("--n", type=int, default=30)
  parser.add_argument("--processes", type=int, default=4)
  parser.add_argument("--steps", type=int, default=150)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--deadline", type=float, default=60.0,
                      help="of the watchdog, seconds: more than the compilation takes here")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    print(drill(args.n, args.processes, args.steps, args.seed, args.deadline, folder))
  return 0


if __name__ == "__main__":
  sys.exit(main())
