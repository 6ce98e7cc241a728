"""SPR: a Q-learner that also predicts its own latents, K steps ahead.

https://arxiv.org/abs/2007.05929 (github.com/mila-iqia/spr). Here: 4,000 steps of catching one
moving thing and avoiding another, in 16 x 16 noisy pixels; double DQN, two updates per step.

  rljax-reproduce spr
  rljax-train --config configs/papers/spr.py:dqn --workdir runs/dqn
"""

from rljax import recipes
from rljax.config import fn

PAPER = {"title": "SPR: self-predictive representations", "category": "classic-RL",
         "model": "convolution"}
SEEDS = 5
_SPR = "experiments/spr.py:self_prediction"


def get_config():
  c = recipes.classic()
  c.name = "SPR"
  c.steps, c.chunk = 40, 100  # 4,000 environment steps
  c.env = fn("rljax.classic.pixels:catch")
  c.agent = fn(
      "rljax.classic.dqn:dqn", hidden=128, n_step=5, gamma=0.9, updates=2, batch=32,
      encoder=fn("rljax.classic.nets:convolution", channels=(16, 32), renormalise=True),
      capacity=5000, warmup=400, eps_steps=1000, target_step=0.05,
      optimizer=fn("rljax.optim:adamw", lr=5e-4, max_norm=10.0),
      augment=fn("rljax.classic.dqn:shift"), auxiliary=fn(_SPR))
  c.evals.play = fn("rljax.classic.measure:episodes", count=1000)
  c.evals.probe = fn("rljax.classic.measure:probe")
  c.evals.spread = fn("rljax.classic.measure:spread")
  c.eval.every, c.checkpoint.every = 10, 20
  return c


ARMS = {
    "dqn": {"agent.augment": None, "agent.auxiliary": None},
    "dqn_aug": {"agent.auxiliary": None},
    "no_aug": {"agent.augment": None, "agent.auxiliary.target_step": 0.01},
    "k0": {"agent.auxiliary.steps": 0},
    "collapse": {"agent.auxiliary.stop_gradient": False, "agent.auxiliary.predictor": False},
}
QUICK = {"eval.every": 0}
RUNLOCAL = {"agent.warmup": 6, "agent.capacity": 50, "evals.play.count": 2,
            "evals.probe.count": 20, "evals.probe.held_out": 10, "evals.spread.count": 10}
SCALE = {
    "env": fn("rljax.classic.pixels:catch", size=84, frames=4, horizon=1000),
    "agent": fn(
        "rljax.classic.dqn:dqn", hidden=256, n_step=10, gamma=0.99, updates=2, batch=32,
        encoder=fn("rljax.classic.nets:convolution", channels=(32, 64, 64), sizes=(8, 4, 3),
                   strides=(4, 2, 1), renormalise=True),
        dueling=True, atoms=51, v_max=10.0, capacity=100_000, warmup=2000, eps_steps=2000,
        alpha=0.5, beta=0.4, target_step=1.0,
        optimizer=fn("rljax.optim:adamw", lr=1e-4, eps=1.5e-4, max_norm=10.0),
        augment=fn("rljax.classic.dqn:shift", pixels=4), auxiliary=fn(_SPR, channels=64)),
    "chunk": 1000, "steps": 100,
}

RETURN, ERROR, STD = "eval/play/return", "eval/probe/error", "eval/spread/std"
CLAIMS = [
    # At most 1: full - dqn >= 0.1 (1 - dqn) is full - 0.9 dqn >= 0.1.
    dict(says="SPR ends a tenth of the missing return above DQN", metric=RETURN, relation=">",
         than="dqn", times=0.9, margin=0.1, average="iqm",
         paper="median 0.415 of human, 55 % above the best before it"),
    dict(says="SPR ends above DQN with the same augmentation", metric=RETURN, relation=">",
         than="dqn_aug", average="iqm"),
    dict(says="objects are easier to read from SPR's latent than from DQN's", metric=ERROR,
         relation="<", than="dqn"),
    dict(says="without stop-gradient and predictor the projections collapse", kind="control",
         metric=STD, arm="collapse", relation="<", than=0.05),
    dict(says="SPR's stay spread: above a fifth of their start", kind="mechanism", metric=STD,
         relation=">", than="full", than_at="start", times=0.2),
    dict(says="DQN learns: it ends above random play", kind="mechanism", metric=RETURN, arm="dqn",
         at="gain", relation=">", than=0.0),
]
EXACT = ("tests/classic/spr_test.py::test_the_loss_is_the_papers_masked_mean",)
UNTESTED = ("Atari (ale-py, its ROM licence to be checked) and human-normalised scores.",)
PLOT = (RETURN, ERROR, STD)
