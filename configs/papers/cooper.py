"""Cooper: the reward model is trained beside the policy, on what a rule is certain of.

https://github.com/ZJU-REAL/cooper. Here: chains of two steps whose answers may be written "#12",
"12", "=12", "ans 12" or "12.0". A rule reads the first form only. The verifier that grades the
policy reads the reference answer, and has a planted hole: in its training data a final "!" goes
with right responses in 95 % of the cases.

  rljax-reproduce cooper
  rljax-train --config configs/papers/cooper.py:fixed --workdir runs/cooper-fixed
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Cooper: co-optimising policy and reward models", "category": "reward-model",
         "model": "Qwen/Qwen2.5-1.5B-Instruct"}
SEEDS = 3

RULE = fn("experiments/cooper.py:rule")
TEMPLATE = "{prompt}{answer}:{response}"


def problems(split, size):
  return fn("experiments/cooper.py:chains", split=split, size=size)


def verdict(template=TEMPLATE):
  return fn("rljax.rewards.shaping:sigmoid",
            reward=fn("rljax.rewards.model:score", template=template))


def get_config():
  c = recipes.grpo()
  c.name = "Cooper"
  c.steps = 300
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+()=#.;!: ans")
  c.tasks, c.evals.test = problems("train", 20000), problems("test", 250)
  c.limits.prompt, c.limits.response = 13, 12  # the verifier's prompt holds the answer, too
  c.sampling.prompt_buckets, c.sampling.slots = (8,), 192
  c.prompts, c.rollout.group_size = 12, 16
  truth = fn("rljax.rewards.verify:task_verifier")
  c.rewards = {"model": verdict(), "rule": RULE, "oracle": truth,
               "agreement": fn("rljax.rewards.model:agreement", reward=verdict(), truth=truth)}
  c.reward_deadline = 600.0  # models, on a machine that may be busy
  c.reward_weights = {"rule": 0.0, "oracle": 0.0, "agreement": 0.0}
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=problems("train", 20000),
                           skill=problems("test", 250), noise=0.0, steps=1000, rows=64,
                           at_least=0.3, at_most=0.55, limits={"prompt": 8, "response": 12})
  c.roles.ref = recipes.role(init="policy", train=False)
  c.roles.reward_model = recipes.role(
      head=fn("rljax.models.heads:head"), init=fn(
          "rljax.train.base:scorer", objective=fn("rljax.objectives.reward_model:bce"),
          tasks=fn("experiments/cooper.py:items", split="train", size=12000),
          skill=fn("experiments/cooper.py:items", split="test", size=200, coupled=0.5), steps=2000,
          rows=32, at_least=0.7))  # without the hole's help
  c.updates.policy.objective.kl_coef = 0.001
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=10)
  c.updates.reward_model = recipes.update(
      objective=fn("rljax.objectives.reward_model:bradley_terry", centering=0.01),
      optimizer=fn("rljax.optim:adamw", lr=5e-4))
  c.updates.reward_model.role, c.updates.reward_model.rows = "reward_model", 24
  c.updates.reward_model.ref = ""
  c.updates.reward_model.derive = fn(
      "rljax.data.verified:verified_pairs", rule=RULE, template=TEMPLATE,
      rewrite=fn("rljax.data.verified:near_miss"), answer=fn("experiments/cooper.py:answer"))
  c.eval.samples, c.eval.every = 4, 100
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


ARMS = {
    "rule": {"reward_weights.rule": 1.0, "reward_weights.model": 0.0,
             "updates.reward_model.every": 0},
    "fixed": {"updates.reward_model.every": 0},
    "no_rewriting": {"updates.reward_model.derive.rewrite": None},
}
QUICK = {"steps": 150, "eval.every": 0, "rollout.group_size": 8, "sampling.slots": 96}
_TEMPLATE = "{prompt}\nReference answer: {answer}\nSolution: {response}"
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "rewards.model": verdict(_TEMPLATE),
    "rewards.rule": fn("rljax.rewards.verify:task_verifier"),
    "rewards.agreement.reward": verdict(_TEMPLATE),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "roles.reward_model.init": fn("rljax.models.hf:params", path=""),
    "prompts": 64, "sampling.prompt_buckets": (512, 1024),
    "limits.prompt": 1024, "limits.response": 3072, "limits.on_long_prompt": "skip",
    "updates.policy.accum": 16,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6, warmup=20),
    "updates.reward_model.rows": 128, "updates.reward_model.accum": 4,
    "updates.reward_model.optimizer.lr": 1e-5,
    "updates.reward_model.derive.rule": fn("rljax.rewards.verify:task_verifier"),
    "updates.reward_model.derive.template": _TEMPLATE,
    "updates.reward_model.derive.answer": None,
}

TRUTH, MODEL, AGREE = "reward/oracle", "reward/model", "reward/agreement"
CLAIMS = [
    dict(says="under a fixed reward model its reward goes above 0.9", metric=MODEL, arm="fixed",
         at="last:10", relation=">", than=0.9, paper="train reward goes to about 1"),
    dict(says="while the true accuracy falls 10 points below its own peak", metric=TRUTH,
         arm="fixed", at="fall:10", relation=">", than=0.1, paper="38.91 from 54.93: collapse"),
    dict(says="Cooper keeps 0.95 of its peak", metric=TRUTH, at="keep:10", relation=">", than=0.95,
         paper="accuracy and reward stay aligned"),
    dict(says="Cooper ends 15 points above the fixed model", metric=TRUTH, at="last:10",
         relation=">", than="fixed", margin=0.15, paper="58.02 against 38.91"),
    dict(says="Cooper ends where the rule does, or above", metric=TRUTH, at="last:10", relation=">",
         than="rule", margin=-0.02, paper="58.02 against 57.48"),
    dict(says="the model is right about more of Cooper's own samples", metric=AGREE, at="last:10",
         relation=">", than="fixed"),
]
EXACT = ("tests/reproduce/cooper_test.py::test_the_rule_is_a_part_of_the_oracle",)
UNTESTED = ("VerifyBench and the five maths sets need the 1.5B models, and so does an assistant.",)
PLOT = (TRUTH, MODEL, AGREE, "eval/test/pass_at_1")
