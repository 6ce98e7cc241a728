"""TicTacToe against itself, with SPIRAL's role-conditioned baselines.

The base knows the rules alone: it has seen uniform play. Then one policy plays both seats; every
seat of every game is an episode, and a moving average per seat is its baseline, for the first mover
wins more often. Evaluated by its wins over a uniform player, who beats another one in 43.7 % of the
games (the mean of 58.5 % and 28.8 %).  https://arxiv.org/abs/2506.24119

  rljax-train --config configs/selfplay_tictactoe.py --workdir runs/tictactoe
"""

from rljax import recipes
from rljax.config import fn

RANDOM = fn("rljax.envs.games:uniform")


def game():
  return fn("rljax.envs.games:play", name="tictactoe")


def rollout(**kwargs):
  return fn("rljax.rollouts.versus:versus", env=game(), turn_tokens=1, **kwargs)


def get_config():
  c = recipes.grpo()
  c.name = "TicTacToe by self-play"
  c.steps = 200
  c.tokenizer = fn("rljax.data.text:char", alphabet="012345678XO.:")
  c.tasks = fn("rljax.envs.games:tasks", name="tictactoe", size=1024)
  c.evals.uniform = fn("rljax.envs.games:tasks", name="tictactoe-eval", size=256)
  c.prompts = 32
  c.limits.prompt, c.limits.response, c.limits.observation = 11, 5, 44
  c.sampling.prompt_buckets = (11, 35, 59)
  c.sampling.slots = 64
  c.rollout = rollout(group_size=2)
  c.rewards = {"outcome": fn("rljax.rewards.outcome:outcome")}
  c.memories.baselines = fn("rljax.data.memory:baselines", by=("game", "seat"))
  c.roles.policy.model = fn("rljax.models.policy:decoder", width=96, layers=3, heads=4,
                            activation="relu", scan=False)
  shown = fn("rljax.rollouts.versus:demonstrations", env=game(), player=RANDOM)
  c.roles.policy.init = fn("rljax.train.base:trained", rollout=shown, steps=600, problems=128,
                           at_least=0.3, at_most=0.5)
  c.updates.policy.rows = 128  # 32 tasks, 2 games of each, 2 seats
  c.updates.policy.advantage = fn("rljax.advantages:baseline")
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=3e-4, warmup=10)
  c.updates.policy.objective.entropy_coef = 0.01
  c.eval.rollout = rollout(seats=("policy", RANDOM))
  c.eval.samples = 2  # one game from each seat
  c.eval.verifier = fn("rljax.rewards.outcome:outcome", success=1.0)
  c.eval.every = 50
  return c


RUNLOCAL = {"updates.policy.rows": 16}

ARMS = {
    "shared": {"memories.baselines.by": ("game",)},
    "fixed_opponent": {"rollout.seats": ("policy", RANDOM), "updates.policy.rows": 64},
}
