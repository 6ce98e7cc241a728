"""GRPO on the GSM8K word problems, from a Hugging Face checkpoint folder.

  rljax-train --config configs/grpo_gsm8k.py --config.tokenizer.path=FOLDER \\
      --config.roles.policy.model.path=FOLDER --config.roles.policy.init.path=FOLDER \\
      --config.tasks.path=train.jsonl --config.evals.test.path=test.jsonl --workdir runs/gsm8k

`:runlocal` runs two steps with a tiny random model, characters as tokens and the same data files.
https://arxiv.org/abs/2402.03300
"""

from rljax import recipes
from rljax.config import fn

PROMPT = "{question}\nThink step by step, and end with the final answer after ####."


def get_config():
  c = recipes.grpo()
  c.name = "GSM8K word problems"
  c.steps = 500
  c.tokenizer = fn("rljax.data.text:hf", path="")
  c.tasks = fn("rljax.data.gsm8k:gsm8k", path=None, template=PROMPT, chat=True)
  c.evals.test = fn("rljax.data.gsm8k:gsm8k", path=None, template=PROMPT, chat=True)
  c.prompts = 64
  c.limits.prompt, c.limits.response, c.limits.on_long_prompt = 384, 1024, "skip"
  c.sampling.prompt_buckets = (128, 256, 384)
  c.rollout.group_size = 16
  c.roles.policy.model = fn("rljax.models.hf:model", path="")
  c.roles.policy.init = fn("rljax.models.hf:params", path="")
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer.lr = 1e-6
  c.updates.policy.accum = 16
  c.eval.every = 50
  c.checkpoint.every = 25
  return c


RUNLOCAL = {
    "tokenizer": fn("rljax.data.text:byte"),
    "limits.prompt": 512,
    "limits.response": 16,
    "sampling.prompt_buckets": (256, 512),
}
