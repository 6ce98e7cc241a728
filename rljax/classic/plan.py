"""Exact planning in an `Mdp`, in float64: values, policies, occupancies. Host code.

Letters: S states, A actions. A policy is a float array [S, A] of probabilities.
"""

import numpy as np

from rljax.classic import env as env_lib


def solve(mdp: env_lib.Mdp, gamma: float, *, tolerance: float = 1e-12) -> tuple[np.ndarray, ...]:
  """(V_S, Q_SA) of the optimal policies by policy iteration from the greedy one of zero values."""
  best_S = np.argmax(mdp.reward_SA, axis=1)
  while True:
    V_S = evaluate(mdp, np.eye(mdp.reward_SA.shape[1])[best_S], gamma)[0]
    Q_SA = mdp.reward_SA + gamma * mdp.transition_SAS @ V_S
    gain_S = Q_SA.max(axis=1) - np.take_along_axis(Q_SA, best_S[:, None], 1)[:, 0]
    if gain_S.max() <= tolerance:
      return V_S, Q_SA
    best_S = np.where(gain_S > tolerance, Q_SA.argmax(axis=1), best_S)


def evaluate(mdp: env_lib.Mdp, policy_SA: np.ndarray, gamma: float) -> tuple[np.ndarray, ...]:
  """(V_S, Q_SA) of a policy: V = (I - gamma P_pi)^-1 R_pi, 0 at terminal states.

  With gamma = 1 the policy must reach a terminal state from everywhere.
  """
  P_SS, R_S = under(mdp, policy_SA)
  live_S = ~mdp.terminal_S
  V_S = np.zeros(len(live_S))
  inner = np.ix_(live_S, live_S)
  V_S[live_S] = np.linalg.solve(np.eye(live_S.sum()) - gamma * P_SS[inner], R_S[live_S])
  return V_S, mdp.reward_SA + gamma * mdp.transition_SAS @ V_S


def under(mdp: env_lib.Mdp, policy_SA: np.ndarray) -> tuple[np.ndarray, ...]:
  """(P_SS, R_S) of the chain that a policy makes of the process."""
  return (np.einsum("sa,sat->st", policy_SA, mdp.transition_SAS),
          (policy_SA * mdp.reward_SA).sum(axis=1))


def returns(mdp: env_lib.Mdp, policy_SA: np.ndarray, gamma: float, horizon: int) -> float:
  """The expected sum of gamma^t r_t over the first `horizon` steps, from the start."""
  P_SS, R_S = under(mdp, policy_SA)
  V_S = np.zeros_like(R_S)
  for _ in range(horizon):
    V_S = R_S + gamma * P_SS @ V_S
  return float(mdp.start_S @ V_S)


def occupancy(mdp: env_lib.Mdp, policy_SA: np.ndarray, gamma: float) -> np.ndarray:
  """mu_S, the discounted share of time spent in each state that is not terminal; sums to 1.

  States that the policy does not reach have exactly 0.
  """
  P_SS, _ = under(mdp, policy_SA)
  live_S = ~mdp.terminal_S
  inner = P_SS[np.ix_(live_S, live_S)]
  found = np.linalg.solve(np.eye(live_S.sum()) - gamma * inner.T, mdp.start_S[live_S])
  reached = mdp.start_S[live_S] > 0
  for _ in range(live_S.sum()):
    reached = reached | (reached @ (inner > 0) > 0)
  mu_S = np.zeros(len(live_S))
  mu_S[live_S] = np.where(reached, np.maximum(found, 0.0), 0.0)
  return mu_S / mu_S.sum()


def optimal_actions(Q_SA: np.ndarray, *, tolerance: float = 1e-9) -> np.ndarray:
  """bool [S, A]: every action whose value is the state's largest."""
  return Q_SA >= Q_SA.max(axis=1, keepdims=True) - tolerance


def soft(policy_SA: np.ndarray, eps: float) -> np.ndarray:
  """The policy that acts at random with probability eps."""
  return (1 - eps) * policy_SA + eps / policy_SA.shape[1]
