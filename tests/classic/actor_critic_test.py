"""Policy gradients in worlds: the update by hand, and that they learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import advantages, optim
from rljax.classic import actor_critic, games, measure, nets, pixels, plan, worlds
from rljax.classic import agent as agent_lib
from rljax.config import ConfigError
from rljax.objectives import pg, value

SGD = functools.partial(optim.sgd, lr=1.0)


def trained(agent, env, steps, seed=0):
  def one(state, key):
    return agent.step(state, key)
  run = jax.jit(lambda s, k: jax.lax.scan(one, s, jax.random.split(k, steps)))
  state, metrics = run(agent.init(jax.random.key(seed)), jax.random.key(seed + 1))
  return state, {k: float(m.compute()) for k, m in agent_lib.folded(metrics).items()}


def test_one_update_is_reinforce_by_hand():
  """Sum over visits of G (1[a] - pi(.|s)), over the number of steps, for the last episodes."""
  env = worlds.chain(right=2, left=2, horizon=6, slip=0.1)
  agent = actor_critic.policy_gradient(env, optimizer=SGD, episodes=2, batch=3, gamma=0.9)
  state = agent.init(jax.random.key(0))
  for i in range(3):
    before = np.asarray(state["policy"].params[0])
    state, _ = jax.jit(agent.step)(state, jax.random.key(i))
    change, steps = np.zeros_like(before), 0
    prob = np.asarray(jax.nn.softmax(before))
    episodes = jax.tree.map(np.asarray, state["episodes"])
    for n in range(3):
      T = int(episodes.mask_NT[n].sum())
      for t in range(T):
        G = sum(0.9**k * episodes.reward[n, t + k] for k in range(T - t))
        s, a = episodes.obs[n, t], episodes.action[n, t]
        change[s, a] += G
        change[s] -= G * prob[s]
      steps += T
    np.testing.assert_allclose(np.asarray(state["policy"].params[0]) - before,
                               change / max(steps, 1), atol=1e-5)


def test_reinforce_learns_a_short_chain():
  env = worlds.chain(right=3, left=3, slip=0.05)
  agent = actor_critic.policy_gradient(env, optimizer=SGD, episodes=8, batch=8)
  state, _ = trained(agent, env, 150)
  found = measure.exact(env, agent, state, jax.random.key(0))["return"]
  assert float(found) > 0.9


def test_a_critic_learns_the_values_of_its_policy():
  env = worlds.chain(right=3, left=3, slip=0.05, horizon=40)
  agent = actor_critic.policy_gradient(
      env, critic=nets.table, optimizer=functools.partial(optim.sgd, lr=0.0),
      critic_optimizer=functools.partial(optim.sgd, lr=2.0), episodes=16, batch=16, gamma=0.9,
      advantage=functools.partial(advantages.gae, lam=1.0, whitened=False),
      value_objective=functools.partial(value.clipped, clip=None))
  state, _ = trained(agent, env, 400)
  exact_S = plan.evaluate(env.mdp, np.full((env.n_states, 2), 0.5), 0.9)[0]
  got_S = np.asarray(state["critic"].params[0])[:, 0]
  np.testing.assert_allclose(got_S[1:6], exact_S[1:6], atol=0.06)


def test_clipped_ratios_and_group_norm_are_those_of_the_language_models():
  env = worlds.chain(right=3, left=3)
  agent = actor_critic.policy_gradient(
      env, optimizer=functools.partial(optim.adamw, lr=0.1), episodes=16, batch=16,
      advantage=advantages.group_norm, objective=pg.grpo)
  _, metrics = trained(agent, env, 60)
  assert metrics["reward/mean"] > 0.5 and "pg/clip_fraction" in metrics
  assert metrics["mismatch/max"] < 1e-5  # what acts is what learns


def test_two_seats_agree_on_a_code():
  env = games.signalling(worlds=2, messages=2)
  agent = actor_critic.policy_gradient(env, optimizer=SGD, episodes=32, batch=32, gamma=1.0,
                                       advantage=functools.partial(
                                           advantages.reinforce, baseline="batch-mean"))
  state, _ = trained(agent, env, 400)
  found = measure.episodes(env, agent, state, jax.random.key(0), count=200)
  assert float(found["return"]) > 0.9
  assert float(found["seat0"]) == pytest.approx(float(found["seat1"]))


@pytest.mark.slow
def test_a_linear_policy_and_a_network_learn_too():
  env = worlds.chain(right=2, left=2)
  for hidden in ((), (16,)):
    agent = actor_critic.policy_gradient(
        env, policy=functools.partial(nets.mlp, hidden=hidden), episodes=8, batch=8,
        optimizer=functools.partial(optim.adamw, lr=0.05))
    state, _ = trained(agent, env, 100)
    assert float(measure.exact(env, agent, state, None)["return"]) > 0.9


def test_refusals():
  env = worlds.chain()
  with pytest.raises(ConfigError, match="give it a critic"):
    actor_critic.policy_gradient(env, advantage=advantages.gae)
  with pytest.raises(ConfigError, match="one seat"):
    actor_critic.policy_gradient(games.signalling(), shaping=lambda env: None)
  with pytest.raises(ConfigError, match="images"):
    nets.vit(env)
  with pytest.raises(ConfigError, match="ids"):
    nets.table(pixels.catch(), 3)


def test_exact_returns_agree_with_planning_in_float64():
  env = worlds.line_key(cells=6)
  agent = actor_critic.policy_gradient(env)
  state = agent.init(jax.random.key(0))
  logits = np.random.default_rng(0).normal(size=(env.n_states, 3))
  state["policy"] = state["policy"].replace(params=jnp.asarray(logits, jnp.float32)[None])
  policy_SA = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  found = measure.exact(env, agent, state, None, gamma=0.9, horizon=25)
  wanted = plan.returns(env.mdp, policy_SA, 0.9, 25)
  assert float(found["return"]) == pytest.approx(wanted, rel=1e-4)
  assert float(found["share"]) == pytest.approx(
      wanted / (env.mdp.start_S @ plan.solve(env.mdp, 0.9)[0]), rel=1e-4)
