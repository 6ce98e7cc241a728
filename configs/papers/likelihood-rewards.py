"""Likelihood rewards: the reference answer's log-probability as a differentiated reward.

VeriFree is https://arxiv.org/abs/2505.21493, JEPO https://arxiv.org/abs/2503.19618. Expressions of
three digits with short answers, and `long_*` arms with 40 letters that nobody can predict.

  rljax-reproduce likelihood-rewards
  rljax-train --config configs/papers/likelihood-rewards.py:prob --workdir runs/prob
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Likelihood-based reward designs", "category": "policy-gradient",
         "model": "meta-llama/Llama-3.2-3B-Instruct"}
SEEDS = 3


def chain(split, size):
  return fn("rljax.data.planted:worked", phrases=("",), share=1.0, accuracy=1.0, tasks=fn(
      "rljax.data.tasks:arithmetic_chain", steps=2, low=0, high=9, operators="+-*", max_value=99.0,
      split=split, size=size))


def long(split, size):
  return fn("rljax.data.planted:verified", verifier="rljax.rewards.verify:exact", tasks=fn(
      "rljax.data.planted:annotated", tasks=chain(split, size), letters=40))


def get_config():
  c = recipes.grpo()
  c.name = "Likelihood rewards"
  c.steps = 100
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-*()=# abcdefghijklmnop")
  c.tasks, c.evals.test = chain("train", 20000), chain("test", 300)
  c.limits.prompt, c.limits.response, c.prompts = 9, 24, 16
  c.rollout = fn("rljax.rollouts.reference:spliced", group_size=8, reasoning=20)
  c.sampling.slots = 128
  c.rewards.correct = fn("rljax.rewards.likelihood:reference_likelihood", form="logprob")
  c.rewards.avglogp = fn("rljax.rewards.likelihood:reference_likelihood", form="avglogprob")
  c.reward_weights.avglogp = 0.0
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=chain("train", 20000),
                           skill=chain("test", 300), noise=0.0, steps=300, rows=128, at_least=0.05,
                           at_most=0.7)
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:leave_one_out"),
      objective=fn("rljax.objectives.likelihood:reference", form="logprob"),
      optimizer=fn("rljax.optim:adamw", lr=1e-4, warmup=10))
  c.eval.greedy, c.eval.every = True, 50
  c.checkpoint.every, c.episodes_max_bytes = 50, 20_000_000
  return c


def form(name):
  return {"rewards.correct.form": name, "updates.policy.objective.form": name}


def sft(tasks):
  return {"tasks": fn("rljax.data.planted:direct", tasks=tasks),
          "rollout": fn("rljax.rollouts.dataset:demonstrations"), "prompts": 128,
          "updates.policy.advantage": None,
          "updates.policy.objective": fn("rljax.objectives.supervised:sft",
                                         aggregation="seq-mean-token-mean")}


_LONG = {"tasks": long("train", 20000), "limits.response": 64, "evals.test": long("test", 300),
         "roles.policy.init": fn(
             "rljax.train.base:trained", tasks=long("train", 20000), skill=chain("test", 300),
             noise=0.0, steps=1000, rows=128, at_least=0.0, at_most=1.0)}
ARMS = {
    "sft": sft(chain("train", 20000)),
    "binary": {"rollout": fn("rljax.rollouts.single_turn:single_turn", group_size=8),
               "rewards.correct": fn("rljax.rewards.verify:task_verifier"),
               "updates.policy.objective": fn("rljax.objectives.pg:rloo")},
    "prob": form("prob"), "avgprob": form("avgprob"), "avglogprob": form("avglogprob"),
    "jepo": {"updates.policy.objective.form": "weighted", "rollout.group_size": 4, "prompts": 32,
             "updates.policy.advantage": fn("rljax.objectives.likelihood:jepo_advantage")},
    "long_logprob": _LONG, "long_prob": {**_LONG, **form("prob")},
    "long_sft": {**_LONG, **sft(long("train", 20000))},
}
QUICK = {"steps": 60, "eval.every": 0}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "roles.ref": recipes.role(init="policy", train=False),
    "prompts": 8, "rollout.group_size": 32, "rollout.tag": "####", "rollout.reasoning": 1024,
    "rewards.correct.tag": "####", "rewards.avglogp.tag": "####", "limits.prompt": 512,
    "limits.response": 1088, "limits.on_long_prompt": "skip", "updates.policy.accum": 16,
    "updates.policy.objective.kl_coef": 0.001, "steps": 1000, "updates.policy.optimizer": fn(
        "rljax.optim:adamw", lr=1e-5, warmup=20, decay="cosine", steps=1000),
}

ACC, LOGP, GRAD = "eval/test/pass_at_1", "reward/avglogp", "grad/norm"
CLAIMS = [
    *[dict(says=f"{arm}: greedy success within 5 points of binary RL", metric=ACC, arm=arm,
           relation="within", than="binary", margin=0.05, paper=paper)
      for arm, paper in (("full", "43.3 against 42.7"), ("avglogprob", "43.7"), ("prob", "44.2"),
                         ("avgprob", "44.0"), ("jepo", ""))],
    dict(says="logprob: lower perplexity of the reference than binary RL", metric=LOGP,
         at="last:10", relation=">", than="binary", paper="2.21 against 13.9"),
    dict(says="and than SFT without reasoning", metric=LOGP, at="last:10", relation=">",
         than="sft", paper="2.21 against 2.63"),
    dict(says="long answers: the probability has no gradient at all", metric=GRAD, at="peak",
         arm="long_prob", relation="within", than=0.0, margin=1e-30, paper="no learning"),
    dict(says="long answers: nothing moves (nats per token)", metric=LOGP, at="shift:20",
         arm="long_prob", relation="within", than=0.0, margin=0.01, paper="3.62 as before"),
    dict(says="long answers: logprob reaches SFT within 2 % (0.056 of 2.8 nats)", metric=LOGP,
         at="last:10", arm="long_logprob", relation="within", than="long_sft", margin=0.056,
         paper="3.04 and 3.04"),
    dict(says="binary RL gains", kind="mechanism", metric=ACC, arm="binary", at="gain",
         relation=">", than=0.0, margin=0.05),
]
EXACT = ("tests/objectives/likelihood_test.py::test_a_product_of_many_probabilities_underflows",)
UNTESTED = ("Whether reasoning helps proofs needs a pretrained model.",)
PLOT = (ACC, LOGP, "eval/test/length", GRAD)
