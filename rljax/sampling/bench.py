"""`python -m rljax.sampling.bench`: the sampler against other samplers, with the same weights.

A random model of the Llama form (no trained weights are needed to time one) answers random prompts
in three settings:

  equal    all responses have one length
  skewed   a vocabulary of 32 with an end token: lengths are geometric, mean about 32
  groups   16 responses to each long prompt

Every engine gets the same weights from one Hugging Face folder, the same prompts and the same
limits, one after the other in processes of their own. Compare only on an otherwise idle machine;
the load average is printed. Peers are other Python environments:

  python -m rljax.sampling.bench --peer-transformers PY --peer-tunix PY

The floor is the arithmetic of the tokens that were read and drawn, at the rate of a large matmul.
"""

import argparse
import os
import sys
import tempfile
import time

import jax
import numpy as np

from rljax import bench as bench_lib
from rljax import sharding
from rljax.models import export, policy
from rljax.sampling import engine as engine_lib

CASES = {
    "equal": dict(requests=128, prompt=16, limit=64, group=1, stop=False),
    "skewed": dict(requests=512, prompt=16, limit=240, group=1, stop=True),
    "groups": dict(requests=128, prompt=256, limit=32, group=16, stop=False),
}
SIZES = dict(width=256, layers=4, heads=8, mlp=1024, scan=False)
VOCAB, END = 32, 1


def prompts(case: dict) -> list[list[int]]:
  rs = np.random.default_rng(0)
  unique = [rs.integers(2, VOCAB, case["prompt"]).tolist()
            for _ in range(case["requests"] // case["group"])]
  return [p for p in unique for _ in range(case["group"])]


def model():
  """A random decoder whose next token is near uniform, so that responses end by chance."""
  made = policy.decoder(VOCAB, **SIZES)
  params = made.init(jax.random.key(0))
  return made, {**params, "embed": params["embed"] * 0.05}


def floor_seconds(case: dict, tokens: int, rate: float) -> float:
  """Seconds of arithmetic: each unique prompt read once, each token but the last of a row read."""
  cfg = policy.decoder(VOCAB, **SIZES).cfg
  flops = 2 * cfg.layers * (4 * cfg.width**2 + 3 * cfg.width * cfg.mlp)
  read = case["requests"] // case["group"] * case["prompt"]
  return flops * (read + tokens - case["requests"]) / rate


def ours(case: dict, slots: int) -> dict:
  made, params = model()
  mesh = sharding.mesh()
  params = jax.device_put(params, sharding.replicated(mesh))
  engine = engine_lib.Engine(
      made, stop_ids=(END,) if case["stop"] else (), slots=slots,
      prompt_buckets=(case["prompt"],), max_tokens=case["limit"], mesh=mesh)
  engine.warm_up(params)
  requests = [engine_lib.Request(np.asarray(p, np.int32), (i, 0), case["limit"])
              for i, p in enumerate(prompts(case))]
  best = {"seconds": np.inf}
  for run in range(3):
    before = dict(vars(engine.stats))
    start = time.perf_counter()
    done = engine.generate(params, requests, jax.random.key(run))
    seconds = time.perf_counter() - start
    spent = {k: v - before[k] for k, v in vars(engine.stats).items()}
    if seconds < best["seconds"]:
      best = {"seconds": seconds, "tokens": sum(len(c.tokens) for c in done),
              "slots_used": spent["used"] / spent["rows"],
              "host_share": spent["host_s"] / seconds}
  return best


def peer(python: str, which: str, case: dict, folder: str, slots: int) -> dict:
  """{"seconds", "tokens"} of one case in another environment, or {"error"}."""
  return bench_lib.ask_peer(python, {**case, "prompts": prompts(case), "folder": folder,
                                     "slots": slots, "end": END, "which": which})


def main(argv=None) -> int:
  parser = argparse.ArgumentParser("rljax.sampling.bench")
  parser.add_argument("--peer-transformers", default="", metavar="PY")
  parser.add_argument("--peer-tunix", default="", metavar="PY")
  parser.add_argument("--slots", type=int, default=64)
  parser.add_argument("--cases", default=",".join(CASES))
  args = parser.parse_args(argv)
  sharding.split_cpu()
  rate = bench_lib.matmul_rate()
  print(f"load {os.getloadavg()[0]:.2f}, {rate / 1e9:.0f} GFLOP/s in a large matmul, "
        f"{args.slots} slots")
  peers = [(args.peer_transformers, "generate"), (args.peer_transformers, "continuous"),
           (args.peer_tunix, "tunix")]
  with tempfile.TemporaryDirectory() as folder:
    made, params = model()
    export.write(made, params, folder)
    for name in args.cases.split(","):
      case = CASES[name]
      found = {"rljax": ours(case, args.slots)}
      found |= {w: peer(python, w, case, folder, args.slots) for python, w in peers if python}
      _print(name, case, found, rate)
  return 0


def _print(name, case, found, rate):
  speed = {k: f["tokens"] / f["seconds"] for k, f in found.items() if "seconds" in f}
  mine = found["rljax"]
  share = floor_seconds(case, mine["tokens"], rate) / mine["seconds"]
  print(f"\n{name}: {case['requests']} requests, {share:.0%} of the floor, "
        f"{mine['slots_used']:.0%} of the slots used, {mine['host_share']:.1%} beside the device")
  for k, f in found.items():
    if "error" in f:
      print(f"  {k:<12} failed: {f['error']}")
    else:
      print(f"  {k:<12}{f['seconds']:>8.2f} s {f['tokens']:>7d} tokens {speed[k]:>8.0f} tokens/s"
            f"{speed['rljax'] / speed[k]:>8.2f} x")


if __name__ == "__main__":
  sys.exit(main())
