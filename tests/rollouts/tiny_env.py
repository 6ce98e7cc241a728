"""A game that accepts any word, so that random policies take all its turns."""

from rljax.envs import base


class Patient(base.Env):
  """Four turns; whoever said more X wins; a draw costs both a little, unequally."""

  players, name = 2, "patient"

  def reset(self, task, seed):
    return "", "0:"

  def seat(self, state):
    return len(state) % 2

  def step(self, state, text):
    state += (text or ".")[:1]
    lead = state[::2].count("X") - state[1::2].count("X")
    reward = {"reward": (lead - 0.25, -lead - 0.5)} if len(state) == 4 else {}
    return state, f"{len(state)}:", len(state) == 4, reward


def patient():
  return Patient()
