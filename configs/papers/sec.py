"""SEC: which difficulty comes next is a bandit whose reward is the mean absolute advantage.

https://arxiv.org/abs/2505.14970. Here: Countdown of 2 to 4 numbers (levels 1 to 3), tested on 5
(level 4) too, and sums of as many numbers as a second type. The base knows the form of all levels,
and has less of the skill at each than at the one before.

  rljax-reproduce sec
  rljax-train --config configs/papers/sec.py:reverse --workdir runs/sec-reverse
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SEC: self-evolving curriculum", "category": "curriculum",
         "model": "Qwen/Qwen2.5-3B"}
SEEDS = 5


def countdown(level, split, size):
  return fn("rljax.data.tasks:countdown", numbers=level + 1, low=1, high=9, max_target=45,
            operators="+-", split=split, size=size)


def chain(level, split, size):
  return fn("rljax.data.tasks:arithmetic_chain", steps=level, low=0, high=9, operators="+-",
            split=split, size=size)


def levels(kind, split, size, upto):
  return fn("rljax.data.mixture:mixture", key="level",
            sets={str(n): kind(n, split, size) for n in range(1, upto + 1)})


def both(split, size, upto):
  return fn("rljax.data.mixture:mixture", key="kind", sets={
      "countdown": levels(countdown, split, size, upto), "chain": levels(chain, split, size, upto)})


def unskilled(kind, symbols):
  return tuple(fn("rljax.data.planted:redrawn", tasks=kind(n + 1, "train", 10000), share=share,
                  symbols=symbols) for n, share in enumerate((0.3, 0.7, 0.95, 1.0)))


BASE = fn("rljax.data.planted:mixture", size=80000, weights=2 * (4, 3, 2, 1),
          parts=unskilled(countdown, "+-") + unskilled(chain, "0123456789"))


def get_config():
  c = recipes.grpo()
  c.name = "SEC"
  c.steps = 200
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-()=: ")
  c.tasks = levels(countdown, "train", 5000, 3)
  c.curriculum = fn("rljax.data.curriculum:bandit", keys=("level",), temperature=0.4)
  c.evals.test = levels(countdown, "test", 100, 4)
  c.eval.by = "level"
  c.prompts, c.rollout.group_size = 32, 8
  c.limits.prompt, c.limits.response = 17, 16
  c.sampling.slots = 256
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=BASE, noise=0.0, steps=1500, rows=128,
                           skill=both("test", 60, 4), at_least=0.1, at_most=0.6)
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1e-3, warmup=10)
  c.eval.every = 20
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


_BLOCKS = "rljax.data.curriculum:blocks"
_MIXED = {"tasks": both("train", 5000, 3), "evals.test": both("test", 60, 3), "eval.by": "kind"}
ARMS = {
    "random": {"curriculum": fn("rljax.data.curriculum:shuffled")},
    "ordered": {"curriculum": fn(_BLOCKS, keys=("level",), steps=200)},
    "reverse": {"curriculum": fn(_BLOCKS, keys=("level",), steps=200, reverse=True)},
    "mixed_2d": {**_MIXED, "curriculum.keys": ("kind", "level"), "curriculum.temperature": 0.2},
    "mixed_1d": {**_MIXED, "curriculum.temperature": 0.2},
    "mixed_ordered": {**_MIXED, "curriculum": fn(_BLOCKS, keys=("level",), steps=200)},
}
