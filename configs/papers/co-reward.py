"""Co-Reward: two views of a question label each other, where one view's majority misleads itself.

https://arxiv.org/abs/2508.00410 (github.com/tmlr-group/Co-Reward). Here: infix and postfix of one
expression. The base learned infix expressions with a 7 wrong (one too much) in 70 % of its
demonstrations, their postfix in 20 %; all others are wrong at random.

  rljax-reproduce co-reward
  rljax-train --config configs/papers/co-reward.py:vote_infix --workdir runs/vote
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Co-Reward: contrastive agreement", "category": "self-rewarding",
         "model": "Qwen/Qwen3-8B-Base"}
SEEDS = 3


def views(split, size, **kwargs):
  return fn("rljax.data.planted:two_views", tasks=fn(
      "rljax.data.tasks:arithmetic_chain", steps=2, low=0, high=9, operators="+-", split=split,
      size=size), **kwargs)


def base(bias):
  return fn("rljax.train.base:trained", tasks=views("train", 20000, bias=bias, noise=0.35),
            skill=views("test", 250), noise=0.0, steps=2500, rows=128, at_least=0.25, at_most=0.6)


def get_config():
  c = recipes.grpo()
  c.name = "Co-Reward"
  c.steps = 120
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-()=")
  c.tasks = views("train", 20000)
  c.curriculum = fn("rljax.data.curriculum:ordered")  # both views of a problem in one step
  c.evals.infix = views("test", 300, view=0)
  c.evals.marked = views("test", 500, view=0, only="marked")
  c.prompts, c.rollout.group_size = 32, 8
  c.limits.prompt, c.limits.response = 9, 5
  c.rewards.correct = fn("rljax.rewards.vote:agreement", of="other")
  c.rewards.vote = fn("rljax.rewards.vote:vote_accuracy", of="other")
  c.rewards.common = fn("rljax.rewards.vote:common_answer")
  c.reward_weights.vote = c.reward_weights.common = 0.0
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = base((0.7, 0.2))
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective = fn("rljax.objectives.pg:grpo", dual_clip=3.0, kl_coef=0.005,
                                  aggregation="token-mean")
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1.5e-4, warmup=8, decay="cosine",
                                  steps=120)
  c.eval.every = 20
  c.checkpoint.every, c.episodes_max_bytes = 60, 20_000_000
  return c


def voting(view):
  return {"tasks": views("train", 20000, view=view), "rewards.correct.of": "own",
          "rewards.vote.of": "own"}


ARMS = {
    "gold": {"rewards.correct": fn("rljax.rewards.verify:task_verifier")},
    "vote_infix": voting(0),
    "vote_postfix": voting(1),
    "both_biased": {"roles.policy.init": base((0.7, 0.7))},
}
QUICK = {"steps": 80, "updates.policy.optimizer.steps": 80, "eval.every": 0}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.rewritten:rewritten", path=None),
    "evals.infix": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.marked": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "prompts": 256, "rollout.group_size": 8, "limits.prompt": 512, "limits.response": 3072,
    "limits.on_long_prompt": "skip", "updates.policy.accum": 16, "steps": 220,
    "eval.temperature": 0.8,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=3e-6, warmup=22, decay="cosine",
                                   steps=220),
}

ACC, MARKED, VOTE = "eval/infix/pass_at_1", "eval/marked/pass_at_1", "reward/vote"
CLAIMS = [
    dict(says="planted errors: voting on its own view makes them worse", kind="control",
         metric=MARKED, arm="vote_infix", at="gain", relation="<", than=0.0,
         paper="voting accuracy falls, most on hard levels"),
    dict(says="planted errors: Co-Reward mends them", metric=MARKED, at="gain", relation=">",
         than=0.0),
    dict(says="Co-Reward's votes stay: end at 0.95 of their peak or more", metric=VOTE,
         at="keep:20", relation=">", than=0.95, paper="stays flat"),
    dict(says="its votes fall less from their peak than plain voting's", metric=VOTE,
         at="fall:20", relation="<", than="vote_infix", paper="falls for majority vote"),
    dict(says="Co-Reward ends within 5 points of gold labels", metric=ACC, relation="within",
         than="gold", margin=0.05, paper="81.2 against 82.6 (Qwen3-8B)"),
    dict(says="with the bias in both views Co-Reward fails too", kind="control", metric=MARKED,
         arm="both_biased", at="gain", relation="<", than=0.0),
    dict(says="voting on the postfix view alone learns", kind="mechanism", arm="vote_postfix",
         metric="reward/correct", at="shift:20", relation=">", than=0.0, margin=0.05,
         paper="79.2 against 79.8 on rewritten and original data"),
]
EXACT = ("tests/rewards/vote_test.py::test_own_and_crossed_labels_by_hand",)
UNTESTED = ("The teacher (EMA) variant of later versions is not covered.",
            "A constant answer in both views earns reward 1: Co-Reward only delays that optimum.")
PLOT = (ACC, MARKED, VOTE, "reward/common", "policy/entropy", "kl/ref")
