"""Guide: a hint where all answers fail, trained on the prompt without it, by off-context weights.

https://arxiv.org/abs/2506.13923 (github.com/vaskar-open-source-research/guide_rl). Here: chains of
2 to 7 digits modulo 5, worked out from left to right. The base solves 2 to 4 digits; longer ones
only when the prompt begins with a hint, the first intermediate result.

  rljax-reproduce guide
  rljax-train --config configs/papers/guide.py:grpo --workdir runs/guide-grpo
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Guide: adaptive guidance", "category": "curriculum",
         "model": "Qwen/Qwen2.5-Math-7B"}
SEEDS = 3


def chains(low, high, split, size):
  """Chains of `low` to `high` operations, each with its hint "H3;"."""
  return fn("rljax.data.hints:attached", template="H{hint};", hint=fn(
      "rljax.data.hints:first_value"), tasks=fn(
          "rljax.data.chains:running", steps=high, min_steps=low, modulus=5, operators="+",
          split=split, size=size))


SHORT, LONG = chains(1, 3, "train", 20000), chains(4, 6, "train", 20000)
BASE = fn("rljax.data.planted:mixture", size=80000, weights=(0.45, 0.1, 0.45), parts=(
    SHORT,
    fn("rljax.data.planted:redrawn", tasks=LONG, share=1.0, symbols="01234"),
    fn("rljax.data.planted:redrawn", tasks=fn("rljax.data.hints:in_prompt", tasks=LONG), share=0.2,
       symbols="01234")))


def get_config():
  c = recipes.grpo()
  c.name = "Guide"
  c.steps = 150
  c.tokenizer = fn("rljax.data.text:char", alphabet="01234+=H;")
  c.tasks = chains(1, 6, "train", 20000)
  c.evals.long, c.evals.short = chains(4, 6, "test", 150), chains(1, 3, "test", 100)
  c.eval.samples, c.eval.every = 8, 50
  c.prompts = 24
  c.rollout = fn("rljax.rollouts.guided:guided", group_size=8,
                 grade=fn("rljax.rewards.verify:task_verifier"))
  c.rewards.silent = fn("rljax.rewards.text:silent", words=("H",))
  c.rewards.guided = fn("rljax.rewards.outcome:outcome", key="guided")
  c.reward_weights.guided = 0.0
  c.select = fn("rljax.data.select:drop_zero_variance")
  c.limits.prompt, c.limits.response = 18, 7
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=BASE, noise=0.0, steps=1200, rows=96,
                           skill=chains(1, 3, "test", 300), at_least=0.3, at_most=0.95)
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:chain", steps=(
          fn("rljax.advantages:group_norm"), fn("rljax.objectives.off_policy:shaping_scale"))),
      objective=fn("rljax.objectives.off_policy:guide"),
      optimizer=fn("rljax.optim:adamw", lr=5e-4, warmup=5))
  c.updates.policy.minibatches = 2
  c.checkpoint.every, c.episodes_max_bytes = 100, 40_000_000
  return c


ARMS = {
    "grpo": {"rollout.when": "never"},
    "kept": {"rollout.keep_hint": True},
    "no_weight": {"updates.policy.objective.weight": "none"},
    "clipped": {"updates.policy.objective.weight": "clipped"},
    "everywhere": {"rollout.when": "always"},
}
QUICK = {"steps": 100, "eval.every": 0}
RUNLOCAL = {"select": None}  # a random model has no mixed groups
_WORDS = fn("rljax.data.hints:attached", hint=fn("rljax.data.hints:first_line"), on_leak="drop",
            tasks=fn("rljax.data.gsm8k:gsm8k", path=None, chat=True))
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": _WORDS, "evals.long": _WORDS, "evals.short": _WORDS,
    "rollout.template": "{prompt}\n\nHint: {hint}\nUse the hint to orient yourself, but start from "
                        "scratch and never mention it.",
    "rewards.silent.words": ("hint",),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "prompts": 128, "limits.prompt": 1024, "limits.response": 4096,
    "limits.on_long_prompt": "skip", "updates.policy.accum": 16,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

LONG_ACC, NORM = "eval/long/pass_at_1", "grad/norm"
CLAIMS = [
    dict(says="five digits and more, without a hint: Guide ends above filtered GRPO",
         metric=LONG_ACC, relation=">", than="grpo", paper="+4 % macro-average (7B, 32B)"),
    dict(says="without the weight the largest gradient is larger", metric=NORM, arm="no_weight",
         at="peak", relation=">", than="full", paper="the correction is needed (direction only)"),
    dict(says="a hint where all fail does no worse than a hint everywhere", metric=LONG_ACC,
         relation=">", than="everywhere", margin=-0.02, paper="better"),
    dict(says="long chains no sample solved at the start: Guide solves some", metric=LONG_ACC,
         at="open", relation=">", than=0.05, paper="capability gain"),
    dict(says="filtered GRPO solves almost none of them", kind="control", metric=LONG_ACC,
         arm="grpo", at="open", relation="<", than=0.05),
    dict(says="f(w) ends no lower than w with PPO's clip", metric=LONG_ACC, relation=">",
         than="clipped", margin=-0.02),
    dict(says="training on the plain prompt ends no lower than keeping the hint", metric=LONG_ACC,
         relation=">", than="kept", margin=-0.02),
    dict(says="long chains are unsolved at pass@8", kind="mechanism",
         metric="eval/long/pass_at_8", at="start", relation="<", than=0.1),
    dict(says="short ones are solved in part", kind="mechanism", metric="eval/short/pass_at_1",
         at="start", relation="within", than=0.55, margin=0.25),
]
EXACT = (
    "tests/objectives/off_policy_test.py::test_an_empty_hint_gives_a_quarter_of_the_gradient",)
UNTESTED = ("Hints by a strong model for competition mathematics need that model and data.",)
PLOT = (LONG_ACC, "eval/long/pass_at_8", "eval/short/pass_at_1", "reward/guided", NORM)
