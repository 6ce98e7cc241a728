"""A reward model from a file of pairs, with its accuracy, calibration and categories as tables.

Rows as in hh-rlhf (`chosen` and `rejected` are dialogues), or with a `prompt` and responses; a
`category` is optional. A tenth of the prompts is held out for the evaluation.

  rljax-train --config configs/reward_model.py --config.data.path=pairs.jsonl --workdir runs/rm

Another file (say best-of-4 rows in the form of RewardBench 2) is judged by the same model with the
same command and `--config.data.eval_path=other.jsonl`. From a Hugging Face checkpoint folder:

  rljax-train --config configs/reward_model.py:checkpoint --config.data.path=pairs.jsonl \\
      --config.tokenizer.path=FOLDER --config.roles.reward_model.model.path=FOLDER \\
      --config.roles.reward_model.init.path=FOLDER --workdir runs/rm

https://arxiv.org/abs/2203.02155
"""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.reward_model()
  c.name = "Reward model"
  c.steps = 300
  c.tokenizer = fn("rljax.data.text:byte")
  c.prompts = 32
  c.limits.prompt, c.limits.response, c.limits.on_long_prompt = 512, 512, "skip"
  c.sampling.slots = 32  # rows that are scored together
  c.roles.reward_model.model = fn("rljax.models.policy:decoder", width=128, layers=4, heads=4,
                                  scan=False)
  c.updates.reward_model.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=20, decay="linear",
                                        steps=300)
  c.updates.reward_model.objective.centering = 0.01
  c.checkpoint.every = 100
  c.episodes_max_bytes = 20_000_000
  return c


ARMS = {
    "checkpoint": {
        "tokenizer": fn("rljax.data.text:hf", path=""),
        "roles.reward_model.model": fn("rljax.models.hf:model", path=""),
        "roles.reward_model.init": fn("rljax.models.hf:params", path=""),
        "updates.reward_model.optimizer.lr": 1e-5,
        "updates.reward_model.accum": 8,
    },
}
RUNLOCAL = {"limits.prompt": 96, "limits.response": 96}
