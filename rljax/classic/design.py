"""Rewards designed by an expert who knows the process and its optimal policy, as linear programmes.

ExpRD, https://openreview.net/forum?id=yw5KKWraUk7, and ExpAdaRD, https://arxiv.org/abs/2402.07019.
Host code, float64. Letters: S states, A actions, X = S * A, D features, H horizons.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize

from rljax import config as config_lib
from rljax.classic import env as env_lib
from rljax.classic import plan

SPARSE = 1e-6  # weight of -|R|_1, which picks one vertex among equal optima


class Designer:
  """Designs rewards R = F w, |R| <= r_max, under which the optimal policies stay optimal.

  Invariance: for the optimal policy pi* and every action a that is not optimal,
  Q_R(s, pi*(s)) - Q_R(s, a) >= delta(s), the gap to the best such action under the original reward;
  other optimal actions may be equal, not better. Q_R is of pi* under R. Terminal states have no
  constraint and no reward.

  Args:
    mdp, gamma: the process.
    r_max: bound of |R|.
    features_XD: F; None = R is free at every state and action.
  """

  def __init__(self, mdp: env_lib.Mdp, gamma: float, r_max: float,
               features_XD: np.ndarray | None = None):
    self.mdp, self.gamma, self.r_max = mdp, gamma, r_max
    self.S, self.A = S, A = mdp.reward_SA.shape
    self.value_S, self.q_SA = plan.solve(mdp, gamma)
    self.live_S = ~mdp.terminal_S
    best_SA = plan.optimal_actions(self.q_SA)
    self.first_S = best_SA.argmax(axis=1)  # pi*
    self.delta_S = np.where(best_SA, np.inf, self.value_S[:, None] - self.q_SA).min(axis=1)
    star_X = np.arange(S) * A + self.first_S
    self.next_XX = np.zeros((S * A, S * A))  # to (s', pi*(s'))
    self.next_XX[:, star_X] = mdp.transition_SAS.reshape(S * A, S)
    live_X, best_X = np.repeat(self.live_S, A), best_SA.reshape(-1)
    self.features = np.eye(S * A)[:, live_X] if features_XD is None else (
        features_XD * live_X[:, None])
    self.strict_X = np.flatnonzero(live_X & ~best_X)
    self.equal_X = np.setdiff1d(np.flatnonzero(live_X & best_X), star_X)
    self._invariance = -self.advantage_over(
        np.concatenate([self.strict_X, self.equal_X]), None) @ self.features

  def advantage_over(self, rows_X: np.ndarray, horizon: int | None) -> np.ndarray:
    """[rows, X]: R -> Q_R(s, pi*(s)) - Q_R(s, a) over so many steps; None = without an end."""
    A, X = self.A, self.S * self.A
    if horizon is None:
      value_XX = np.linalg.inv(np.eye(X) - self.gamma * self.next_XX)
    else:
      value_XX, power = np.zeros((X, X)), np.eye(X)
      for _ in range(horizon):
        value_XX, power = value_XX + power, self.gamma * power @ self.next_XX
    star_X = rows_X // A * A + self.first_S[rows_X // A]
    return value_XX[star_X] - value_XX[rows_X]

  def solve(self, gain_SA: np.ndarray | None = None, *, horizons: Sequence[int] = (),
            states: Sequence[int] | None = None) -> np.ndarray:
    """The reward [S, A] that maximises <gain, R> + the informativeness over `horizons`.

    ExpRD's informativeness: -1 / (|H| |S|) sum_h sum_s max(0, max_a [delta(s) - Delta_h(s, a)]),
    Delta_h the h-step advantage of pi* over a, by a slack per horizon and state.

    Args:
      gain_SA: linear gains; None = 0.
      horizons: H; () = no such term.
      states: where R may differ from 0; None = everywhere.

    Raises:
      ConfigError: no such reward leaves the optimal policies optimal, with the violated states.
    """
    problem = self._problem(gain_SA, horizons, states)
    found = _linprog(*problem)
    if found is None:
      violated = sorted({int(x) // self.A for x in self._violated(states)})
      raise config_lib.ConfigError(
          "no reward of this structure keeps the optimal policies optimal; states whose "
          f"constraints cannot be met: {', '.join(map(str, violated))}")
    D = self.features.shape[1]
    return (self.features @ (found[:D] - found[D:2 * D])).reshape(self.S, self.A)

  def sparse(self, budget: int, *, horizons: Sequence[int]) -> np.ndarray:
    """ExpRD with rewards in `budget` states at most: greedily the state that helps most.

    Begins with the states that the original reward needs. Ties go to the lower state.
    """
    chosen = np.flatnonzero(np.any(self.mdp.reward_SA != 0, axis=1)).tolist()
    while len(chosen) < budget:
      rest = [s for s in np.flatnonzero(self.live_S).tolist() if s not in chosen]
      worth = [self.informativeness(self.solve(horizons=horizons, states=[*chosen, s]), horizons)
               for s in rest]
      if not rest:
        break
      chosen.append(rest[int(np.argmax(np.round(worth, 9)))])
    return self.solve(horizons=horizons, states=chosen)

  def informativeness(self, reward_SA: np.ndarray, horizons: Sequence[int]) -> float:
    """ExpRD's measure of a reward; 0 is the best there is."""
    total = 0.0
    for h in horizons:
      short = self.delta_S[self.strict_X // self.A] - self.advantage_over(
          self.strict_X, h) @ reward_SA.reshape(-1)
      worst_S = np.zeros(self.S)
      np.maximum.at(worst_S, self.strict_X // self.A, short)
      total += worst_S.sum()
    return -total / (len(horizons) * self.live_S.sum())

  def _bounds(self, states):
    """(A, b) of: invariance, |R| <= r_max, R = 0 outside the states; columns w+ and w-."""
    limit_X = np.full(len(self.features), self.r_max)
    if states is not None:
      limit_X[~np.isin(np.arange(len(limit_X)) // self.A, states)] = 0.0
    rows = np.concatenate([self._invariance, self.features, -self.features])
    bounds = [-self.delta_S[self.strict_X // self.A], np.zeros(len(self.equal_X)), limit_X, limit_X]
    return np.concatenate([rows, -rows], axis=1), np.concatenate(bounds)

  def _problem(self, gain_SA, horizons, states):
    rows, bounds = self._bounds(states)
    S, D, H = self.S, self.features.shape[1], len(horizons)
    gain_D = np.zeros(D) if gain_SA is None else gain_SA.reshape(-1) @ self.features
    size_D = SPARSE * np.abs(self.features).sum(axis=0)
    cost = [-gain_D + size_D, gain_D + size_D]
    if H:
      cost.append(np.full(H * S, 1.0 / (H * self.live_S.sum())))
      rows = np.pad(rows, ((0, 0), (0, H * S)))
      for i, h in enumerate(horizons):  # delta - Delta_h - z <= 0
        less = -self.advantage_over(self.strict_X, h) @ self.features
        slack = -np.eye(H * S)[i * S + self.strict_X // self.A]
        rows = np.concatenate([rows, np.concatenate([less, -less, slack], axis=1)])
        bounds = np.concatenate([bounds, -self.delta_S[self.strict_X // self.A]])
    return np.concatenate(cost), rows, bounds

  def _violated(self, states):
    """Constraints (as rows_X) that stay short when the sum of what is missing is least."""
    rows, bounds = self._bounds(states)
    n = len(self.strict_X)
    missing = np.concatenate([-np.eye(n), np.zeros((len(rows) - n, n))])
    found = _linprog(np.concatenate([np.zeros(rows.shape[1]), np.ones(n)]),
                     np.concatenate([rows, missing], axis=1), bounds)
    return self.strict_X[found[-n:] > 1e-7]


def _linprog(cost, rows, bounds):
  """argmin of cost x, rows x <= bounds, x >= 0; None if there is none. The solver is fixed: other
  vertices of equal worth teach at other speeds."""
  found = scipy.optimize.linprog(cost, A_ub=rows, b_ub=bounds, bounds=(0, None), method="highs-ds")
  return found.x if found.status == 0 else None


def adaptive_gain(designer: Designer, policy_SA: np.ndarray, *, eps: float) -> np.ndarray:
  """ExpAdaRD's linear gain of R [S, A] for a learner's current policy, scaled to a largest of 1.

  sum_{s,a} mu*(s) mu_L(s, a) pi_L(a|s) [A*(s, a) - A*(s, pi_L)] [R(s, a) - R(s, pi_L)], where
  f(s, pi) = sum_a pi(a|s) f(s, a), A* is the optimal policy's advantage under the original reward,
  mu* the occupancy of an eps-soft teacher and mu_L that of the learner (terminal states left out).
  """
  mdp, gamma = designer.mdp, designer.gamma
  teacher_SA = plan.soft(np.eye(policy_SA.shape[1])[designer.first_S], eps)
  mu_S = plan.occupancy(mdp, teacher_SA, gamma)
  learner_SA = plan.occupancy(mdp, policy_SA, gamma)[:, None] * policy_SA
  adv_SA = designer.q_SA - designer.value_S[:, None]
  centred_SA = adv_SA - (policy_SA * adv_SA).sum(axis=1, keepdims=True)
  weight_SA = mu_S[:, None] * learner_SA * policy_SA * centred_SA
  gain_SA = weight_SA - policy_SA * weight_SA.sum(axis=1, keepdims=True)
  return gain_SA / max(np.abs(gain_SA).max(), 1e-300)
