"""A game against itself with a model of milliseconds, for the test of the whole loop."""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.grpo()
  c.steps = 3
  c.prompts = 2
  c.tokenizer = fn("rljax.data.text:char", alphabet="01234X.:")
  c.tasks = fn("rljax.envs.games:tasks", name="patient", size=16)
  c.curriculum = fn("rljax.data.curriculum:band")
  c.limits.prompt, c.limits.response, c.limits.observation = 2, 2, 2
  c.sampling.prompt_buckets, c.sampling.slots = (5,), 4
  c.rollout = fn("rljax.rollouts.versus:versus", group_size=2, turn_tokens=1,
                 env=fn("tests/rollouts/tiny_env.py:patient"))
  c.rewards = {"outcome": fn("rljax.rewards.outcome:outcome")}
  c.memories.baselines = fn("rljax.data.memory:baselines")
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=16, layers=1, heads=2)
  c.updates.policy.rows = 8
  c.updates.policy.advantage = fn("rljax.advantages:baseline")
  c.checkpoint.every = 1
  return c
