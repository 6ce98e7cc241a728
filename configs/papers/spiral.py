"""SPIRAL: one policy plays both seats; a moving average per game and seat is its baseline.

https://arxiv.org/abs/2506.24119 (github.com/spiral-rl/spiral). Here: Kuhn poker of one round, where
NashConv is exact. The base knows the rules alone: it has seen uniform play.

  rljax-reproduce spiral
  rljax-train --config configs/papers/spiral.py:random --workdir runs/spiral-random
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SPIRAL: self-play on zero-sum games", "category": "self-play",
         "model": "Qwen/Qwen3-8B-Base"}
SEEDS = 3

RANDOM = fn("rljax.envs.games:uniform")
GAME = fn("rljax.envs.games:play", name="kuhn")


def versus(**knobs):
  return fn("rljax.rollouts.versus:versus", env=GAME, turn_tokens=1, **knobs)


def get_config():
  c = recipes.grpo()
  c.name = "SPIRAL"
  c.steps = 400
  c.tokenizer = fn("rljax.data.text:char", alphabet="JQKpb:")
  c.tasks = fn("rljax.envs.games:tasks", name="kuhn", size=4096)
  c.evals.uniform = fn("rljax.envs.games:tasks", name="kuhn-eval", size=128)
  c.prompts = 64
  c.limits.prompt, c.limits.response, c.limits.observation = 4, 2, 4
  c.sampling.prompt_buckets, c.sampling.slots = (4, 8), 128
  c.rollout = versus(group_size=2)
  c.rewards = {"outcome": fn("rljax.rewards.outcome:outcome"),
               "foul": fn("rljax.rewards.outcome:outcome", key="foul", success=0)}
  c.reward_weights = {"foul": 0.0}
  c.memories.baselines = fn("rljax.data.memory:baselines", by=("game", "seat"))
  c.memories.kuhn = fn("rljax.evals.equilibrium:averaged", name="kuhn", start=100)
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=32, layers=2, heads=2,
                            activation="relu", scan=False)
  c.roles.policy.init = fn("rljax.train.base:trained", steps=200, rows=64, problems=128,
                           at_least=0.3, at_most=0.7, rollout=fn(
                               "rljax.rollouts.versus:demonstrations", env=GAME, player=RANDOM))
  c.updates.policy.rows = 256  # 64 tasks, 2 games of each, 2 seats
  c.updates.policy.advantage = fn("rljax.advantages:baseline")
  c.updates.policy.objective = fn("rljax.objectives.pg:dr_grpo", constant=2.0, entropy_coef=0.01)
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=1e-3, warmup=10)
  c.eval.rollout = versus(group_size=1, seats=("policy", RANDOM))
  c.eval.verifier = fn("rljax.rewards.outcome:outcome", success=1.0)
  c.eval.samples = 2  # one game from each seat
  c.checkpoint.every, c.episodes_max_bytes = 100, 20_000_000
  return c


ARMS = {
    "shared": {"memories.baselines.by": ("game",)},
    "no_baseline": {"updates.policy.advantage": fn("rljax.advantages:reinforce")},
    "random": {"rollout.seats": ("policy", RANDOM), "updates.policy.rows": 128},
    "frozen": {"rollout.seats": ("policy", "ref"), "rollout.record": ("policy",),
               "roles.ref": recipes.role(init="policy", train=False), "updates.policy.rows": 128},
}
QUICK = {"steps": 300, "memories.kuhn.start": 75}
RUNLOCAL = {"updates.policy.rows": 16}
_WORDS = fn("rljax.rollouts.versus:versus", group_size=2, message=True, env=fn(
    "rljax.envs.external:textarena", name="KuhnPoker-v0"))
SCALE = {
    "tokenizer": fn("rljax.data.text:hf", path=""), "steps": 400,
    "roles.policy.model": fn("rljax.models.hf:model", path=""),
    "roles.policy.init": fn("rljax.models.hf:params", path=""),
    "tasks": fn("rljax.envs.games:tasks", name="KuhnPoker-v0", size=100000),
    "rollout": _WORDS, "eval.rollout": fn(_WORDS.fn, **{**_WORDS, "group_size": 1}),
    "memories.kuhn": None,
    "sampling.prompt_buckets": (1024, 4096, 8192), "limits.prompt": 1024,
    "limits.response": 4096, "limits.observation": 4096, "updates.policy.accum": 64,
    "updates.policy.epochs": 2, "updates.policy.minibatches": 2,
    "updates.policy.objective.constant": 4096.0, "updates.policy.objective.entropy_coef": 0.0,
    "updates.policy.optimizer": fn("rljax.optim:adamw", lr=1e-6),
}

KUHN, CHIPS = "kuhn/nash_conv", "kuhn/chips"
CLAIMS = [
    dict(says="self-play: the average policy's NashConv falls below half of the start's",
         metric=KUHN, relation="<", than="full", than_at="start", times=0.5,
         paper="self-play improves against its earlier self"),
    dict(says="and below 0.25", metric=KUHN, relation="<", than=0.25),
    dict(says="against a random player it stays exploitable", kind="control", metric=KUHN,
         arm="random", relation=">", than=0.45, paper="random opponents collapse"),
    dict(says="clearly worse than self-play", metric=KUHN, arm="random", relation=">", than="full",
         margin=0.1),
    dict(says="though it wins more of that player", metric=CHIPS, arm="random", relation=">",
         than="full", paper="training against a fixed opponent overfits"),
    dict(says="nearly all moves are legal", kind="mechanism", metric="kuhn/illegal", relation="<",
         than=0.02),
]
EXACT = ("tests/evals/equilibrium_test.py::test_baselines_of_uniform_tictactoe",
         "tests/envs/games_test.py::test_tictactoe_under_uniform_play",
         "tests/envs/games_test.py::test_kuhn_known_values")
UNTESTED = ("Transfer of play to mathematics and its collapse without role baselines need a "
            "pretrained model; between baselines Kuhn poker shows no difference.",)
PLOT = (KUHN, "kuhn/last_nash_conv", CHIPS, "reward/outcome")
