"""One small interface for every environment: pure functions of a state, an action and a key.

Letters: S states, A actions, K successors of a state and an action, N episodes, T their steps.
Environments are leaves: `fn("rljax.classic.worlds:line_key", cells=10)` builds an `Env`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Mdp:
  """A finite Markov decision process, exact, for planning (`rljax.classic.plan`).

  Attributes:
    transition_SAS: float64, probabilities of the next state; a terminal state stays where it is.
    reward_SAS: float64, paid with each transition.
    start_S: float64, probabilities of the first state.
    terminal_S: bool, episodes end on entering these; their rewards are 0.
  """

  transition_SAS: np.ndarray
  reward_SAS: np.ndarray
  start_S: np.ndarray
  terminal_S: np.ndarray

  @property
  def reward_SA(self) -> np.ndarray:
    """The mean reward of an action."""
    return (self.transition_SAS * self.reward_SAS).sum(axis=-1)


@dataclasses.dataclass(frozen=True, eq=False)
class Env:
  """An environment.

  Attributes:
    reset: key -> state, any pytree.
    step: (state, action, key) -> (state, observation, reward, done). A time limit ends an episode
      like anything else.
    observe: state -> observation.
    n_actions: actions are int32 in [0, n_actions); [seats] of them where several act at once, and
      then observations and rewards have a leading axis of seats too.
    horizon: longest episode in steps.
    n_states: observations are int32 ids below it; 0 = they are arrays of `shape`.
    shape: of one seat's observation, () for ids.
    seats: how many act at once.
    mdp: the exact process of a tabular world, else None.
    facts: state -> float vector of what is true behind the observation, for probes; or None.
    restart: a `step` that begins the next episode by itself when one is over, for environments
      that a key cannot restart at will; None = `auto_reset` does it.
  """

  reset: Callable
  step: Callable
  observe: Callable
  n_actions: int
  horizon: int
  n_states: int = 0
  shape: tuple[int, ...] = ()
  seats: int = 1
  mdp: Mdp | None = None
  facts: Callable | None = None
  restart: Callable | None = None


class Cell(NamedTuple):
  """State of a tabular world: id and steps since the start, int32."""

  id: Array
  t: Array


def tabular(mdp: Mdp, *, horizon: int) -> Env:
  """The environment of an exact process; observations are the ids of states."""
  P_SAS = np.asarray(mdp.transition_SAS)
  K = int((P_SAS > 0).sum(-1).max())
  next_SAK = np.argsort(-P_SAS, axis=-1, kind="stable")[..., :K]
  below_SAK = np.cumsum(np.take_along_axis(P_SAS, next_SAK, -1), -1).astype(np.float32)
  reward_SAK = np.take_along_axis(mdp.reward_SAS, next_SAK, -1).astype(np.float32)
  next_SAK = next_SAK.astype(np.int32)
  start_S = np.cumsum(mdp.start_S).astype(np.float32)
  S = len(start_S)

  def reset(key):
    first = jnp.sum(jax.random.uniform(key) >= start_S)
    return Cell(jnp.minimum(first, S - 1).astype(jnp.int32), jnp.zeros((), jnp.int32))

  def step(state, action, key):
    below_K = jnp.asarray(below_SAK)[state.id, action]
    k = jnp.minimum(jnp.sum(jax.random.uniform(key) >= below_K), K - 1)
    new = Cell(jnp.asarray(next_SAK)[state.id, action, k], state.t + 1)
    done = jnp.asarray(mdp.terminal_S)[new.id] | (new.t >= horizon)
    return new, new.id, jnp.asarray(reward_SAK)[state.id, action, k], done

  return Env(reset, step, lambda state: state.id, P_SAS.shape[1], horizon, n_states=S, mdp=mdp)


def auto_reset(env: Env) -> Callable:
  """`step` that begins the next episode when one is over.

  Its state and observation are those of the new episode, its reward and `done` those of the old.
  """
  def step(state, action, key):
    key, again = jax.random.split(key)
    state, obs, reward, done = env.step(state, action, key)
    fresh = env.reset(again)
    state = jax.tree.map(lambda new, old: jnp.where(done, new, old), fresh, state)
    return state, jnp.where(done, env.observe(fresh), obs), reward, done

  return env.restart or step


class Episodes(NamedTuple):
  """Whole episodes [N, T, ...], with several seats [N, T, seats, ...].

  `mask_NT` is float, 1 up to and with an episode's last step; rewards are 0 after it.
  """

  obs: Array
  action: Array
  logp: Array
  reward: Array
  next_obs: Array
  mask_NT: Array


def play(env: Env, act: Callable, key: Array, count: int) -> Episodes:
  """Plays `count` episodes from their starts.

  Args:
    act: (observation, key) -> (action, log-probability), of one episode (all its seats).
    key: all randomness.
    count: N.
  """
  def one(key):
    first, key = jax.random.split(key)
    state = env.reset(first)

    def step(carry, key):
      state, obs, live = carry
      for_act, for_step = jax.random.split(key)
      action, logp = act(obs, for_act)
      new, next_obs, reward, done = env.step(state, action, for_step)
      out = Episodes(obs, action, logp, reward * live, next_obs, live)
      return (new, next_obs, live * (1.0 - done)), out

    start = (state, env.observe(state), jnp.ones(()))
    return jax.lax.scan(step, start, jax.random.split(key, env.horizon))[1]

  return jax.vmap(one)(jax.random.split(key, count))


def random_actions(env: Env) -> Callable:
  """`act` of `play` that takes every action with the same probability."""
  shape = () if env.seats == 1 else (env.seats,)

  def act(obs, key):
    del obs
    return (jax.random.randint(key, shape, 0, env.n_actions),
            jnp.full(shape, -np.log(env.n_actions), jnp.float32))
  return act
