"""GRPO from nothing on a laptop: 3-digit addition by characters, 0.6 M parameters.

A base model is trained on demonstrations until it solves 30-60 % of the problems, then GRPO with a
verifier does the rest.  https://arxiv.org/abs/2402.03300

  make quickstart
  rljax-train --config configs/quickstart.py --workdir runs/quickstart
"""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.grpo()
  c.name = "quickstart: 3-digit addition"
  c.steps = 350
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+=")
  c.tasks = fn("rljax.data.tasks:addition", digits=3, pad=True, split="train")
  c.evals.test = fn("rljax.data.tasks:addition", digits=3, pad=True, split="test", size=500)
  c.limits.prompt, c.limits.response = 8, 5
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=128, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.5, steps=1800)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer = fn(
      "rljax.optim:adamw", lr=5e-4, warmup=10, decay="linear", steps=350)
  c.updates.policy.pack, c.updates.policy.pack_length = 32, 40  # a group reads its prompt once
  c.updates.policy.accum = 2  # on two devices a quarter at a time stays in the cache of a CPU
  c.eval.every = 50
  return c


ARMS = {
    "no_kl": {"updates.policy.objective.kl_coef": 0.0},
    "rloo": {"updates.policy.advantage": fn("rljax.advantages:leave_one_out"),
             "updates.policy.objective": fn("rljax.objectives.pg:rloo")},
}
