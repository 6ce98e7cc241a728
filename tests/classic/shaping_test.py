"""The thesis's shapings by hand: SelfRS, the count bonus, designed tables, beginners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import config as config_lib
from rljax.classic import actor_critic, plan, worlds
from rljax.classic import env as env_lib

PAPER = config_lib.load_file("experiments/reward-design-thesis.py")
ENV = worlds.chain(right=2, left=2, horizon=5, slip=0.1)


def played(n=10, seed=0):
  return env_lib.play(ENV, env_lib.random_actions(ENV), jax.random.key(seed), n)


def test_self_reward_is_the_papers_update():
  shaping = PAPER.self_reward(ENV, eta=0.1, eta_value=0.2, gamma=0.9, every=5, keep=10)
  rs = np.random.default_rng(0)
  state = shaping.init(None)
  state["value"] = jnp.asarray(rs.random(ENV.n_states), jnp.float32)
  prob_SA = rs.dirichlet(np.ones(2), ENV.n_states).astype(np.float32)
  e = played()
  new = shaping.learn(state, e, jnp.asarray(prob_SA)[e.obs], 5)
  phi, error, visits = np.zeros((ENV.n_states, 2)), np.zeros(ENV.n_states), 0
  for n in range(10):
    T = int(e.mask_NT[n].sum())
    for t in range(T):
      s, a = int(e.obs[n, t]), int(e.action[n, t])
      G = sum(0.9**k * float(e.reward[n, t + k]) for k in range(T - t))
      gap = G - float(state["value"][s])
      w = prob_SA[s, a] * gap
      phi[s, a] += 0.1 * w
      phi[s] -= 0.1 * prob_SA[s] * w
      error[s] += gap
      visits += 1
  assert float(e.reward.sum()) > 0
  np.testing.assert_allclose(new["phi"], phi, atol=1e-5)
  np.testing.assert_allclose(new["value"] - state["value"], 0.2 * error / visits, atol=1e-5)


def test_self_reward_waits_for_its_turn_and_for_a_success():
  shaping = PAPER.self_reward(ENV, every=5)
  e, prob = played(), jnp.full((10, 5, 2), 0.5)
  state = shaping.init(None)
  state = shaping.learn(state, e, prob, 2)  # two episodes so far: not yet
  assert float(jnp.abs(state["phi"]).sum()) == 0
  failed = e._replace(reward=jnp.zeros_like(e.reward))
  state = shaping.learn(state, failed, prob, 4)  # six, crossing five, but V = 0 and no return
  assert float(jnp.abs(state["phi"]).sum()) == 0
  state = shaping.learn(state, e, prob, 4)
  assert float(jnp.abs(state["phi"]).sum()) > 0


def test_the_bonus_counts_visits_and_is_nothing_at_the_end():
  shaping = PAPER.self_reward(ENV, learned=False, bonus=1.0, bonus_max=0.5)
  e, state = played(), shaping.init(None)
  np.testing.assert_allclose(  # at first 1 / sqrt((1 / 0.5)^2) = 0.5 on entering a live state
      shaping.reward(state, e) - e.reward,
      0.5 * e.mask_NT * ~ENV.mdp.terminal_S[np.asarray(e.next_obs)], atol=1e-6)
  state = shaping.learn(state, e, jnp.full((10, 5, 2), 0.5), 4)
  counts = np.zeros(ENV.n_states)
  np.add.at(counts, np.asarray(e.obs[-4:]), np.asarray(e.mask_NT[-4:]))
  np.testing.assert_array_equal(state["visits"], counts)
  assert float(jnp.abs(state["phi"]).sum()) == 0
  n, t = 0, 0
  s = int(e.next_obs[n, t])
  assert float(shaping.reward(state, e)[n, t]) == pytest.approx(
      1 / np.sqrt(4 + counts[s]) * (not ENV.mdp.terminal_S[s]) + float(e.reward[n, t]), abs=1e-6)


def test_designed_tables_replace_the_reward_and_are_paid_while_the_episode_lasts():
  env = worlds.line_key(cells=5)
  shaping = PAPER.designed(env)
  e = env_lib.play(env, env_lib.random_actions(env), jax.random.key(0), 20)
  table, paid = shaping.init(None), shaping.reward(shaping.init(None), e)
  np.testing.assert_allclose(paid, np.asarray(table)[e.obs, e.action] * e.mask_NT)
  assert float(jnp.abs(paid - e.reward).sum()) > 0


def test_the_adaptive_reward_follows_the_policy_at_its_period():
  env = worlds.line_key(cells=5)
  shaping = PAPER.adaptive(env, every=2)
  start = np.asarray(shaping.init(None))
  np.testing.assert_allclose(start, env.mdp.reward_SA, rtol=1e-6)
  rs = np.random.default_rng(0)
  one, two = (shaping.redesign(start, rs.dirichlet(np.ones(3), env.n_states), 0) for _ in range(2))
  assert one.shape == start.shape and np.abs(one - start).max() > 0.1
  assert np.abs(one - two).max() > 0.1
  assert shaping.redesign(start, np.full((env.n_states, 3), 1 / 3), 1) is start


def test_an_adversarial_beginner_prefers_the_worst_action():
  env = worlds.line_key(cells=5)
  logits = PAPER.worst_actions(env, strength=3.0)
  q_SA = plan.solve(env.mdp, 0.95)[1]
  at = np.arange(env.n_states)
  assert (q_SA[at, logits.argmax(1)] <= q_SA.min(1) + 1e-12).all() and logits.max() == 3.0
  policy_SA = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  uniform = np.full_like(policy_SA, 1 / 3)
  assert plan.returns(env.mdp, policy_SA, 0.95, 30) < plan.returns(env.mdp, uniform, 0.95, 30)


def test_the_loop_redesigns_between_its_steps():
  env = worlds.line_key(cells=5)
  agent = actor_critic.policy_gradient(env, batch=5, shaping=PAPER.adaptive)
  state = jax.device_get(agent.init(jax.random.key(0)))
  new = agent.redesign(state, 0)
  assert np.abs(new["shaping"] - state["shaping"]).max() > 0.1
  assert new["policy"] is state["policy"]
