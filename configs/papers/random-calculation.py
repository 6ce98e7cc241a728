"""RandomCalculation: random rewards help where the problems were memorised, and only there.

https://arxiv.org/abs/2507.10532 (github.com/wumingqi/LLM-Math-Evaluation). Here the contamination
is planted: the base read 100 DIRTY problems with their solutions over and over, in two formats of
which one counts, and never the 100 CLEAN ones.

  rljax-reproduce random-calculation
  rljax-train --config configs/papers/random-calculation.py:random --workdir runs/random
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "RandomCalculation: reasoning or memorization?", "category": "analysis",
         "model": "Qwen/Qwen2.5-Math-7B"}
SEEDS = 3


def chain(split, size, seed):
  return fn("rljax.data.tasks:arithmetic_chain", steps=3, min_steps=2, low=0, high=20, places=2,
            max_value=1000.0, template="?{problem}=", split=split, size=size, seed=seed)


def judged(tasks, verifier="exact"):
  return fn("rljax.data.planted:verified", tasks=tasks, verifier=f"rljax.rewards.verify:{verifier}")


DIRTY, CLEAN = chain("train", 100, 1), chain("test", 100, 2)
READ = fn("rljax.data.planted:documents", tasks=fn(
    "rljax.data.planted:styled", styles=("{demo}", "[{demo}]"), weights=(0.6, 0.4), tasks=fn(
        "rljax.data.planted:mixture", parts=(chain("train", 20000, 3), DIRTY), weights=(1, 1))))


def get_config():
  c = recipes.grpo()
  c.name = "RandomCalculation"
  c.steps = 60
  c.tokenizer = fn("rljax.data.text:char", alphabet="0123456789+-*/()=.?[]")
  c.tasks = judged(DIRTY)
  c.evals.own, c.evals.lenient = judged(DIRTY), judged(DIRTY, "number")
  c.limits.prompt, c.limits.response = 18, 11
  c.prompts, c.rollout.group_size = 32, 8
  c.rewards.correct = fn("experiments/random-calculation.py:plain_dense")
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=64, layers=2, heads=4,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", tasks=READ, skill=judged(DIRTY), noise=0.0,
                           limits={"prompt": 18, "response": 27}, steps=1500, rows=64,
                           at_least=0.2, at_most=0.7)
  c.updates.policy.epochs, c.updates.policy.minibatches = 2, 2
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1e-4, warmup=5)
  c.eval.samples, c.eval.every = 8, 50
  c.checkpoint.every, c.episodes_max_bytes = 50, 20_000_000
  return c


_CLEAN = {"tasks": judged(CLEAN), "evals.own": judged(CLEAN),
          "evals.lenient": judged(CLEAN, "number")}
_RANDOM = {"rewards.correct": fn("rljax.rewards.spurious:random_reward", rate=0.5)}
_INVERTED = {"rewards.correct": fn(
    "rljax.rewards.spurious:inverted", reward=fn("experiments/random-calculation.py:plain_dense"))}
ARMS = {
    "random": _RANDOM,
    "random_noclip": {**_RANDOM, "updates.policy.objective.clip_low": 1e9,
                      "updates.policy.objective.clip_high": 1e9},
    "inverted": _INVERTED,
    "wrong_vote": {"rewards.correct": fn("rljax.rewards.spurious:wrong_vote")},
    "clean": _CLEAN,
    "clean_random": {**_CLEAN, **_RANDOM},
    "clean_inverted": {**_CLEAN, **_INVERTED},
    "probe": {"steps": 0, "eval.greedy": True, "eval.samples": 1, "limits.response": 27,
              "evals.prefix": fn("rljax.data.planted:continuations", tasks=DIRTY, fraction=0.6),
              "evals.clean_prefix": fn("rljax.data.planted:continuations", tasks=CLEAN,
                                       fraction=0.6),
              "evals.clean": judged(CLEAN)},
}
QUICK = {"steps": 40, "eval.every": 0}
_PAPER = dict(steps=5, low=0, high=100, forms=("integer", "fraction", "square", "cube"),
              template="Calculate {problem}; put the final answer in \\boxed{}.")
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""),
    "tasks": fn("rljax.data.tasks:arithmetic_chain", size=700, **_PAPER),
    "evals.own": fn("rljax.data.tasks:arithmetic_chain", size=300, split="test", **_PAPER),
    "rewards.correct": fn("rljax.rewards.verify:dense_number"),
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "prompts": 128, "rollout.group_size": 16, "limits.prompt": 256, "limits.response": 3072,
    "updates.policy.epochs": 1, "updates.policy.minibatches": 4, "updates.policy.accum": 8,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6), "eval.samples": 16,
}

OWN = "eval/own/pass_at_1"
CLAIMS = [
    dict(says="DIRTY was memorised: 60 % of a question is enough to go on exactly", arm="probe",
         kind="mechanism", metric="eval/prefix/pass_at_1", relation=">", than=0.5, paper="54.6 %"),
    dict(says="the CLEAN problems were not", kind="mechanism", arm="probe",
         metric="eval/clean_prefix/pass_at_1", relation="<", than=0.02, paper="near zero"),
    dict(says="the correct reward improves DIRTY", metric=OWN, at="gain", relation=">", than=0.0),
    dict(says="the correct reward improves CLEAN", metric=OWN, arm="clean", at="gain",
         relation=">", than=0.0, paper="steady gains only with correct rewards"),
    dict(says="the correct reward on CLEAN ends above the base's greedy level", metric=OWN,
         arm="clean", relation=">", than="probe", than_metric="eval/clean/pass_at_1",
         paper="beyond the base's best of 16"),
    dict(says="a random reward improves DIRTY by more than 5 points", metric=OWN, arm="random",
         at="gain", relation=">", than=0.0, margin=0.05, paper="large gains on MATH-500"),
    dict(says="a random reward does nothing on CLEAN", kind="control", metric=OWN,
         arm="clean_random", at="gain", relation="within", than=0.0, margin=0.02,
         paper="marginal, unstable"),
    dict(says="without the clip the gain of the random reward is smaller", metric=OWN,
         arm="random_noclip", at="gain", relation="<", than="random"),
    dict(says="without the clip it is about zero", metric=OWN, arm="random_noclip", at="gain",
         relation="within", than=0.0, margin=0.025),
    dict(says="an inverted reward lowers DIRTY", kind="control", metric=OWN, arm="inverted",
         at="gain", relation="<", than=0.0, paper="collapse"),
    dict(says="an inverted reward lowers CLEAN", kind="control", metric=OWN, arm="clean_inverted",
         at="gain", relation="<", than=0.0, paper="collapse"),
]
EXACT = ("tests/reproduce/exact_test.py::test_clipping_pushes_likely_tokens_up",)
UNTESTED = ("The comparison of model families (Qwen, Llama) needs those models.",)
PLOT = (OWN, "eval/lenient/pass_at_1", "reward/mean", "policy/entropy", "pg/clip_fraction")
