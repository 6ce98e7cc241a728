"""ReTool: a Python interpreter inside the reasoning, found by PPO on outcomes alone.

https://arxiv.org/abs/2504.11536. Here: products of three digits, which a tiny model cannot compute
and the tool can. The cold start has seen calls, some broken and then mended, and products worked
out by hand, often wrongly, in equal parts. What the interpreter returns is never trained on.

  rljax-reproduce retool
  rljax-train --config configs/papers/retool.py:text --workdir runs/retool-text
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "ReTool: strategic tool use", "category": "tools", "model": "Qwen/Qwen2.5-7B"}
SEEDS = 3


def rollout(name, **knobs):
  env = fn("rljax.envs.base:tools", max_calls=3, pad="", invalid_text="",
           tools={"py": fn("rljax.envs.python_exec:python", output="out")})
  return fn(f"rljax.rollouts.multi_turn:{name}", env=env, observation_tokens=24, **knobs)


def products(split, size=20000, **knobs):
  return fn("rljax.data.tool_tasks:products", split=split, size=size, right_share=0.3, working=True,
            **knobs)


def cold_start(**knobs):
  return fn("rljax.train.base:trained", noise=0.0, steps=400, rows=64, problems=128,
            pack=(44, 120), rollout=rollout("demonstrations"), answer=rollout("multi_turn"),
            tasks=products("train", **knobs), skill=products("test", 128), **(
                dict(at_least=0.0, at_most=0.2) if knobs else dict(at_least=0.3, at_most=0.7)))


def get_config():
  c = recipes.ppo()
  c.name = "ReTool"
  c.steps = 60
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789*=<>/ :'()_.,"
                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
  c.tasks, c.evals.test = products("train"), products("test", 200)
  c.prompts, c.sampling.slots = 32, 128
  c.limits.prompt, c.limits.response, c.limits.observation = 8, 64, 48
  c.sampling.prompt_buckets = (8, 48, 84, 119)
  c.rollout = rollout("multi_turn", group_size=4)
  truth = fn("rljax.rewards.verify:task_verifier")
  c.rewards = {"outcome": fn("rljax.rewards.shaping:linear", reward=truth, scale=2.0, offset=-1.0),
               "called": fn("rljax.rewards.outcome:outcome", key="calls", success=1)}
  c.reward_weights = {"called": 0.0}
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=96, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = cold_start()
  for update in c.updates.values():
    update.advantage = fn("rljax.advantages:gae", lam=1.0)
    update.minibatches = 2
    update.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=5)
  c.eval.rollout = rollout("multi_turn")
  c.eval.every, c.checkpoint.every, c.episodes_max_bytes = 20, 60, 40_000_000
  return c


_TEXT = cold_start(tool_share=0.0)
ARMS = {
    "text": {"roles.policy.init": _TEXT, "rollout.env.max_calls": 0,
             "eval.rollout.env.max_calls": 0},
    "no_cold_start": {"roles.policy.init": _TEXT},
}
QUICK = {"steps": 20, "eval.every": 0}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""), "steps": 400, "prompts": 512,
    "rollout.group_size": 1, "rollout.observation_tokens": 1024, "sampling.slots": 256,
    "sampling.prompt_buckets": (1024, 4096, 16384), "limits.prompt": 1024,
    "limits.response": 12288, "limits.observation": 3072, "limits.on_long_prompt": "skip",
    **{f"updates.{u}.{k}": v for u in ("policy", "critic") for k, v in (
        ("minibatches", 1), ("accum", 64), ("optimizer", fn("rljax.optim:adamw", lr=1e-6)))},
}

ACC, CALLED, LENGTH = "eval/test/pass_at_1", "reward/called", "episode/length"
CLAIMS = [
    dict(says="with the tool it ends 20 points above text-only RL", metric=ACC, relation=">",
         than="text", margin=0.2, paper="67.0 against 40.0"),
    dict(says="and above its cold start", metric=ACC, at="gain", relation=">", than=0.0,
         margin=0.05, paper="67.0 against 40.9"),
    dict(says="nearly every answer calls the tool in the end", metric=CALLED, at="last:10",
         relation=">", than=0.9, paper="98 %"),
    dict(says="what it writes itself gets shorter", metric=LENGTH, at="shift:10", relation="<",
         than=0.0, paper="-40 %"),
    dict(says="without a cold start it does not find the tool", kind="control", metric=CALLED,
         arm="no_cold_start", at="last:10", relation="<", than=0.1),
    dict(says="text-only RL stays below one half", kind="mechanism", metric=ACC, arm="text",
         relation="<", than=0.5),
]
EXACT = ("tests/rollouts/multi_turn_test.py::test_what_a_tool_said_has_no_gradient",)
UNTESTED = ("Strategy in long mathematics needs a pretrained model; training on what the tool said "
            "(the arm without a mask) is not offered.",)
PLOT = (ACC, CALLED, LENGTH)
