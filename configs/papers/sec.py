"""SEC: which difficulty comes next is a bandit whose reward is the mean absolute advantage.

https://arxiv.org/abs/2505.14970. Here: Countdown of 2 to 4 numbers (levels 1 to 3), tested on 5
(level 4) too, and chains of as many digits as a second type. The base knows the form of all levels,
and has less of the skill at each than at the one before.

  rljax-reproduce sec
  rljax-train --config configs/papers/sec.py:reverse --workdir runs/sec-reverse
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SEC: self-evolving curriculum", "category": "curriculum",
         "model": "Qwen/Qwen2.5-3B"}
SEEDS = 5


def countdown(level, split, size, **text):
  return fn("rljax.data.tasks:countdown", numbers=level + 1, split=split, size=size, **(
      text or dict(low=1, high=9, max_target=45, operators="+-")))


def chain(level, split, size):
  return fn("rljax.data.chains:running", steps=level, modulus=5, split=split, size=size)


def levels(kind, split, size, upto, **text):
  return fn("rljax.data.mixture:mixture", key="level",
            sets={str(n): kind(n, split, size, **text) for n in range(1, upto + 1)})


def both(split, size, upto):
  return fn("rljax.data.mixture:mixture", key="kind", sets={
      "countdown": levels(countdown, split, size, upto), "chain": levels(chain, split, size, upto)})


def unskilled(kind, symbols, shares):
  return [fn("rljax.data.planted:redrawn", tasks=kind(n, "train", 10000), share=share,
             symbols=symbols) for n, share in enumerate(shares, 1)]


BASE = fn("rljax.data.planted:mixture", size=80000, weights=2 * (4, 3, 2, 1), parts=(
    *unskilled(countdown, "+-", (0.3, 0.7, 0.95, 1.0)),
    *unskilled(chain, "01234", (0.2, 0.4, 0.7, 1.0))))


def get_config():
  c = recipes.grpo()
  c.name = "SEC"
  c.steps = 90
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-()=: ")
  c.tasks = levels(countdown, "train", 1500, 3)
  c.curriculum = fn("rljax.data.curriculum:bandit", keys=("level",), temperature=0.4)
  c.evals.test = levels(countdown, "test", 100, 4)
  c.eval.by = "level"
  c.prompts, c.rollout.group_size = 32, 8
  c.limits.prompt, c.limits.response = 15, 16
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=BASE, noise=0.0, steps=1200, rows=96,
                           skill=both("test", 60, 4), at_least=0.1, at_most=0.6)
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1e-3, warmup=10)
  c.eval.every, c.checkpoint.every, c.episodes_max_bytes = 15, 100, 20_000_000
  return c


_ORDERED = fn("rljax.data.curriculum:blocks", keys=("level",), steps=90)
_MIXED = {"tasks": both("train", 1500, 3), "evals.test": both("test", 60, 3), "eval.by": "kind"}
ARMS = {
    "random": {"curriculum": fn("rljax.data.curriculum:shuffled")},
    "ordered": {"curriculum": _ORDERED},
    "reverse": {"curriculum": fn(_ORDERED.fn, keys=("level",), steps=90, reverse=True)},
    "mixed_2d": {**_MIXED, "curriculum.keys": ("kind", "level"), "curriculum.temperature": 0.2},
    "mixed_1d": {**_MIXED, "curriculum.temperature": 0.2},
    "mixed_ordered": {**_MIXED, "curriculum": _ORDERED},
}
QUICK = {"eval.every": 0}
_TEXT = dict(low=1, high=99, max_target=1000, use_all=False, template=(
    "Make {target} of the numbers {numbers}; put the expression into <answer></answer>."))
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": levels(countdown, "train", 5000, 4, **_TEXT), "curriculum.temperature": 1.0,
    "evals.test": levels(countdown, "test", 100, 5, **_TEXT), "steps": 240, "prompts": 256,
    "roles.policy.model": fn("rljax.models.hf:model", path=""), "limits.prompt": 256,
    "roles.policy.init": fn("rljax.models.hf:params", path=""), "limits.response": 1024,
    "updates.policy.minibatches": 4, "updates.policy.accum": 16,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6), "eval.every": 40,
}

HARD, OOD, WORST = (f"eval/test/{x}/pass_at_1" for x in ("3", "4", "worst"))
CLAIMS = [
    dict(says="hardest trained level: SEC ends no lower than random", metric=HARD, relation=">",
         than="random", margin=-0.02, paper="+13 % on the harder test (3B)"),
    dict(says="one level up: SEC ends no lower than random", metric=OOD, relation=">",
         than="random", margin=-0.02, paper="+21 %, +22 % out of distribution"),
    dict(says="it ends no lower than easy to hard", metric=HARD, relation=">", than="ordered",
         margin=-0.02),
    dict(says="and above hard to easy", metric=HARD, relation=">", than="reverse"),
    dict(says="one level up: above hard to easy", metric=OOD, relation=">", than="reverse"),
    dict(says="early on reverse is right at most half as often as random", metric="reward/mean",
         arm="reverse", at="first:20", relation="<", than="random", times=0.5, paper="0 : 0.4"),
    dict(says="SEC's expected level rises", metric="curriculum/level", at="shift:20",
         relation=">", than=0.0),
    dict(says="the level that is nearest to half solved is drawn more than its share",
         metric="curriculum/p_half", at="mean", relation=">", than=0.3333),
    dict(says="two types: a 2-D bandit leaves the worse type above easy to hard", metric=WORST,
         arm="mixed_2d", relation=">", than="mixed_ordered", paper="2-D keeps all tasks alive"),
    dict(says="and no lower than a 1-D bandit", metric=WORST, arm="mixed_2d", relation=">",
         than="mixed_1d", margin=-0.02),
    dict(says="base: at most 15 % one level up", kind="mechanism", metric=OOD, at="start",
         relation="<", than=0.15),
    dict(says="random gains on the hardest level", kind="mechanism", metric=HARD, arm="random",
         at="gain", relation=">", than=0.0, margin=0.05),
]
EXACT = tuple(f"tests/data/curriculum_test.py::test_the_bandit_{test}" for test in (
    "prefers_what_is_half_solved", "follows_learners_that_cross_one_half_in_order"))
UNTESTED = ("Zebra puzzles, ARC-1D and AIME need a model of billions of parameters.",)
PLOT = (HARD, OOD, WORST, "curriculum/level", "curriculum/p_half", "reward/mean")
