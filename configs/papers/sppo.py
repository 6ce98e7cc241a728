"""SPPO: the log-ratio of each response is regressed on its win rate against the policy itself.

https://arxiv.org/abs/2405.00675 (github.com/uclaml/SPPO). Here: six digits to be sorted in three
iterations, and five responses whose preferences form a cycle (CYC), where the mixture of all
iterates must be hard to exploit.

  rljax-reproduce sppo
  rljax-train --config configs/papers/sppo.py:dpo --workdir runs/sppo-dpo
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SPPO: self-play preference optimization", "category": "self-play",
         "model": "mistralai/Mistral-7B-Instruct-v0.2"}
SEEDS = 4


def digits(split, size):
  return fn("rljax.data.tasks:sorting", length=6, separator="", template="{problem}>", split=split,
            size=size)


def chosen(by="best_worst", **rates):
  return fn("rljax.data.select:chain", steps=(fn("rljax.data.pairs:win_rates", **rates),
                                              fn(f"rljax.data.pairs:{by}", score="win_rate")))


def get_config():
  c = recipes.grpo()
  c.name, c.steps = "SPPO", 150
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789>?")
  c.tasks, c.evals.test = digits("train", 20000), digits("test", 300)
  c.limits.prompt, c.limits.response = 7, 8
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", noise=0.8, steps=700, rows=64,
                           tasks=c.tasks, skill=c.evals.test, at_least=0.3, at_most=0.5)
  c.roles.ref = recipes.role(init="policy", train=False, follow="policy", decay=0.0, every=50)
  c.rollout = fn("rljax.rollouts.single_turn:single_turn", group_size=5, role="ref")
  c.rewards = {"q": fn("rljax.rewards.verify:verified_by", verifier="rljax.rewards.verify:placed")}
  c.select = chosen(score="q", scale=10.0)  # win rates in the group, and who trains
  c.updates.policy = recipes.update(
      objective=fn("rljax.objectives.preference:sppo", beta=0.2),
      optimizer=fn("rljax.optim:adamw", lr=5e-4, warmup=5))
  c.prompts, c.updates.policy.rows, c.sampling.slots = 20, 40, 128
  c.eval.verifier, c.eval.score = c.rewards.q, "q"
  c.eval.measure = fn("rljax.evals.scores:measure", score="q")
  c.eval.samples, c.eval.every = 4, 50
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


_CHOICES = fn("rljax.data.cyclic:choices")
_CYC = {
    "tasks": _CHOICES, "evals.test": _CHOICES, "tokenizer.alphabet": "01234?",
    "roles.policy.model": fn("rljax.models.policy:decoder", width=32, layers=1, heads=2,
                             activation="relu", scan=False),
    "roles.policy.init": fn("rljax.train.base:trained", noise=0.0, steps=150, rows=64,
                            tasks=_CHOICES, skill=_CHOICES, at_least=0.1, at_most=0.3),
    "select": chosen(prefer=fn("rljax.data.cyclic:preferences")),
    "memories.mixture": fn("rljax.data.memory:mixture", role="ref",
                           measure=fn("rljax.data.cyclic:exploitability")),
    "steps": 480, "roles.ref.every": 8, "prompts": 40, "updates.policy.rows": 80, "eval.every": 0,
    "sampling.slots": 200, "updates.policy.optimizer.lr": 5e-3,
}
_DPO = fn("rljax.objectives.preference:dpo", beta=0.1)
_SLOW = {"updates.policy.optimizer.lr": 1e-4}  # 5e-4 breaks DPO
ARMS = {
    "dpo": {"updates.policy.objective": _DPO, **_SLOW},
    "ipo": {"updates.policy.objective": fn("rljax.objectives.preference:ipo", beta=0.1), **_SLOW},
    "sft": {"updates.policy.objective": fn("rljax.objectives.supervised:sft"),
            "select": chosen("best", score="q", scale=10.0)},
    "cyc": {**_CYC, "updates.policy.objective.beta": 1.0},
    "cyc_dpo": {**_CYC, "updates.policy.objective": _DPO},
}
QUICK = {"steps": 60, "roles.ref.every": 20, "eval.every": 20, "eval.samples": 2}
RUNLOCAL = {"updates.policy.rows": 8}
_PROMPTS = fn("rljax.data.comparisons:comparisons", path="")
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""), "tasks": _PROMPTS, "evals.test": _PROMPTS,
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "roles.reward_model": recipes.role(init=fn("rljax.models.hf:params", path=""), train=False,
                                       head=fn("rljax.models.heads:head")),
    **{key: fn("rljax.rewards.model:score") for key in ("rewards.q", "eval.verifier")},
    "reward_deadline": 3600.0, "prompts": 64, "select": chosen(score="q"),
    "steps": 936, "roles.ref.every": 312, "eval.every": 312,
    "updates.policy.rows": 128, "updates.policy.accum": 8, "updates.policy.objective.beta": 0.001,
    "limits.prompt": 512, "limits.response": 1024, "limits.on_long_prompt": "skip",
    "sampling.temperature": 0.7, "sampling.top_p": 0.9, "updates.policy.optimizer": fn(
        "rljax.optim:adamw", lr=5e-7, b1=0.0, warmup=94, decay="linear", steps=936),
}

Q, UP, DOWN = "eval/test/score", "pref/log_ratio_chosen", "pref/log_ratio_rejected"
MIX = "mixture/exploitability"
CLAIMS = [
    dict(says="SPPO raises the log-probability of chosen responses", metric=UP, at="last:5",
         relation=">", than=0.0, paper="chosen up, rejected down"),
    dict(says="and lowers the rejected", metric=DOWN, at="last:5", relation="<", than=0.0),
    dict(says="DPO raises them less", metric=UP, at="last:5", relation=">", than="dpo",
         paper="DPO and IPO fix the difference only"),
    dict(says="quality: SPPO ends no lower than iterative DPO", metric=Q, relation=">", than="dpo",
         margin=-0.02, paper="above iterative DPO and IPO"),
    dict(says="quality never falls from one iteration to the next", metric=Q, at="drop",
         relation="within", than=0.0, margin=0.01, paper="17.1, 24.8, 26.9, 28.5 %"),
    dict(says="a cycle: SPPO's mixture is hard to exploit", metric=MIX, arm="cyc", relation="<",
         than=0.2, paper="duality gap O(1/sqrt(T))"),
    dict(says="iterative DPO's is not", kind="control", metric=MIX, arm="cyc_dpo", relation=">",
         than=0.25),
    dict(says="and SPPO's last iterate orbits", kind="mechanism", arm="cyc", at="peak",
         metric="mixture/last_exploitability", relation=">", than=0.25),
    *(dict(says=f"{arm} learns", kind="mechanism", metric=Q, arm=arm, at="gain", relation=">",
           than=0.0) for arm in ("full", "dpo", "ipo", "sft")),
]
EXACT = tuple(f"tests/reproduce/sppo_test.py::test_{test}" for test in (
    "exploitability_of_known_policies", "multiplicative_weights_reach_the_minimax_mixture",
    "the_regression_reaches_it_and_hard_labels_do_not"))
UNTESTED, PLOT = ("AlpacaEval needs 7B models and a judge.",), (Q, UP, DOWN, MIX)
