"""MASH: a price per search teaches a policy to search where it does not know, and only there.

https://arxiv.org/abs/2510.01152 (github.com/momergul/mash). Here: facts about 64 entities, of which
the base has read two fifths; it searches in about half of the cases, whatever it knows. Groups of 8
and a KL of 0.2 (the paper: 16 and 0): a binary decision collapses at this size without it.

  rljax-reproduce mash
  rljax-train --config configs/papers/mash.py:none --workdir runs/mash-none
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "MASH: pay-per-search models are abstention models", "category": "tools",
         "model": "Qwen/Qwen2.5-3B"}
TRUTH = fn("rljax.rewards.verify:task_verifier")


def rollout(name, **knobs):
  env = fn("rljax.envs.base:tools", tools={"search": fn("experiments/mash.py:lookup")}, max_calls=2,
           pad="", invalid_text="", limit_text="limit")
  return fn(f"rljax.rollouts.multi_turn:{name}", env=env, workers=1, **knobs)


def learned(name, *, skill, tasks=None, **knobs):
  tasks = fn(f"experiments/mash.py:{name}", **(tasks or {}))
  return fn("rljax.train.base:trained", tasks=tasks, skill=fn(f"experiments/mash.py:{skill}"),
            rollout=rollout("demonstrations"), answer=rollout("multi_turn"), noise=0.0, rows=144,
            lr=3e-3, **knobs)


def base(*drills, **knobs):
  """It learns to read first, or it never does; then facts, two ways of answering, and drills."""
  reads = learned("reading", skill="unread", steps=800, pack=(54, 96), at_least=0.9, at_most=1.0)
  return learned("mixed", skill="questions", steps=700, pack=(22, 96), init=reads,
                 tasks={"drills": drills}, **{"at_least": 0.6, "at_most": 0.9, **knobs})


def get_config():
  c = recipes.grpo()
  c.name = "MASH"
  c.steps = 240
  c.tokenizer = fn("experiments/mash.py:words")
  c.tasks = c.evals.asked = fn("experiments/mash.py:questions")
  c.evals.held = fn("experiments/mash.py:questions", held=True)
  c.prompts, c.sampling.slots = 16, 128
  c.limits.prompt, c.limits.response, c.limits.observation = 4, 16, 20
  c.sampling.prompt_buckets = (4, 16, 39)
  c.rollout = rollout("multi_turn", group_size=8)
  c.rewards = {"correct": TRUTH,
               "called": fn("rljax.rewards.outcome:outcome", key="calls", success=1, default=0.0)}
  c.reward_weights = {"called": 0.0}
  c.memories.least = fn("rljax.rewards.pay:per_call", factor=fn("rljax.rewards.pay:exponential"))
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = base("read", "know")
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.2
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1e-3, warmup=5)
  c.eval.rollout, c.eval.by, c.eval.samples, c.eval.limit = rollout("multi_turn"), "kind", 4, 0
  c.eval.measure = fn("rljax.evals.abstention:measure", verifier=TRUTH, closed="<answer>", tokens=4)
  c.checkpoint.every, c.episodes_max_bytes = 120, 20_000_000
  return c


FACTOR, KL = "memories.least.factor", "updates.policy.objective.kl_coef"
ARMS = {
    "none": {"memories.least": None},  # no claim reads the others
    "exp08": {f"{FACTOR}.base": 0.8}, "otc": {FACTOR: fn("rljax.rewards.pay:otc")},
    "otc_strict": {FACTOR: fn("rljax.rewards.pay:otc", strict=True)},
    "confirm": {"memories.least.confirm": 2}, "no_kl": {KL: 0.0},
    "leaky": {"roles.policy.init": base("leak", "know", at_most=1.0)},
    "cold": {"roles.policy.init": base("know", at_least=0.0)},
}
QUICK = {"steps": 240}
_SEARCH = fn("rljax.envs.retrieval:bm25", corpus=fn("rljax.data.tool_tasks:fact_passages"))
_ENV = fn("rljax.envs.base:tools", tools={"search": _SEARCH}, max_calls=5, invalid_text="",
          limit_text="SEARCH LIMIT REACHED")
_FACTS = fn("rljax.data.tool_tasks:facts", split="test", size=500)
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.tool_tasks:facts"), "evals.asked": _FACTS, "evals.held": _FACTS,
    "eval.by": "", "eval.measure.tokens": 32, "steps": 400, "prompts": 64, "rollout.group_size": 16,
    "roles.policy.model": fn("rljax.models.hf:model", path=""), KL: 0.0,
    "roles.policy.init": fn("rljax.models.hf:params", path=""), "rollout.env": _ENV,
    "eval.rollout.env": _ENV, "rollout.max_turns": 7, "rollout.turn_tokens": 512,
    "sampling.prompt_buckets": (1024, 4096, 8192), "limits.prompt": 1024, "limits.response": 3584,
    "limits.observation": 3584, "updates.policy.objective.entropy_coef": 0.001,
    "updates.policy.accum": 64, "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

K, U, EM = "eval/asked/K/", "eval/asked/U/", "eval/asked/pass_at_1"
CLAIMS = [
    dict(says="it searches for what it does not know, 50 points more often", metric=U + "search",
         relation=">", than="full", than_metric=K + "search", margin=0.5,
         paper="abstention from a price per search alone"),
    dict(says="without a price it does not", kind="control", metric=U + "search", arm="none",
         relation="within", than="none", than_metric=K + "search", margin=0.1),
    dict(says="the price costs at most 5 points of accuracy", metric=EM, relation="within",
         than="none", margin=0.05, paper="+7.6 % over earlier efficient search"),
    dict(says="answers cost less", metric="eval/asked/productivity", relation=">", than="none"),
    dict(says="the base searches in 4 to 6 of 10 cases for what it knows", kind="mechanism",
         metric=K + "search", at="start", relation="within", than=0.5, margin=0.1),
    dict(says="and for what it does not", kind="mechanism", metric=U + "search", at="start",
         relation="within", than=0.5, margin=0.1),
    dict(says="it knows K", kind="mechanism", metric=K + "closed", at="start", relation=">",
         than=0.95),
    dict(says="and not U", kind="mechanism", metric=U + "closed", at="start", relation="<",
         than=0.1),
    dict(says="it can read", kind="mechanism", metric="eval/asked/searched", at="start",
         relation=">", than=0.9),
]
EXACT = ("tests/rewards/pay_test.py::test_factors_by_hand",
         "tests/rewards/pay_test.py::test_the_minimum_is_updated_before_the_step_is_paid")
UNTESTED = ("Abstention on entities that RL never asked about needs a pretrained model.",)
PLOT = (K + "search", U + "search", EM, "eval/asked/own_gap", "eval/held/gap", U + "closed")
