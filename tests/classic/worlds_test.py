"""Worlds and planning: known values, and samples that follow the exact process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.classic import env as env_lib
from rljax.classic import games, plan, worlds
from rljax.config import ConfigError


def best_policy(mdp, gamma):
  q_SA = plan.solve(mdp, gamma)[1]
  return np.eye(q_SA.shape[1])[q_SA.argmax(axis=1)]


def test_the_lines_value_is_known():
  env = worlds.line_key()
  value_S, _ = plan.solve(env.mdp, 0.95)
  assert env.mdp.start_S @ value_S == pytest.approx(5.09, abs=0.005)
  policy_SA = best_policy(env.mdp, 0.95)
  assert plan.returns(env.mdp, policy_SA, 0.95, env.horizon) == pytest.approx(5.09, abs=0.005)
  assert policy_SA[:10].argmax(1).tolist() == [1, 2] + [0] * 8  # to the key in cell 1, pick it,
  assert policy_SA[10:19].argmax(1).tolist() == [1] * 9         # then to the goal


def test_policy_iteration_agrees_with_value_iteration():
  for env in (worlds.line_key(cells=6), worlds.chain(right=4, distractor=3), worlds.grid()):
    V_S = np.zeros(env.n_states)
    for _ in range(2000):
      V_S = (env.mdp.reward_SA + 0.97 * env.mdp.transition_SAS @ V_S).max(axis=1)
    np.testing.assert_allclose(plan.solve(env.mdp, 0.97)[0], V_S, atol=1e-8)


@pytest.mark.parametrize("env", [worlds.line_key(cells=4), worlds.chain(right=3, distractor=2),
                                 worlds.grid(horizon=9)], ids=["line", "chain", "grid"])
def test_samples_follow_the_exact_process(env):
  """Frequencies of next states and mean rewards, over many steps from every state and action."""
  n = 2000
  step = jax.jit(jax.vmap(env.step, in_axes=(None, None, 0)))
  for s in range(env.n_states):
    for a in range(env.n_actions):
      at = env_lib.Cell(jnp.int32(s), jnp.int32(0))
      new, obs, reward, done = step(at, jnp.int32(a), jax.random.split(jax.random.key(s), n))
      counts = np.bincount(np.asarray(new.id), minlength=env.n_states) / n
      np.testing.assert_allclose(counts, env.mdp.transition_SAS[s, a], atol=0.05)
      assert float(reward.mean()) == pytest.approx(env.mdp.reward_SA[s, a], abs=0.06 * 10)
      assert np.array_equal(done, env.mdp.terminal_S[np.asarray(new.id)])
      assert np.array_equal(obs, new.id)


def test_played_returns_agree_with_the_exact_ones():
  env = worlds.chain(right=3, distractor=2, slip=0.3)
  played = env_lib.play(env, env_lib.random_actions(env), jax.random.key(0), 4000)
  uniform_SA = np.full((env.n_states, 2), 0.5)
  exact = plan.returns(env.mdp, uniform_SA, 1.0, env.horizon)
  assert float(played.reward.sum(1).mean()) == pytest.approx(exact, abs=0.03)
  lengths = played.mask_NT.sum(1)
  assert lengths.max() == env.horizon and lengths.min() >= 3


def test_the_horizon_ends_an_episode_and_auto_reset_begins_the_next():
  env = worlds.chain(right=9, horizon=4)
  step = jax.jit(env_lib.auto_reset(env))
  state, ends = env.reset(jax.random.key(0)), []
  for i in range(9):
    state, obs, reward, done = step(state, jnp.int32(0), jax.random.key(i))
    ends.append(bool(done))
    assert not done or (int(state.t), int(obs)) == (0, 18)
  assert ends == [False, False, False, True] * 2 + [False]


def test_occupancy_leaves_out_the_end_and_gives_unreached_states_nothing():
  env = worlds.chain(right=2, left=2, slip=0.0)
  always_right = np.tile([0.0, 1.0], (env.n_states, 1))
  mu_S = plan.occupancy(env.mdp, always_right, 0.9)
  np.testing.assert_allclose(mu_S, np.array([0, 0, 1, 0.9, 0]) / 1.9, atol=1e-12)
  assert (mu_S[[0, 1, 4]] == 0).all()


def test_refusals():
  with pytest.raises(ConfigError, match="distractor=9: the chain has 4 cells"):
    worlds.chain(right=2, distractor=9)
  with pytest.raises(ConfigError, match="equal length"):
    worlds.grid(plan=("###", "#S"))
  with pytest.raises(ConfigError, match="probabilities"):
    worlds.line_key(slip=3.0)
  with pytest.raises(ConfigError, match="square"):
    games.matrix(payoffs=((1, 2, 3), (4, 5, 6)))
  with pytest.raises(ConfigError, match="there are 2 states"):
    games.markov(states=2, branching=3)


# --- games ----------------------------------------------------------------------------------------


def test_a_matrix_pays_both_seats_and_shows_the_last_choices():
  env = games.matrix(payoffs=((3, 0), (5, 1)), rounds=2)
  state = env.reset(jax.random.key(0))
  for actions, pays in (((0, 0), (3, 3)), ((0, 1), (0, 5)), ((1, 0), (5, 0)), ((1, 1), (1, 1))):
    _, obs, reward, done = env.step(state, jnp.array(actions), jax.random.key(0))
    assert tuple(reward.tolist()) == pays and not done
    own, other = actions
    assert obs.tolist() == [1 + 2 * own + other, 1 + 2 * other + own]
  assert env.observe(state).tolist() == [0, 0]
  one_sided = games.matrix(payoffs=((1, -1), (-1, 1)), other=((-1, 1), (1, -1)))
  assert one_sided.step(one_sided.reset(None), jnp.array([0, 1]), None)[2].tolist() == [-1, 1]


def test_a_markov_game_follows_its_arrays():
  env = games.markov(states=4, actions=2, zero_sum=True, branching=2, seed=3)
  P, R = games.random_arrays(4, 2, zero_sum=True, branching=2, seed=3)
  step = jax.vmap(env.step, in_axes=(None, None, 0))
  for s in range(4):
    at = env_lib.Cell(jnp.int32(s), jnp.int32(0))
    new, obs, reward, _ = step(at, jnp.array([1, 0]), jax.random.split(jax.random.key(s), 2000))
    counts = np.bincount(np.asarray(new.id), minlength=4) / 2000
    np.testing.assert_allclose(counts, P[s, 1, 0], atol=0.05)
    np.testing.assert_allclose(reward[0], R[s, 1, 0], atol=1e-6)
    assert float(jnp.abs(reward.sum(1)).max()) < 1e-6 and (obs[:, 0] == obs[:, 1]).all()


def test_a_shared_code_wins_the_signalling_game_and_others_guess():
  env = games.signalling(worlds=3, messages=3)

  def code(obs, key):
    return jnp.where(obs < 3, (obs + 1) % 3, (obs - 3 + 2) % 3), jnp.zeros(2)
  played = env_lib.play(env, code, jax.random.key(0), 300)
  assert (played.reward.sum(1) == 1).all()
  assert (played.obs[:, 0, 1] == 6).all() and (played.obs[:, 1, 0] == 6).all()
  guessed = env_lib.play(env, env_lib.random_actions(env), jax.random.key(0), 3000)
  assert float(guessed.reward.sum(1).mean()) == pytest.approx(1 / 3, abs=0.03)
