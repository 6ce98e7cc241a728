"""`make bench`: one GRPO iteration of the quickstart's size, its parts, its multiple of the floor.

The floor is the arithmetic the iteration cannot avoid, at the rate of a large jax matmul measured
in the same process. Compare only on an otherwise idle machine; the load average is printed.
Peers are other Python environments, with a model of the same sizes:

  python -m rljax.bench --peer-trl PY --peer-tunix PY
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax import sharding
from rljax.models import export
from rljax.train import build, loop

PROMPT, RESPONSE = 7, 8


def matmul_rate(size: int = 1024, repeats: int = 30) -> float:
  """FLOP/s of the best of several float32 matmuls."""
  a = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)).astype(np.float32))
  f = jax.jit(lambda a: a @ a)
  f(a).block_until_ready()
  best = np.inf
  for _ in range(repeats):
    start = time.perf_counter()
    f(a).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return 2 * size**3 / best


def floor_flops(cfg, prompts: int, group: int, with_ref: bool) -> dict[str, float]:
  """Matmul FLOPs of one iteration: sampling (prompts prefilled once), gradient, reference."""
  D, H, K, Hd, M, V = cfg.width, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp, cfg.vocab
  token = 2 * cfg.layers * (D * Hd * (2 * H + 2 * K) + 3 * D * M)
  pair = 4 * cfg.layers * H * Hd  # one query against one key: scores and values
  B, S = prompts * group, PROMPT + RESPONSE - 1
  causal = lambda n: n * (n + 1) / 2
  head = 2 * D * V * B * RESPONSE
  sampling = (prompts * (PROMPT * token + causal(PROMPT) * pair)
              + B * ((RESPONSE - 1) * token + (causal(S) - causal(PROMPT)) * pair) + head)
  forward = B * (S * token + causal(S) * pair) + head
  return {"sample": sampling, "update": 3 * forward + (forward if with_ref else 0)}


def quickstart_config(*, kl: bool = False):
  """The quickstart with a random model, 7 + 8 tokens, nothing written but metrics."""
  c = config_lib.load("configs/quickstart.py", {
      "tasks.template": "{problem}", "limits.prompt": PROMPT, "limits.response": RESPONSE,
      "updates.policy.pack_length": PROMPT + 8 * (RESPONSE - 1),
      "roles.policy.init": None, "steps": 10_000, "checkpoint.every": 10_000, "eval.every": 0})
  if not kl:
    c.updates.policy.objective.kl_coef = 0.0
    del c.roles["ref"]
  return c


def measure(*, kl: bool, steps: int) -> dict[str, float]:
  """Seconds (medians) of whole steps and their parts, the floor, and their ratio."""
  config = quickstart_config(kl=kl)
  run = build.build(config)
  with tempfile.TemporaryDirectory() as workdir:
    lp = loop.Loop(run, workdir, quiet=True)
    lp.start()
    rows = [lp.step(step) for step in range(steps + 3)][3:]
    lp.stop()
  policy = run.roles.specs["policy"].policy
  flops = floor_flops(policy.cfg, config.prompts, config.rollout.group_size, kl)
  rate = matmul_rate()
  out = {k: float(np.median([r[k] for r in rows])) for k in rows[0] if k.startswith("time/")}
  del out["time/tokens_per_second"]
  floor = sum(flops.values()) / rate
  return {"matmul_gflops": rate / 1e9, "floor": floor, "floor_sample": flops["sample"] / rate,
          "floor_update": flops["update"] / rate, **out, "multiple": out["time/step"] / floor}


def ask_peer(python: str, case: dict) -> dict:
  """What `bench_peers.py` prints for a case in another environment, or {"error"}."""
  # -P: the script must not see rljax's own `types`.
  done = subprocess.run([python, "-P", str(pathlib.Path(__file__).parent / "bench_peers.py")],
                        input=json.dumps(case), capture_output=True, text=True,
                        env={**os.environ, "JAX_PLATFORMS": "cpu"})
  if done.returncode:
    return {"error": (done.stderr.strip() or "failed").splitlines()[-1][:100]}
  return json.loads(done.stdout.splitlines()[-1])


def peer(python: str, which: str, steps: int) -> dict:
  """{"seconds"} of another library's iteration, or {"error"}."""
  config = quickstart_config()
  run = build.build(config)
  policy = run.roles.specs["policy"].policy
  with tempfile.TemporaryDirectory() as folder:
    export.write(policy, policy.init(jax.random.key(0)), folder, tokenizer=run.tokenizer)
    return ask_peer(python, {
        "folder": folder, "which": f"{which}_grpo", "steps": steps, "prompts": config.prompts,
        "group": config.rollout.group_size, "prompt": PROMPT, "response": RESPONSE})


def main() -> int:
  parser = argparse.ArgumentParser("rljax.bench")
  parser.add_argument("--steps", type=int, default=40)
  parser.add_argument(
      "--kl", action="store_true", help="with the reference model of the quickstart")
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--peer-trl", default="", metavar="PY")
  parser.add_argument("--peer-tunix", default="", metavar="PY")
  args = parser.parse_args()
  sharding.split_cpu()
  result = measure(kl=args.kl, steps=args.steps)
  result["peers"] = {name: peer(python, name, args.steps) for name, python in (
      ("trl", args.peer_trl), ("tunix", args.peer_tunix)) if python}
  if args.json:
    print(json.dumps(result))
    return 0
  print(f"one GRPO iteration: 32 prompts x 8 samples, {PROMPT}+{RESPONSE} tokens, 3 layers, "
        f"width 128{', with reference' if args.kl else ''}; median of {args.steps}; "
        f"{jax.default_backend()}, load average {os.getloadavg()[0]:.2f}")
  print(f"  jax matmul rate {result['matmul_gflops']:8.0f} GFLOP/s")
  for name, key in (("floor", "floor"), ("  of sampling", "floor_sample"),
                    ("  of the update", "floor_update"), ("iteration", "time/step"),
                    ("  sample", "time/sample"), ("  reward", "time/reward"),
                    ("  update", "time/update"), ("  log", "time/log")):
    print(f"  {name:<16}{result[key] * 1e3:8.1f} ms")
  print(f"  iteration / floor = {result['multiple']:.2f}")
  for name, found in result["peers"].items():
    print(f"  {name}: " + (f"failed: {found['error']}" if "error" in found else
          f"{found['seconds'] * 1e3:.1f} ms, {found['seconds'] / result['time/step']:.2f} x ours"))
  return 0


if __name__ == "__main__":
  sys.exit(main())
