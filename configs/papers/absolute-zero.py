"""Absolute Zero: one policy sets itself problems that it can almost solve, and solves them.

https://arxiv.org/abs/2505.03335 (github.com/LeapLabTHU/Absolute-Zero-Reasoner). Here: programs of
one to three steps over lists of digits. "Zero data" means: the base has seen well-formed proposals
of any program, and solutions of one-step programs only. Differs from the paper: 3 earlier examples
instead of 6, 6 inputs of an induction instead of 10 and no message, and the buffers begin with the
identity alone, without rounds of seeding; what a step proposes is solved in the next.

  rljax-reproduce absolute-zero
  rljax-train --config configs/papers/absolute-zero.py:solver_only --workdir runs/azr-solver
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "Absolute Zero: self-play with zero data", "category": "self-play",
         "model": "Qwen/Qwen2.5-7B"}


def problems(size=400, **knobs):
  return fn("rljax.data.minilist:problems", split="test", size=size, **knobs)


def base():
  """Syntax of proposals, and problems of one step with their solutions."""
  read = fn("rljax.data.planted:mixture", weights=(1, 2), size=200000, parts=(
      fn("rljax.data.minilist:proposals"),
      fn("rljax.data.minilist:problems", ops=(1,), size=100000)))
  return fn("rljax.train.base:trained", tasks=read, skill=problems(ops=(1,)), noise=0.0, steps=1500,
            rows=96, pack=(28, 96), at_least=0.5, at_most=1.0)


def get_config():
  c = recipes.grpo()
  c.name = "Absolute Zero"
  c.steps = 400
  c.tokenizer = fn("rljax.data.minilist:words")
  c.tasks, c.curriculum = fn("rljax.data.minilist:requests"), fn("rljax.data.curriculum:ordered")
  c.evals.all = problems()
  c.evals.hard = problems(ops=(2, 3))
  c.evals.other = problems(ops=(2, 3), kinds=("abduction", "induction"))
  c.prompts, c.sampling.slots = 192, 256  # 32 to propose and 32 to solve, of three kinds
  c.limits.prompt, c.limits.response = 56, 32
  c.sampling.prompt_buckets = (16, 56)
  c.rollout = fn("rljax.rollouts.propose_solve:propose_solve", group_size=8,
                 validate=fn("rljax.data.minilist:validate"))
  c.rewards = {"role": fn(
      "rljax.rewards.shaping:three_levels",
      reward=fn("rljax.rewards.propose:outcome", solved=fn("rljax.rewards.verify:task_verifier")),
      formatted=fn("rljax.rewards.propose:formatted", form=fn("rljax.data.minilist:formatted")))}
  c.memories.buffers = fn("experiments/absolute-zero.py:buffers")
  c.select = fn("rljax.rewards.propose:without_estimates")
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=96, layers=3, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = base()
  c.updates.policy = recipes.update(
      advantage=fn("rljax.advantages:chain", steps=(
          fn("rljax.advantages:returns"),
          fn("rljax.advantages:whiten", by=("type_B", "role_B")))),
      objective=fn("rljax.objectives.pg:reinforce_pp"),
      optimizer=fn("rljax.optim:adamw", lr=3e-4, warmup=5))
  c.updates.policy.rows = c.prompts
  c.updates.policy.pack, c.updates.policy.pack_length = 80, 96
  c.eval.greedy, c.eval.by, c.eval.limit = True, "kind", 0
  c.checkpoint.every, c.episodes_max_bytes = 75, 40_000_000
  return c


ARMS = {
    "solver_only": {"rollout.proposer": "ref", "updates.policy.speaker": "policy",
                    "roles.ref": recipes.role(init="policy", train=False)},
    "deduction": {"tasks.kinds": ("deduction",), "memories.buffers.kinds": ("deduction",)},
    "no_examples": {"memories.buffers.examples": 0},  # no claim reads it
    "any_valid": {"rewards.role.reward.form": "valid"},
}
QUICK = {"steps": 100, "prompts": 96, "updates.policy.rows": 96, "updates.policy.pack": 40}
RUNLOCAL = {"prompts": 12, "updates.policy.rows": 12}
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""), "steps": 500, "prompts": 384,
    "updates.policy.rows": 384, "memories.buffers.examples": 6, "memories.buffers.inputs": 10,
    "rollout.validate.pairs": 10, "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""), "limits.prompt": 6144,
    "sampling.prompt_buckets": (512, 6144), "limits.response": 8096, "updates.policy.accum": 128,
    "updates.policy.pack": 0, "updates.policy.pack_length": 0,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6, max_norm=1.0),
}

ALL, HARD, LEARNABLE = "eval/all/pass_at_1", "eval/hard/pass_at_1", "buffers/learnable"
CLAIMS = [
    dict(says="problems of 2 and 3 steps, never shown: 10 points above the start", metric=HARD,
         at="gain", relation=">", than=0.0, margin=0.1, paper="39.8 to 46.8 (7B)"),
    dict(says="no worse than with a proposer that does not learn", metric=ALL, relation=">",
         than="solver_only", margin=-1e-6, paper="46.8 against 45.4"),
    dict(says="better than when any valid problem is paid", metric=ALL, relation=">",
         than="any_valid"),
    dict(says="abduction and induction: better than after deduction alone",
         metric="eval/other/pass_at_1", relation=">", than="deduction",
         paper="46.8 against 43.3 over all"),
    dict(says="more proposals are neither trivial nor hopeless than when any valid one is paid",
         metric=LEARNABLE, at="mean", relation=">", than="any_valid"),
    dict(says="nearly all proposals are valid in the end", kind="mechanism",
         metric="buffers/valid", at="last:10", relation=">", than=0.8),
]
EXACT = ("tests/rewards/propose_test.py::test_what_a_problem_is_worth",
         "tests/reproduce/azr_test.py::test_whitening_is_apart_for_kinds_and_roles",
         "tests/data/minilist_test.py::test_abduction_executes")
UNTESTED = ("Transfer from programs to mathematics needs a pretrained model.",)
PLOT = (ALL, HARD, "eval/other/pass_at_1", LEARNABLE, "buffers/rate", "buffers/entropy")
