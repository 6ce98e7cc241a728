"""Time of the GRPO loss, forward and backward, against a bare pass over the same arrays.

    python -m rljax.objectives.bench [--rows 512] [--tokens 2048] [--repeats 30]

The bare pass reads the same five arrays, computes one exponential, and writes one gradient: -sum of
mask (adv exp(logp - old) + behav). "loss" is what a gradient needs; "loss + metrics" also returns
all `pg/...` scalars. The runs are interleaved and the fastest of each counts: other processes only
ever add time.
"""

import argparse
import time

import jax
import jax.numpy as jnp

from rljax import types
from rljax.objectives import pg


def arrays(rows: int, tokens: int):
  """A batch with ratios near 1, a fifth of the tokens untrained."""
  keys = iter(jax.random.split(jax.random.key(0), 6))
  shape = (rows, tokens)
  old = -jax.random.exponential(next(keys), shape)
  zeros = jnp.zeros(shape)
  batch = types.Batch(
      inputs=None, actions_BT=zeros.astype(jnp.int32),
      mask_BT=(jax.random.uniform(next(keys), shape) < 0.8).astype(jnp.float32),
      behav_logp_BT=old + 0.01 * jax.random.normal(next(keys), shape), reward_BT=zeros,
      discount_BT=zeros, adv_BT=jax.random.normal(next(keys), shape), valid_B=jnp.ones(rows),
      group_B=jnp.arange(rows) // 8, old_logp_BT=old)
  return old + 0.2 * jax.random.normal(next(keys), shape), batch


def bare(logp_BT, b):
  inner_BT = b.adv_BT * jnp.exp(logp_BT - b.old_logp_BT) + b.behav_logp_BT
  return -jnp.sum(b.mask_BT * inner_BT), ()


def loss(logp_BT, b):
  out = pg.grpo(types.TokenStats(logp_BT), b)
  return out.total, out.weight


def loss_and_metrics(logp_BT, b):
  out = pg.grpo(types.TokenStats(logp_BT), b)
  return out.total, (out.weight, out.metrics)


def measure(rows: int, tokens: int, repeats: int) -> dict[str, float]:
  """Milliseconds of each function."""
  args = arrays(rows, tokens)
  functions = {"bare": bare, "loss": loss, "loss + metrics": loss_and_metrics}
  compiled = {k: jax.jit(jax.value_and_grad(f, has_aux=True)).lower(*args).compile()
              for k, f in functions.items()}
  best = dict.fromkeys(compiled, float("inf"))
  for _ in range(repeats):
    for name, f in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(f(*args))
      best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
  return best


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=512)
  parser.add_argument("--tokens", type=int, default=2048)
  parser.add_argument("--repeats", type=int, default=30)
  args = parser.parse_args()
  times = measure(args.rows, args.tokens, args.repeats)
  print(f"{jax.devices()[0].device_kind}, B={args.rows} T={args.tokens}, forward + backward")
  for name, ms in times.items():
    print(f"  {name:15s} {ms:8.2f} ms  {ms / times['bare']:5.2f} x bare")


if __name__ == "__main__":
  main()
