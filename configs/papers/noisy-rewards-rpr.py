"""Noisy rewards: RL stands rewards flipped per question, and style alone elicits what was there.

https://arxiv.org/abs/2505.22653 (github.com/trestad/Noisy-Rewards-in-Learning-to-Reason). Here: the
base answers sums of three digits in steps (30 %, right in 85 %) or directly (right in 15 %).

  rljax-reproduce noisy-rewards-rpr
  rljax-train --config configs/papers/noisy-rewards-rpr.py:p40 --workdir runs/p40
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "The climb carves wisdom deeper: noisy rewards and RPR", "category": "analysis",
         "model": "Qwen/Qwen2.5-7B"}
SEEDS = 3

PHRASES = ("so", "now", "we", "let", "if", "as", "then", "ok", "hm", "wait")


def sums(split, size, share=0.3):
  return fn("rljax.data.planted:worked", phrases=PHRASES, share=share, tasks=fn(
      "rljax.data.planted:verified", verifier="experiments/noisy-rewards-rpr.py:correct", tasks=fn(
          "rljax.data.tasks:arithmetic_chain", steps=2, low=0, high=9, operators="+-", split=split,
          size=size)))


def get_config():
  c = recipes.grpo()
  c.name = "Noisy rewards"
  c.steps = 150
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-()=# " + "abcdefghijklmnopqrstuvw")
  c.tasks, c.evals.test = sums("train", 20000), sums("test", 250)
  c.limits.prompt, c.limits.response = 9, 40
  c.prompts, c.rollout.group_size = 32, 4
  c.sampling.slots = 128
  c.rewards.correct = fn("rljax.rewards.spurious:flipped", rate=0.0,
                         answer=fn("experiments/noisy-rewards-rpr.py:answer"))
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=sums("train", 20000),
                           skill=sums("test", 250), noise=0.0, steps=2500, rows=128, at_least=0.2,
                           at_most=0.5)
  c.updates.policy.objective.kl_coef = 0.0
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=2.5e-4, warmup=10)
  c.eval.every = 10
  c.checkpoint.every, c.episodes_max_bytes = 60, 20_000_000
  return c


_DIRECT = fn("rljax.train.base:trained", tasks=sums("train", 20000, 0.0),
             skill=sums("test", 250, 0.0), noise=0.0, steps=2500, rows=128, at_least=0.03,
             at_most=0.3, limits={"prompt": 9, "response": 6})
_RPR = {"rewards.correct": fn("rljax.rewards.phrases:reasoning_patterns", phrases=PHRASES, full=10,
                              marker="#")}
ARMS = {
    **{f"p{int(100 * p)}": {"rewards.correct.rate": p} for p in (0.2, 0.4, 0.5, 0.6)},
    "rpr": _RPR,
    "rpr_direct_base": {**_RPR, "roles.policy.init": _DIRECT},
}
QUICK = {"steps": 90, "eval.every": 10, "roles.policy.init.steps": 1200}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "evals.test": fn("rljax.data.gsm8k:gsm8k", path=None, chat=True),
    "rewards.correct": fn("rljax.rewards.spurious:flipped", rate=0.0),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "prompts": 128, "limits.prompt": 1024, "limits.response": 4096,
    "limits.on_long_prompt": "skip", "updates.policy.accum": 16,
    "updates.policy.objective.entropy_coef": 0.001,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

ACC = "eval/test/pass_at_1"
CLAIMS = [
    dict(says="40 % flipped questions cost at most 6 points", metric=ACC, arm="p40", relation=">",
         than="full", margin=-0.06, paper="MATH-500 peak 72.02 against 75.85"),
    dict(says="but it takes longer to get there", metric=ACC, arm="p40", at="reach:0.7",
         relation=">", than="full"),
    dict(says="with 50 % flips nothing is learned", kind="control", metric=ACC, arm="p50",
         at="gain", relation="within", than=0.0, margin=0.05, paper="collapse"),
    dict(says="with 60 % flips it ends below the base", kind="control", metric=ACC, arm="p60",
         at="gain", relation="<", than=0.0),
    dict(says="rewarding phrases alone reaches 0.9 of the clean peak", metric=ACC, arm="rpr",
         at="peak", relation=">", than="full", margin=-0.1, paper="peak 70.21 against 75.85"),
    dict(says="and goes on growing longer (overthinking)", metric="eval/test/length", arm="rpr",
         at="gain", relation=">", than=0.0, margin=5.0, paper="then declines through overthinking"),
    dict(says="on a base without worked traces phrases give less than 3 points", kind="control",
         metric=ACC, arm="rpr_direct_base", at="gain", relation="<", than=0.03),
    dict(says="20 % flips still learn", kind="mechanism", metric=ACC, arm="p20", at="gain",
         relation=">", than=0.0, margin=0.2),
]
EXACT = ("tests/reproduce/exact_test.py::test_question_flips_scale_the_gradient",)
UNTESTED = ("Calibrating a reward model of 65 to 85 % accuracy is not run; its formula is "
            "`rljax.rewards.phrases:calibrated`.", "Nor is PPO with a critic.",
            "The difference between Qwen and Llama needs those models.")
PLOT = (ACC, "eval/test/length", "policy/entropy")
