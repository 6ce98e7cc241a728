"""GRPO with a Python interpreter: products that a tiny model cannot compute and the tool can.

The base has seen calls (some broken, then mended) and guesses in equal parts; RL has to find that
calling pays. What the interpreter returns is read and never trained on.
https://arxiv.org/abs/2504.11536

  rljax-train --config configs/grpo_tools_python.py --workdir runs/tools
"""

from rljax import recipes
from rljax.config import fn


def rollout(name):
  env = fn("rljax.envs.base:tools", max_calls=3, pad="", invalid_text="",
           tools={"py": fn("rljax.envs.python_exec:python", output="out")})
  return fn(f"rljax.rollouts.multi_turn:{name}", env=env, observation_tokens=24)


def get_config():
  c = recipes.grpo()
  c.name = "products with a Python tool"
  c.steps = 100
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789*=<>/ :'()_.,"
                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
  c.tasks = fn("rljax.data.tool_tasks:products", split="train")
  c.evals.test = fn("rljax.data.tool_tasks:products", split="test", size=500)
  c.prompts = 16
  c.limits.prompt, c.limits.response, c.limits.observation = 8, 64, 48
  c.sampling.prompt_buckets = (8, 48, 84, 119)
  c.sampling.slots = 128
  c.rollout = rollout("multi_turn")
  c.rollout.group_size = 8
  c.eval.rollout = rollout("multi_turn")
  c.eval.every, c.eval.limit = 25, 128
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=96, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", rollout=rollout("demonstrations"),
                           steps=600, rows=64, problems=128, at_least=0.2, at_most=0.8)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=5)
  return c


ARMS = {"no_tool": {"rollout.env.max_calls": 0, "eval.rollout.env.max_calls": 0}}
