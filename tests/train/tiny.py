"""A recipe of milliseconds per step, for tests of the loop. A config file like any other."""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.grpo()
  c.steps = 6
  c.prompts = 4
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+=")
  c.tasks = fn("rljax.data.tasks:addition", digits=1, split="train", size=64)
  c.evals.test = fn("rljax.data.tasks:addition", digits=1, split="test", size=8, test_share=0.3)
  c.tasks.test_share = 0.3
  c.limits.prompt, c.limits.response = 4, 3
  c.rollout.group_size = 4
  c.sampling.slots = 16
  c.eval.every, c.eval.limit = 3, 8
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=16, layers=1, heads=2)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.roles.teacher = recipes.role(init="policy", train=False, follow="policy", decay=0.5)
  c.rewards = {"even": fn("tests/train/tiny_rewards.py:even_digits")}
  c.updates.policy.objective.kl_coef = 0.01
  c.updates.policy.minibatches = 2
  c.checkpoint.every = 1
  return c


ARMS = {"long": {"steps": 60}, "adam": {"updates.policy.minibatches": 1},
        "lag": {"lag": 1,
                "updates.policy.objective.correction": fn("rljax.nums:truncated_weight")}}
