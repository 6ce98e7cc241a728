"""Games of two seats that act at once: matrix games, Markov games, a signalling game."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax.classic import env as env_lib
from rljax.types import Array


def matrix(*, payoffs: Sequence = ((3, 0), (5, 1)), other: Sequence | None = None,
           rounds: int = 1) -> env_lib.Env:
  """Both choose, each is paid by a matrix: `payoffs`[own][other's] for either seat.

  In a repeated game a seat sees the last joint choice, 1 + own * actions + other's (0 at first).

  Args:
    payoffs: of the first seat, [A][A] by its own and the other's choice.
    other: of the second seat, likewise by its own choice first; None = a symmetric game.
    rounds: of one episode.

  Raises:
    ConfigError: matrices that are not square and of one size.
  """
  pay = np.array([payoffs, payoffs if other is None else other], np.float32)
  A = pay.shape[1]
  if pay.shape != (2, A, A):
    raise config_lib.ConfigError("a matrix game needs square payoffs of one size for both seats")

  def reset(key):
    del key
    return env_lib.Cell(jnp.zeros((2,), jnp.int32), jnp.zeros((), jnp.int32))

  def step(state, action, key):
    del key
    new = env_lib.Cell(1 + A * action + action[::-1], state.t + 1)
    reward = jnp.asarray(pay)[jnp.arange(2), action, action[::-1]]
    return new, new.id, reward, new.t >= rounds

  return env_lib.Env(reset, step, lambda state: state.id, A, rounds, n_states=1 + A * A, seats=2)


class Arrays(NamedTuple):
  """A Markov game: transitions float [S, A, A, S], rewards of both seats float [S, A, A, 2]."""

  transition: np.ndarray
  reward: np.ndarray


def random_arrays(states: int, actions: int, *, zero_sum: bool, branching: int,
                  seed: int) -> Arrays:
  """A game drawn from a seed: `branching` successors per joint action, rewards in [-1, 1]."""
  rs = np.random.default_rng(seed)
  P = np.zeros((states, actions, actions, states))
  for at in np.ndindex(P.shape[:3]):
    P[at][rs.choice(states, branching, replace=False)] = rs.dirichlet(np.ones(branching))
  R = rs.uniform(-1, 1, (*P.shape[:3], 2))
  if zero_sum:
    R[..., 1] = -R[..., 0]
  return Arrays(P, R)


def markov(*, states: int = 5, actions: int = 2, zero_sum: bool = True, branching: int = 2,
           seed: int = 0, horizon: int = 10) -> env_lib.Env:
  """A random Markov game, both seats seeing the state; the state moves by the joint action.

  Args:
    states, actions: of the game, and of each seat.
    zero_sum: what one seat wins the other loses.
    branching: successors of a joint action. seed: of the game itself. horizon: steps.

  Raises:
    ConfigError: more successors than states.
  """
  if branching > states:
    raise config_lib.ConfigError(f"branching={branching}: there are {states} states")
  game = random_arrays(states, actions, zero_sum=zero_sum, branching=branching, seed=seed)
  P, R = (np.asarray(x, np.float32) for x in game)
  P = np.cumsum(P, axis=-1)

  def reset(key):
    return env_lib.Cell(jax.random.randint(key, (), 0, states), jnp.zeros((), jnp.int32))

  def seen(state):
    return jnp.broadcast_to(state.id, (2,))

  def step(state, action, key):
    joint = (state.id, action[0], action[1])
    following = jnp.sum(jax.random.uniform(key) >= jnp.asarray(P)[joint])
    new = env_lib.Cell(jnp.minimum(following, states - 1).astype(jnp.int32), state.t + 1)
    return new, seen(new), jnp.asarray(R)[joint], new.t >= horizon

  return env_lib.Env(reset, step, seen, actions, horizon, n_states=states, seats=2)


class Signal(NamedTuple):
  """What the sender saw, what it said, and whether it has spoken (0 or 1), int32."""

  world: Array
  message: Array
  t: Array


def signalling(*, worlds: int = 3, messages: int = 3) -> env_lib.Env:
  """Lewis's game: the first seat sees a world and sends a message, the second guesses the world.

  Both are paid 1 for a right guess. Two steps: in each, the action of the seat whose turn it is not
  counts for nothing and what it sees is blank. Observations: a world, or worlds + a message, or
  worlds + messages for blank. Actions beyond the number of messages wrap around.

  Args:
    worlds: equally likely. messages: that the sender can choose from.
  """
  blank = worlds + messages

  def reset(key):
    zero = jnp.zeros((), jnp.int32)
    return Signal(jax.random.randint(key, (), 0, worlds), zero, zero)

  def seen(state):
    first = jnp.stack([state.world, jnp.full((), blank)])
    second = jnp.stack([jnp.full((), blank), worlds + state.message])
    return jnp.where(state.t == 0, first, second).astype(jnp.int32)

  def step(state, action, key):
    del key
    spoken = state.t == 0
    new = Signal(state.world, jnp.where(spoken, action[0] % messages, state.message).astype(
        jnp.int32), state.t + 1)
    right = ~spoken & (action[1] == state.world)
    return new, seen(new), jnp.repeat(right.astype(jnp.float32), 2), new.t >= 2

  return env_lib.Env(reset, step, seen, max(worlds, messages), 2, n_states=blank + 1, seats=2)
