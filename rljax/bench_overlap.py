"""Steps per second with `lag=1` against `lag=0`, on two devices of which one only samples.

  python -m rljax.bench_overlap [--slots 32] [--steps 40]

Two simulated devices with one thread each stand in for two halves of a slice, so it needs two idle
cores. Overlap can gain at most (sample + update) / max(sample, update); `--slots` (requests decoded
together) makes the two about equal. Nor can it gain more than two processes of bare matrix products
do over one: where two cores share a memory or an arithmetic unit, that is below 2 and printed
first. Both begin with the same half-trained base, so that the last rewards say what the lag costs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

MATMULS = """
import time, numpy as np
a, n, end = np.random.rand(512, 512).astype("f4"), 0, time.monotonic() + 5
while time.monotonic() < end: a @ a; n += 1
print(n)
"""
FLAGS = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"


def parallel_gain() -> float:
  """How much more matrix products two processes of one thread do than one."""
  def rate(processes):
    children = [subprocess.Popen(
        [sys.executable, "-c", MATMULS], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
                for _ in range(processes)]
    return sum(int(c.communicate()[0]) for c in children)
  return rate(2) / rate(1)


def measure(lag: int, slots: int, steps: int) -> dict[str, float]:
  """Seconds of a step and its parts (medians), and the mean reward of the last ten steps."""
  import numpy as np

  from rljax import bench
  from rljax.config import fn
  from rljax.train import build, loop
  config = bench.quickstart_config()
  config.lag, config.layout.sampler, config.sampling.slots = lag, 1, slots
  config.updates.policy.objective.correction = fn("rljax.nums:truncated_weight")
  config.evals.test.template = config.tasks.template  # the base's skill is measured on it
  config.roles.policy.init = fn("rljax.train.base:trained", noise=0.0, steps=800, at_least=0.0,
                                at_most=1.0)
  with tempfile.TemporaryDirectory() as workdir:
    lp = loop.Loop(build.build(config), workdir, quiet=True)
    lp.start()
    rows = [lp.step(step) for step in range(steps + 3)][3:]
    lp.stop()
  out = {k: float(np.median([r[f"time/{k}"] for r in rows])) for k in ("step", "sample", "update")}
  return {**out, "reward": float(np.mean([r["reward/mean"] for r in rows[-10:]]))}


def main() -> int:
  parser = argparse.ArgumentParser("rljax.bench_overlap")
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument("--slots", type=int, default=32)
  parser.add_argument("--lag", type=int, default=None, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.lag is not None:
    print(json.dumps(measure(args.lag, args.slots, args.steps)))
    return 0
  print(f"two processes of matrix products: {parallel_gain():.2f} times one", flush=True)
  found = []
  for lag in (0, 1):
    done = subprocess.run(
        [sys.executable, "-m", "rljax.bench_overlap", f"--lag={lag}", f"--slots={args.slots}",
         f"--steps={args.steps}"], check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": FLAGS})
    found.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"lag={lag}: " + "  ".join(f"{k} {v * 1e3:.1f} ms" if k != "reward" else f"{k} {v:.3f}"
                                     for k, v in found[-1].items()), flush=True)
  most = (found[0]["sample"] + found[0]["update"]) / max(found[0]["sample"], found[0]["update"])
  print(f"{found[0]['step'] / found[1]['step']:.2f} times the steps per second (at most "
        f"{most:.2f}); load average {os.getloadavg()[0]:.2f}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
