"""Designed rewards: what they must keep, what they maximise, and how they refuse."""

import numpy as np
import pytest

from rljax import config as config_lib
from rljax.classic import design, plan, worlds

PAPER = config_lib.load_file("experiments/reward-design-thesis.py")
GAMMA = 0.95


def small_line():
  return worlds.line_key(cells=5)


@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("horizons", [(), (1, 4)])
def test_designed_rewards_keep_the_optimal_policies(structured, horizons):
  env = small_line()
  d = design.Designer(env.mdp, GAMMA, 10.0, PAPER.line_leaves(env) if structured else None)
  gains = [None, np.random.default_rng(0).normal(size=(env.n_states, 3))]
  for gain in gains:
    reward_SA = d.solve(gain, horizons=horizons)
    under = env.mdp.__class__(env.mdp.transition_SAS,
                              np.repeat(reward_SA[:, :, None], env.n_states, 2),
                              env.mdp.start_S, env.mdp.terminal_S)
    q_SA = plan.solve(under, GAMMA)[1]
    allowed = plan.optimal_actions(d.q_SA)
    live = ~env.mdp.terminal_S
    assert allowed[live, q_SA.argmax(axis=1)[live]].all()
    assert np.abs(reward_SA).max() <= 10 + 1e-9 and (reward_SA[~live] == 0).all()
    best = q_SA.max(axis=1, keepdims=True)
    strict = live[:, None] & ~allowed  # by at least the original's gap
    assert ((best - q_SA)[strict] >= np.repeat(d.delta_S[:, None], 3, 1)[strict] - 1e-6).all()


def test_several_optimal_actions_are_free_of_the_strict_constraint():
  env = small_line()
  d = design.Designer(env.mdp, GAMMA, 10.0)
  goal = 9  # with the key any action there pays
  assert plan.optimal_actions(d.q_SA)[goal].all()
  assert goal not in d.strict_X // 3 and (d.equal_X // 3 == goal).sum() == 2


def test_the_informative_reward_is_better_than_the_constraints_alone():
  env = small_line()
  d = design.Designer(env.mdp, GAMMA, 10.0, PAPER.line_leaves(env))
  plain, informed = d.solve(), d.solve(horizons=PAPER.HORIZONS)
  assert d.informativeness(informed, PAPER.HORIZONS) > d.informativeness(plain, PAPER.HORIZONS)
  assert d.informativeness(env.mdp.reward_SA, PAPER.HORIZONS) <= d.informativeness(
      informed, PAPER.HORIZONS) + 1e-9


def test_the_informativeness_is_the_papers_sum():
  """By rolling the optimal policy forward from every state and action."""
  env = small_line()
  d = design.Designer(env.mdp, GAMMA, 10.0)
  reward_SA = np.random.default_rng(1).normal(size=(env.n_states, 3))
  total = 0.0
  for h in (1, 3):
    value_S = np.zeros(env.n_states)  # of the optimal policy, over h - 1 steps
    for _ in range(h - 1):
      q = reward_SA + GAMMA * env.mdp.transition_SAS @ value_S
      value_S = q[np.arange(env.n_states), d.first_S]
    q = reward_SA + GAMMA * env.mdp.transition_SAS @ value_S
    for s in np.flatnonzero(d.live_S):
      worst = [d.delta_S[s] - (q[s, d.first_S[s]] - q[s, a]) for a in range(3)
               if d.q_SA[s, a] < d.value_S[s] - 1e-9]
      total += max([0.0, *worst])
  assert d.informativeness(reward_SA, (1, 3)) == pytest.approx(-total / (2 * d.live_S.sum()))


def test_the_adaptive_gain_is_the_papers_double_sum():
  env = small_line()
  d, rs = design.Designer(env.mdp, GAMMA, 10.0), np.random.default_rng(2)
  policy_SA = rs.dirichlet(np.ones(3), env.n_states)
  gain_SA = design.adaptive_gain(d, policy_SA, eps=0.3)

  def value(reward_SA):
    teacher = 0.7 * np.eye(3)[d.first_S] + 0.1
    mu_S, learner_S = (plan.occupancy(env.mdp, p, GAMMA) for p in (teacher, policy_SA))
    total = 0.0
    for s in range(env.n_states):
      adv = d.q_SA[s] - d.value_S[s]
      for a in range(3):
        total += (mu_S[s] * learner_S[s] * policy_SA[s, a] * policy_SA[s, a]
                  * (adv[a] - policy_SA[s] @ adv) * (reward_SA[s, a] - policy_SA[s] @ reward_SA[s]))
    return total

  one, two = rs.normal(size=(2, env.n_states, 3))
  ratio = (gain_SA * one).sum() / value(one)
  assert ratio > 0 and (gain_SA * two).sum() / value(two) == pytest.approx(ratio)
  assert np.abs(gain_SA).max() == pytest.approx(1)


def test_too_coarse_a_structure_is_refused_with_the_states():
  env = small_line()
  only_picking = np.kron(np.ones((env.n_states, 1)), np.eye(3)[:, 2:])  # one number for all states
  with pytest.raises(config_lib.ConfigError, match="states whose constraints cannot be met: [0-9]"):
    design.Designer(env.mdp, GAMMA, 10.0, only_picking).solve()


def test_a_sparse_reward_has_no_more_states_than_its_budget():
  env = small_line()
  d = design.Designer(env.mdp, GAMMA, 10.0)
  worth = []
  for budget in (1, 2, 3):
    reward_SA = d.sparse(budget, horizons=(1, 4))
    assert (np.abs(reward_SA).max(axis=1) > 1e-9).sum() <= budget
    worth.append(d.informativeness(reward_SA, (1, 4)))
  assert worth[0] < worth[1] <= worth[2]


def test_the_leaves_tell_the_key_cell_and_the_goal_apart():
  env = worlds.line_key(cells=6, key=2)
  leaf_S = PAPER.line_leaves(env).reshape(env.n_states, 3, 15)[:, 0].reshape(-1, 5, 3)[:, :, 0]
  assert leaf_S.argmax(1)[:12].tolist() == [0, 0, 2, 0, 0, 1, 3, 3, 3, 3, 3, 4]
  assert leaf_S[12].sum() == 0
