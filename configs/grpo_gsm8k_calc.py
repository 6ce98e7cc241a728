"""GRPO on the calculations of real maths word problems: the <<a*b=c>> annotations of GSM8K.

The base learns from random calculations, 30 % of them wrong; GRPO trains on the real ones. Train
and test never share an equation: a hash of the equation decides which side it may be on, so the
test equations are new even where the two files overlap.  https://arxiv.org/abs/2110.14168

  rljax-train --config configs/grpo_gsm8k_calc.py --config.tasks.path=train.jsonl \\
      --config.evals.test.path=test.jsonl --workdir runs/calc
"""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.grpo()
  c.name = "GSM8K calculations"
  c.steps = 250
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-*/()=.")
  c.tasks = fn("rljax.data.gsm8k:gsm8k_calc", path=None, split="train", max_chars=6)
  c.evals.test = fn("rljax.data.gsm8k:gsm8k_calc", path=None, split="test", max_chars=6)
  c.limits.prompt, c.limits.response = 7, 8
  c.eval.limit, c.eval.every = 0, 50
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=128, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn(
      "rljax.train.base:trained", noise=0.3, at_least=0.2, steps=2000, lr=2e-3,
      tasks=fn("rljax.data.gsm8k:generated_calc", max_chars=6))
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer = fn(
      "rljax.optim:adamw", lr=5e-4, warmup=10, decay="linear", steps=250)
  return c
