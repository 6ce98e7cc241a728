"""A classic recipe of milliseconds, for tests. https://example.org; rljax-train."""

from rljax import recipes
from rljax.config import fn


def get_config():
  c = recipes.classic()
  c.name = "tiny"
  c.steps, c.chunk = 6, 5
  c.env = fn("rljax.classic.worlds:chain", right=2, left=2, horizon=6)
  c.agent = fn("rljax.classic.actor_critic:policy_gradient", episodes=2, batch=3,
               optimizer=fn("rljax.optim:sgd", lr=0.5))
  c.evals.exact = fn("rljax.classic.measure:exact", gamma=0.9)
  c.evals.play = fn("rljax.classic.measure:episodes", count=4)
  c.eval.every, c.checkpoint.every = 3, 2
  return c


ARMS = {
    "q": {"env": fn("rljax.classic.pixels:catch", size=8, horizon=6),
          "evals.exact": fn("rljax.classic.measure:spread", count=8, steps=2),
          "agent": fn("rljax.classic.dqn:dqn", hidden=8, batch=4, capacity=12, warmup=6,
                      alpha=0.5, atoms=5, dueling=True, n_step=2,
                      augment=fn("rljax.classic.dqn:shift"),
                      encoder=fn("rljax.classic.nets:convolution", channels=(2, 3)))},
    "pool": {"seeds": 2},
}
