"""gymnasium's environments through callbacks (the package is optional)."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import config as config_lib
from rljax.classic import actor_critic, nets
from rljax.classic import env as env_lib
from rljax.classic import gym as adapter

CART = dict(id="CartPole-v1", horizon=40)


def test_without_the_package_it_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "gymnasium", None)
  with pytest.raises(config_lib.ConfigError, match="pip install"):
    adapter.gymnasium(**CART)


def test_steps_are_those_of_the_package():
  gym = pytest.importorskip("gymnasium")
  env = adapter.gymnasium(**CART)
  assert (env.n_actions, env.shape, env.n_states) == (2, (4,), 0)
  key = jax.random.key(3)
  state, theirs = env.reset(key), gym.make("CartPole-v1")
  seed = int(jax.random.bits(key, (), jnp.uint32) >> 1)
  np.testing.assert_allclose(env.observe(state), theirs.reset(seed=seed)[0], rtol=1e-6)
  for action in (0, 1, 1, 0, 1):
    state, obs, reward, done = env.step(state, action, key)
    wanted = theirs.step(action)
    np.testing.assert_allclose(obs, wanted[0], rtol=1e-6)
    assert float(reward) == wanted[1] and bool(done) == wanted[2]


def test_episodes_restart_by_themselves_under_jit_and_vmap():
  pytest.importorskip("gymnasium")
  env = adapter.gymnasium(**CART)
  step = jax.jit(jax.vmap(env_lib.auto_reset(env)))
  state = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 3))
  assert len(set(state["slot"].tolist())) == 3
  ends = np.zeros(3)
  for i in range(60):  # always right falls over within about ten steps
    state, obs, _, done = step(state, jnp.ones(3, jnp.int32), jax.random.split(
        jax.random.key(i), 3))
    ends += np.asarray(done)
    assert (np.asarray(state["t"])[np.asarray(done)] == 0).all()
    assert np.abs(np.asarray(obs)[np.asarray(done)]).max(initial=0) < 0.06  # a first observation
  assert (ends >= 4).all()


def test_a_slot_that_is_gone_begins_an_episode_and_says_done():
  pytest.importorskip("gymnasium")
  env = adapter.gymnasium(**CART, slots=1)
  first, _ = env.reset(jax.random.key(0)), env.reset(jax.random.key(1))
  assert bool(env.step(first, 1, jax.random.key(2))[3])
  assert not bool(env.step(first, 1, jax.random.key(2))[3])


def test_an_agent_learns_through_the_callbacks():
  pytest.importorskip("gymnasium")
  env = adapter.gymnasium(id="FrozenLake-v1", horizon=20, is_slippery=False)
  assert env.n_states == 16
  agent = actor_critic.policy_gradient(env, policy=nets.table, episodes=4, batch=4)
  state, metrics = jax.jit(agent.step)(agent.init(jax.random.key(0)), jax.random.key(1))
  assert float(metrics["episode/length"].compute()) >= 2
  assert int(state["policy"].step) == 1


def test_unknown_environments_are_refused():
  pytest.importorskip("gymnasium")
  with pytest.raises(config_lib.ConfigError, match="cannot make"):
    adapter.gymnasium(id="NoSuchThing-v0", horizon=5)
  with pytest.raises(config_lib.ConfigError, match="discrete actions"):
    adapter.gymnasium(id="Pendulum-v1", horizon=5)
