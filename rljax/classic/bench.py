"""Speeds of the classic room: environment steps with random actions, and learners side by side.

  python -m rljax.classic.bench [--seconds 3]
"""

import argparse
import time

import jax
import jax.numpy as jnp

from rljax.classic import actor_critic, pixels, worlds
from rljax.classic import env as env_lib

WORLDS = {"line with key": worlds.line_key, "chain": worlds.chain, "four rooms": worlds.grid,
          "catch 16 x 16": pixels.catch}


def speed(env: env_lib.Env, *, width: int, length: int, seconds: float) -> float:
  """Steps per second of `width` environments that restart by themselves, after compilation."""
  act, advance = env_lib.random_actions(env), env_lib.auto_reset(env)

  def one(state, key):
    for_act, for_step = jax.random.split(key)
    state, obs, reward, _ = advance(state, act(None, for_act)[0], for_step)
    return state, reward + jnp.sum(obs).astype(jnp.float32)  # what is not read is not computed

  def many(state, key):
    def step(state, key):
      state, out = jax.vmap(one)(state, jax.random.split(key, width))
      return state, jnp.sum(out)
    return jax.lax.scan(step, state, jax.random.split(key, length))

  run = jax.jit(many, donate_argnums=0)
  state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), width))
  state, _ = jax.block_until_ready(run(state, jax.random.key(1)))
  done, began = 0, time.perf_counter()
  while time.perf_counter() - began < seconds:
    state, _ = jax.block_until_ready(run(state, jax.random.key(done)))
    done += width * length
  return done / (time.perf_counter() - began)


def learners(count: int, *, updates: int = 300) -> float:
  """Seconds of so many updates of a tabular learner, or of several under one vmap; best of 3."""
  agent = actor_critic.policy_gradient(worlds.line_key(), batch=5)

  def one(state, key):
    return jax.lax.scan(lambda s, k: (agent.step(s, k)[0], None), state,
                        jax.random.split(key, updates))[0]
  over = jax.vmap if count > 1 else lambda f: f
  keys = jax.random.split(jax.random.key(0), count) if count > 1 else jax.random.key(0)
  state, run = over(agent.init)(keys), jax.jit(over(one))
  jax.block_until_ready(run(state, keys))
  times = []
  for _ in range(3):
    began = time.perf_counter()
    jax.block_until_ready(run(state, keys))
    times.append(time.perf_counter() - began)
  return min(times)


def main():
  parser = argparse.ArgumentParser("rljax.classic.bench", description=__doc__.split("\n")[0])
  parser.add_argument("--seconds", type=float, default=3.0, help="for each environment")
  args = parser.parse_args()
  for name, make in WORLDS.items():
    width = 64 if name.startswith("catch") else 256
    print(f"{name:<16}{speed(make(), width=width, length=100, seconds=args.seconds):>14,.0f} "
          "environment steps/s", flush=True)
  one, ten = learners(1), learners(10)
  print(f"ten learners at once cost {ten / one:.1f} times one ({ten:.2f} s and {one:.2f} s)")


if __name__ == "__main__":
  main()
