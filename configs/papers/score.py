"""SCoRe: two attempts, and a reward for what the second one wins over the first.

https://arxiv.org/abs/2409.12917. Here: signs between four given digits so that their sum is right.
The base writes an expression, then checks it correctly ("=10,15,14>;") and goes on with the same or
another one, whatever the check said. Stage I pays the second attempt alone and pins the first to
the base.

  rljax-reproduce score
  rljax-train --config configs/papers/score.py:naive --workdir runs/score-naive
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SCoRe: learning to self-correct", "category": "self-correction",
         "model": "google/gemma-2-2b"}
SEEDS = 3

GRADE = fn("rljax.rewards.verify:task_verifier")


def sums(split, size):
  return fn("experiments/score.py:sums", split=split, size=size)


def paid(**knobs):
  return fn("rljax.rewards.turns:paid", **knobs)


def stages(*steps, **parts):
  return fn("rljax.data.memory:stages", steps=steps, **parts)


ONE, TWO = paid(first=0.0, later=0.0, kl=(2.0, 1.0)), paid(bonus=10.0)


def get_config():
  c = recipes.grpo()
  c.name = "SCoRe"
  c.steps = 160
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-,<=>:;?")
  c.tasks, c.evals.test = sums("train", 300), sums("test", 250)
  c.limits.prompt, c.limits.response, c.limits.observation = 10, 32, 1
  c.prompts, c.sampling.slots = 16, 128
  c.rollout = fn("rljax.rollouts.revise:revise", group_size=8, feedback="?", turn_tokens=22)
  c.rewards = {"first": fn("rljax.rewards.turns:attempt", number=0, grade=GRADE),
               "last": fn("rljax.rewards.turns:attempt", number=1, grade=GRADE)}
  c.reward_weights = {"first": 0.0, "last": 0.0}  # each attempt is paid for itself
  c.memories.paid = stages(0, 60, parts=(ONE, TWO))
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.0, steps=2000, rows=96,
                           tasks=sums("train", 20000), skill=sums("test", 250), at_least=0.25,
                           at_most=0.6, rollout=fn("rljax.rollouts.revise:demonstrations",
                                                   feedback="?"))
  c.roles.ref = recipes.role(init="policy", train=False)
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:chain", steps=(
          fn("rljax.advantages:kl_reward", coef=0.15),
          fn("rljax.advantages:segment_norm", key="segment_BT", scale_by_std=False))),
      objective=fn("rljax.objectives.pg:rloo"),
      optimizer=fn("rljax.optim:adamw", lr=2.5e-4, warmup=10))
  c.eval.rollout = fn("rljax.rollouts.revise:revise", feedback="?", turn_tokens=22)
  c.eval.measure = fn("rljax.evals.revision:measure", grade=GRADE,
                      final=fn("experiments/score.py:final"))
  c.eval.samples, c.eval.every = 4, 40
  c.checkpoint.every, c.episodes_max_bytes = 80, 20_000_000
  return c


ARMS = {
    "single": {"rollout.attempts": 1, "memories.paid": stages(0, parts=(paid(later=0.0),))},
    "naive": {"memories.paid": stages(0, parts=(paid(),))},
    "bonus": {"memories.paid": stages(0, parts=(TWO,))},
    "star": {"rollout.role": "ref", "select": fn("rljax.rewards.turns:corrected"),
             "updates.policy.advantage": None,
             "updates.policy.objective": fn("rljax.objectives.supervised:sft")},
}
QUICK = {"steps": 120, "memories.paid.steps": (0, 40), "eval.every": 0}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True), "eval.measure.final": None,
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    **{f"{where}.{k}": v for where in ("rollout", "eval.rollout") for k, v in (
        ("message", True), ("turn_tokens", 1024), ("feedback", (
            "There might be an error in the solution above. Correct it, if there is one, and "
            "write the whole solution again.")))},
    "prompts": 64, "limits.prompt": 512, "limits.response": 2048, "limits.observation": 64,
    "limits.on_long_prompt": "skip", "steps": 3000, "memories.paid.steps": (0, 1500),
    "updates.policy.accum": 32, "updates.policy.optimizer": fn("rljax.optim:adamw", lr=5e-6),
}

EVAL = "eval/test/"
DELTA, LAST, EDITED = EVAL + "delta", EVAL + "last", EVAL + "edited_wrong"
CLAIMS = [
    dict(says="SCoRe gains at the second attempt", metric=DELTA, relation=">", than=0.0,
         paper="+4.4 on MATH"),
    dict(says="2 points more than two turns without its stages and bonus", metric=DELTA,
         relation=">", than="naive", margin=0.02, paper="+4.4 against about 0: it stops editing"),
    dict(says="training on one attempt gains nothing at the second", kind="control", metric=DELTA,
         arm="single", relation="<", than=0.005, paper="-2.4"),
    dict(says="wrong first attempts are edited more often than without stages and bonus",
         metric=EDITED, relation=">", than="naive", paper="35 % against 5 %"),
    dict(says="SCoRe's second attempt ends no lower than STaR's", metric=LAST, relation=">",
         than="star", margin=-0.02, paper="64.4 against 54.0"),
    dict(says="the base loses at the second attempt", kind="mechanism", metric=DELTA, at="start",
         relation="<", than=0.0, paper="-11.2"),
    dict(says="with the bonus alone it edits, too", kind="mechanism", metric=EDITED, arm="bonus",
         relation=">", than=0.05),
]
EXACT = ("tests/rewards/turns_test.py::test_what_scores_table_pays",
         "tests/rewards/turns_test.py::test_being_wrong_first_is_never_paid")
UNTESTED = ("Correcting free-form reasoning needs a pretrained model.",)
PLOT = (DELTA, EVAL + "first", LAST, EVAL + "fixed", EVAL + "broken", EDITED)
