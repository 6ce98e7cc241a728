"""NFT: a likelihood loss on an implicit negative policy against RFT, GRPO and DAPO.

https://arxiv.org/abs/2505.18116 (github.com/NVlabs/NFT). Here: expressions of three digits, a base
that is right in about 45 % of its samples, four updates per batch (off-policy, else NFT is GRPO).

  rljax-reproduce nft
  rljax-train --config configs/papers/nft.py:rft --workdir runs/nft-rft
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "NFT: negative-aware fine-tuning", "category": "policy-gradient",
         "model": "Qwen/Qwen2.5-Math-7B"}
SEEDS = 3


def get_config():
  c = recipes.grpo()
  c.name = "NFT"
  c.steps = 150
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-()=")
  task = dict(steps=2, low=0, high=9, operators="+-")
  c.tasks = fn("rljax.data.tasks:arithmetic_chain", split="train", **task)
  c.evals.test = fn("rljax.data.tasks:arithmetic_chain", split="test", size=200, **task)
  c.prompts, c.rollout.group_size = 16, 16
  c.limits.prompt, c.limits.response = 9, 5
  c.sampling.slots = 256
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.45, steps=2500, at_least=0.3,
                           at_most=0.55, tasks=c.tasks, skill=c.evals.test)
  c.select = fn("rljax.data.select:dynamic_sampling")
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:group_accuracy"),
      objective=fn("rljax.objectives.pg:nft", prompt_weight="hard"),
      optimizer=fn("rljax.optim:adamw", lr=2e-4, warmup=10))
  c.updates.policy.minibatches = 4
  c.eval.samples, c.eval.every = 8, 50
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


_GROUP = fn("rljax.advantages:group_norm")
ARMS = {
    "rft": {"updates.policy.objective.negative_weight": 0.0},
    "uniform": {"updates.policy.objective.prompt_weight": "uniform"},
    "grpo": {"updates.policy.advantage": _GROUP,
             "updates.policy.objective": fn("rljax.objectives.pg:grpo")},
    "dapo": {"updates.policy.advantage": _GROUP,
             "updates.policy.objective": fn("rljax.objectives.pg:dapo")},
}
QUICK = {"steps": 60, "eval.every": 0}
RUNLOCAL = {"select": None}  # a random model has no mixed groups
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "prompts": 512, "limits.prompt": 1024, "limits.response": 4096,
    "limits.on_long_prompt": "skip", "updates.policy.minibatches": 16, "updates.policy.accum": 16,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6, warmup=10, weight_decay=0.1),
}

ACC, ENTROPY = "eval/test/pass_at_1", "policy/entropy"
CLAIMS = [
    dict(says="negatives matter: NFT ends above rejection fine-tuning", metric=ACC, relation=">",
         than="rft", paper="better than RFT by a clear margin (7B)"),
    dict(says="NFT ends where DAPO does", metric=ACC, relation="within", than="dapo", margin=0.04,
         paper="above DAPO at 7B, about equal at 32B"),
    dict(says="NFT keeps more entropy than RFT", metric=ENTROPY, at="last:10", relation=">",
         than="rft", paper="RFT loses entropy, NFT keeps it"),
    dict(says="NFT solves more problems in 8 tries than RFT", metric="eval/test/pass_at_8",
         relation=">", than="rft"),
    dict(says="the base is right in 35 to 50 % of its samples", kind="mechanism", metric=ACC,
         at="start", relation="within", than=0.425, margin=0.075),
    dict(says="there is something to learn: GRPO gains", kind="mechanism", metric=ACC, arm="grpo",
         at="gain", relation=">", than=0.0, margin=0.05),
    dict(says="without the prompt weight NFT learns too", kind="mechanism", metric=ACC,
         arm="uniform", at="gain", relation=">", than=0.0, margin=0.05),
]
EXACT = ("tests/objectives/pg_test.py::test_nft_at_ratio_one_is_dr_grpo_or_grpo",)
UNTESTED = ("Benchmark averages of 7B and 32B models need those models.",)
PLOT = (ACC, "eval/test/pass_at_8", ENTROPY)
