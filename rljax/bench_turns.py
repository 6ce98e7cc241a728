"""`python -m rljax.bench_turns`: episodes of several turns against single answers as long.

As many episodes with as many sampled tokens each, once as one answer and once as turns of a third
or a quarter with an observation between them. All episodes advance together, and a turn reads only
what the last one did not: the goal is at least half of the tokens per second. Tokens are sampled
ones; what is read counts as work, not as tokens. Compare only on an otherwise idle machine.
"""

import argparse
import functools
import os
import sys
import time

import jax

from rljax import recipes, rng, sharding, types
from rljax.config import fn
from rljax.envs import base
from rljax.rollouts import multi_turn, single_turn
from rljax.train import build

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
PROMPT = 16


class Saying(base.Env):
  """Answers every turn with as many characters; never ends an episode."""

  def __init__(self, tokens: int):
    self._text = (ALPHABET * tokens)[:tokens]

  def reset(self, task, seed):
    return 0, ""

  def step(self, state, text):
    return state + 1, self._text, False, {}


def build_run(turns: int, turn_tokens: int, observation: int, slots: int):
  """A random model of the quickstart's size with room for such episodes."""
  c = recipes.grpo()
  c.tokenizer = fn("rljax.data.text:char", alphabet=ALPHABET)
  c.limits.prompt, c.limits.response = PROMPT, turns * turn_tokens
  c.limits.observation = (turns - 1) * observation
  length = PROMPT + turns * turn_tokens + c.limits.observation
  c.sampling.slots, c.sampling.prompt_buckets = slots, (observation + 1, PROMPT, length)
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=128, layers=3, heads=4,
                            scan=False)
  c.roles.policy.init = None
  run = build.build(c)
  run.roles.init()
  return run


def measure(*, episodes: int = 256, turns: int = 4, turn_tokens: int = 24, observation: int = 8,
            slots: int = 256, repeats: int = 5) -> dict[str, float]:
  """Tokens per second of "single" and "turns", the best of `repeats` taken in turns."""
  run = build_run(turns, turn_tokens, observation, slots)
  tasks = [types.Task(f"{i}", (ALPHABET[i % 36:] + ALPHABET)[:PROMPT]) for i in range(episodes)]
  settings = {"allowed": tuple(range(2, 2 + len(ALPHABET)))}  # no end token: equal lengths
  part = functools.partial(
      multi_turn.multi_turn, group_size=1, max_turns=turns, turn_tokens=turn_tokens, workers=1,
      settings=settings, env=Saying(observation))
  whole = functools.partial(single_turn.single_turn, group_size=1, settings=settings)
  tokens, best = episodes * turns * turn_tokens, {}
  for k in range(repeats + 1):  # the first one compiles
    for name, rollout in (("single", whole), ("turns", part)):
      start = time.perf_counter()
      found = rollout(run.samplers, tasks, rng.key(k, "bench"))
      seconds = time.perf_counter() - start
      said = sum(len(t.tokens) for e in found for t in e.turns if t.role == "assistant")
      assert said == tokens, f"{name}: {said} tokens instead of {tokens}"
      if k:
        best[name] = max(best.get(name, 0.0), tokens / seconds)
  return best


def main() -> int:
  parser = argparse.ArgumentParser("rljax.bench_turns")
  for name, default in (("episodes", 256), ("turns", 4), ("turn-tokens", 24), ("observation", 8),
                        ("slots", 256)):
    parser.add_argument(f"--{name}", type=int, default=default)
  args = parser.parse_args()
  sharding.split_cpu()
  found = measure(**vars(args))
  print(f"{args.episodes} episodes of {args.turns} x {args.turn_tokens} tokens, {args.observation} "
        f"read between them; {jax.default_backend()}, load average {os.getloadavg()[0]:.2f}")
  for name, rate in found.items():
    print(f"  {name:<8}{rate:>9.0f} tokens/s")
  print(f"  turns / single = {found['turns'] / found['single']:.2f}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
