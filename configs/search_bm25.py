"""GRPO with BM25 search: questions whose facts stand in a corpus, one search each.

The base has seen searches and, in three cases of ten, a guess without any; RL has to find that
looking pays. Passages are read and never trained on. `rollout.env.tools.search.corpus` may be a
JSON-lines file of {"id", "title", "text"}, with a task set of its own.
https://arxiv.org/abs/2503.09516

  rljax-train --config configs/search_bm25.py --workdir runs/search
"""

from rljax import recipes
from rljax.config import fn


def rollout(name):
  search = fn("rljax.envs.retrieval:bm25", top=1, form="{text}", output="info",
              corpus=fn("rljax.data.tool_tasks:fact_passages"))
  env = fn("rljax.envs.base:tools", tools={"search": search}, max_calls=2, pad="",
           invalid_text="")
  return fn(f"rljax.rollouts.multi_turn:{name}", env=env, observation_tokens=32)


def get_config():
  c = recipes.grpo()
  c.name = "facts by BM25 search"
  c.steps = 100
  c.tokenizer = fn("rljax.data.text:char",
                   alphabet="0123456789abcdefghijklmnopqrstuvwxyzNCL<>/+?. ")
  c.tasks = fn("rljax.data.tool_tasks:facts", hops=1, split="train")
  c.evals.test = fn("rljax.data.tool_tasks:facts", hops=1, split="test", size=500)
  c.prompts = 16
  c.limits.prompt, c.limits.response, c.limits.observation = 20, 72, 64
  c.sampling.prompt_buckets = (20, 88, 155)
  c.sampling.slots = 128
  c.rollout = rollout("multi_turn")
  c.rollout.group_size = 8
  c.eval.rollout = rollout("multi_turn")
  c.eval.every, c.eval.limit = 25, 128
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=96, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", rollout=rollout("demonstrations"),
                           steps=600, rows=64, problems=128, at_least=0.2, at_most=0.85)
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=5)
  return c


ARMS = {
    "two_hops": {"tasks.hops": 2, "evals.test.hops": 2},
    "closed_book": {"rollout.env.max_calls": 0, "eval.rollout.env.max_calls": 0},
}
