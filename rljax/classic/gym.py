"""Environments of the package `gymnasium` behind the same interface, through host callbacks.

They live in this process, apart from the agent's state: a checkpoint does not hold them. A run that
is continued begins new episodes there, and so is not, bit for bit, the run that was never killed.
Speed is the host's.
"""

import collections

import jax
import jax.numpy as jnp
import numpy as np

from rljax import config as config_lib
from rljax.classic import env as env_lib


def gymnasium(*, id: str, horizon: int, slots: int = 256, **kwargs) -> env_lib.Env:
  """`gymnasium.make(id, **kwargs)`, with discrete actions and array or discrete observations.

  Args:
    id: such as "CartPole-v1".
    horizon: steps after which an episode ends here, whatever the environment says.
    slots: instances kept; beyond that the oldest is closed.
    kwargs: for the environment.

  Raises:
    ConfigError: the package is missing, there is no such environment, or its spaces are of another
      kind.
  """
  try:
    import gymnasium as gym
  except ModuleNotFoundError:
    raise config_lib.ConfigError(
        "this environment needs the package gymnasium: pip install 'rljax[envs]'") from None
  try:
    one = gym.make(id, **kwargs)
  except gym.error.Error as e:
    raise config_lib.ConfigError(f"gymnasium cannot make {id!r}: {e}") from None
  discrete = isinstance(one.observation_space, gym.spaces.Discrete)
  if not isinstance(one.action_space, gym.spaces.Discrete) or not (
      discrete or isinstance(one.observation_space, gym.spaces.Box)):
    raise config_lib.ConfigError(f"{id}: discrete actions and array or discrete observations only")
  shape = () if discrete else one.observation_space.shape
  dtype = np.int32 if discrete else np.dtype(one.observation_space.dtype)
  dtype = np.dtype(np.float32) if dtype == np.float64 else dtype
  host = _Host(lambda: gym.make(id, **kwargs), shape, dtype, slots)
  obs_like = jax.ShapeDtypeStruct(shape, dtype)
  int_like, float_like = (jax.ShapeDtypeStruct((), t) for t in (np.int32, np.float32))
  bool_like = jax.ShapeDtypeStruct((), np.bool_)

  def reset(key):
    seed = jax.random.bits(key, (), jnp.uint32) >> 1
    slot, obs = jax.experimental.io_callback(host.reset, (int_like, obs_like), seed)
    return {"slot": slot, "obs": obs, "t": jnp.zeros((), jnp.int32)}

  def advance(restart):
    def step(state, action, key):
      seed = jax.random.bits(key, (), jnp.uint32) >> 1
      last = state["t"] + 1 >= horizon
      obs, reward, done = jax.experimental.io_callback(
          host.step, (obs_like, float_like, bool_like), state["slot"], action, seed, last, restart)
      t = jnp.where(done & restart, 0, state["t"] + 1)
      return {"slot": state["slot"], "obs": obs, "t": t}, obs, reward, done
    return step

  return env_lib.Env(
      reset, advance(False), lambda state: state["obs"], int(one.action_space.n), horizon,
      n_states=int(one.observation_space.n) if discrete else 0, shape=shape,
      restart=advance(True))


class _Host:
  """The instances, by slot. A step in a slot that is not there (a continued run, or one that was
  closed) begins an episode, and says that the one before is done."""

  def __init__(self, make, shape, dtype, slots):
    self._make, self._shape, self._dtype, self._slots = make, shape, dtype, slots
    self._envs = collections.OrderedDict()
    self._next = 0

  def reset(self, seed):
    self._next += 1
    return np.int32(self._next), self._begin(self._next, seed)

  def step(self, slot, action, seed, last, restart):
    slot = int(slot)
    if slot not in self._envs:
      self._next = max(self._next, slot)
      return self._begin(slot, seed), np.float32(0), np.bool_(True)
    obs, reward, terminated, truncated, _ = self._envs[slot].step(int(action))
    done = bool(terminated or truncated or last)
    obs = self._begin(slot, seed) if done and restart else self._array(obs)
    return obs, np.float32(reward), np.bool_(done)

  def _begin(self, slot, seed):
    if slot not in self._envs:
      self._envs[slot] = self._make()
      while len(self._envs) > self._slots:
        self._envs.popitem(last=False)[1].close()
    return self._array(self._envs[slot].reset(seed=int(seed))[0])

  def _array(self, obs):
    return np.asarray(obs, self._dtype).reshape(self._shape)
