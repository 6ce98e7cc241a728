"""Visual Jigsaw: shuffled tiles put back in order, paid by position.

https://github.com/penghao-wu/visual_jigsaw. Here: pictures of 24 x 24 pixels cut into 2 x 2 or
3 x 2 tiles, and a base that sorts tiles by light and by colour, and of puzzles knows the form. With
K <= 4 pieces the released rule pays no partial credit: both rewards are one there, and one arm.

  rljax-reproduce visual-jigsaw
  rljax-train --config configs/papers/visual-jigsaw.py:exact --workdir runs/jigsaw-exact
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Visual Jigsaw: post-training by puzzles", "category": "vision",
         "model": "Qwen/Qwen2.5-7B"}  # the text half of the paper's Qwen2.5-VL-7B
SEEDS = 3


REWARDS = {"order": fn("rljax.rewards.permutation:graded"),
           "exact": fn("rljax.rewards.permutation:graded", partial=0.0, form_bonus=0.0),
           "placed": fn("rljax.rewards.permutation:placed")}


def puzzle(rows, split, **knobs):
  return fn("rljax.data.ordering:jigsaw", rows=rows, columns=2, split=split, **knobs)


def base(rows, **knobs):  # it can sort tiles by light and by colour; of puzzles it knows the form
  knows = tuple(puzzle(rows, "train", seed=k, by=by, template="{pieces}" + sign)
                for k, (by, sign) in enumerate((("light", "^"), ("red", "<")), 2))
  return fn("rljax.train.base:trained", noise=0.0, tasks=fn(
      "rljax.data.planted:mixture", weights=(1, 1, 1), size=6000,
      parts=(puzzle(rows, "train", right=0.0, seed=1), *knows)),
            skill=puzzle(rows, "test", count=300), steps=500, rows=64, at_least=0.0, at_most=0.15,
            **knobs)


def model(rows):
  return fn("rljax.models.vision:vision", images=2 * rows, size=(24 // rows, 12),
            patch=(24 // rows, 12), tower_width=32, tower_layers=1, width=64, layers=2,
            heads=4, activation="relu", scan=False)


def get_config():
  c = recipes.grpo()
  c.name = "Visual Jigsaw"
  c.steps = 200
  c.tokenizer = fn("rljax.data.text:images", marker="#", patches=1, tokenizer=fn(
      "rljax.data.text:char", alphabet="0123456789,#:<>^_rgbypwn"))
  c.tasks, c.evals.test = puzzle(3, "train"), puzzle(3, "test", count=200)
  c.limits.prompt, c.limits.response = 7, 12
  c.prompts, c.rollout.group_size, c.sampling.slots = 16, 16, 256
  c.rewards = dict(REWARDS)
  c.reward_weights = {"exact": 0.0, "placed": 0.0}  # to look at
  c.roles.policy.model, c.roles.policy.init = model(3), base(3)
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=5e-4, warmup=10)
  c.eval.samples, c.eval.every = 1, 100
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


_FOUR = {"tasks": puzzle(2, "train"), "evals.test": puzzle(2, "test", count=200),
         "roles.policy.model": model(2), "roles.policy.init": base(2), "limits.prompt": 5,
         "limits.response": 8}
_QUESTIONS = {  # stage B: 200 labelled questions about where things are
    **_FOUR, "rollout": fn("rljax.rollouts.dataset:demonstrations"),
    "updates.policy.advantage": None, "steps": 150, "prompts": 32,
    "updates.policy.objective": fn("rljax.objectives.supervised:sft"),
    "tasks": fn("rljax.data.ordering:positions"),
    "evals.test": fn("rljax.data.ordering:positions", split="test", count=1000),
    "roles.policy.init": base(2, limits={"prompt": 5, "response": 8}),  # as before puzzles
    "eval.limit": 1000, "limits.prompt": 8, "limits.response": 2,
    **{f"rewards.{k}": fn("rljax.rewards.verify:task_verifier") for k in REWARDS}}
ARMS = {
    "exact": {"rewards.order.partial": 0.0},
    "four": _FOUR,
    "asked": _QUESTIONS,
    "asked_rl": {**_QUESTIONS, "roles.policy.init": fn(
        "rljax.train.base:arm", config="configs/papers/visual-jigsaw.py:quick,four")},
}
QUICK = {"steps": 150, "eval.every": 0}
RUNLOCAL = {"roles.policy.model": fn(
    "rljax.models.vision:vision", images=6, size=(8, 12), patch=(8, 12), tower_width=16, width=32,
    layers=2, heads=2), "limits.response": 12}
_TILES = dict(images=9, size=(112, 112), patch=(14, 14), tower_width=1280, tower_layers=32,
              tower_heads=16)
_PAPER = dict(rows=3, columns=3, size=336, template="{pieces} In which order do these belong? "
              "Think, then put their numbers in \\boxed{}.")
SCALE = {
    "tokenizer": fn("rljax.data.text:images", marker="#", patches=64,
                    tokenizer=fn("rljax.data.text:hf", path="")),
    "tasks": fn("rljax.data.ordering:jigsaw", **_PAPER),
    "evals.test": fn("rljax.data.ordering:jigsaw", split="test", **_PAPER),
    "roles.policy.model": fn("rljax.models.vision:hf", path="", **_TILES),
    "roles.policy.init": None, "rewards.order.form": "boxed", "rewards.placed.form": "boxed",
    "rewards.exact.form": "boxed", "prompts": 256, "limits.prompt": 1024,
    "limits.response": 2048, "updates.policy.accum": 128,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

ACC, EXACT_RATE, PLACED = "eval/test/pass_at_1", "reward/exact", "reward/placed"
CLAIMS = [
    dict(says="2 x 2: 0.8 exact, by either rule (they are one)", kind="mechanism",
         metric=EXACT_RATE, arm="four", at="last:10", relation=">", than=0.8),
    dict(says="3 x 2: partial credit puts 0.2 more of the tiles in place", metric=PLACED,
         at="last:10", relation=">", than="exact", margin=0.2,
         paper="partial credit is needed for 3 x 3 images"),
    dict(says="3 x 2: exact matches alone teach nothing", kind="control", metric=EXACT_RATE,
         arm="exact", at="last:10", relation="within", than=1 / 720, margin=0.05),
    dict(says="after puzzles, 200 questions about positions teach 5 points more", metric=ACC,
         arm="asked_rl", relation=">", than="asked", margin=0.05,
         paper="fine-grained perception up to +6 points"),
]
EXACT = tuple(f"tests/rewards/permutation_test.py::test_{t}" for t in (
    "the_inverse_and_not_the_permutation", "the_released_rule",
    "partial_credit_asks_for_a_permutation", "with_four_pieces_both_rules_are_one"))
UNTESTED = ("Gains on perception benchmarks need a pretrained multimodal model, video and depth.",)
PLOT = (EXACT_RATE, PLACED, "reward/zero_std_groups", "policy/entropy")
