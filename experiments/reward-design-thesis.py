"""Reward design: what the thesis calls ExpRD, ExpAdaRD, SelfRS and ExploRS, as `Shaping` leaves.

ExpRD and ExpAdaRD replace the environment's reward, SelfRS and ExploRS add to it.
"""

import jax.numpy as jnp
import numpy as np

from rljax.classic import actor_critic, design, plan, replay
from rljax.classic import env as env_lib

HORIZONS = (1, 4, 8, 16, 32)


def line_leaves(env: env_lib.Env) -> np.ndarray:
  """Features [S * A, 15] of LineK: five kinds of states times three actions, one-hot.

  Without the key: ordinary, goal cell, key cell; with it: ordinary, goal cell.
  """
  cells = env.n_states // 2
  leaf_S = np.repeat([0, 3, -1], [cells, cells, 1])
  leaf_S[[cells - 1, 2 * cells - 1]] = 1, 4
  leaf_S[_key_cell(env)] = 2
  one_hot = (leaf_S[:, None] == np.arange(5)[None]).astype(float)
  return np.kron(one_hot, np.eye(env.n_actions))


def _key_cell(env):
  """Where an action changes the cell's state to that with the key."""
  cells = env.n_states // 2
  return int(np.argmax(np.diag(env.mdp.transition_SAS[:cells, 2, cells:2 * cells])))


def worst_actions(env: env_lib.Env, *, strength: float = 2.0, gamma: float = 0.95) -> np.ndarray:
  """Logits [S, A] of an adversarial beginner, `strength` at each state's action of least value."""
  q_SA = plan.solve(env.mdp, gamma)[1]
  return strength * np.eye(env.n_actions)[q_SA.argmin(axis=1)]


def _table(env, reward_SA, redesign=None):
  """Pays a table of (state, action) in the place of the environment's reward."""
  start = jnp.asarray(reward_SA, jnp.float32)
  return actor_critic.Shaping(
      init=lambda key: start,
      reward=lambda table, e: table[e.obs, e.action] * e.mask_NT,
      learn=lambda table, e, prob, fresh: table, redesign=redesign)


def designed(env: env_lib.Env, *, informative: bool = True, structured: bool = True,
             gamma: float = 0.95, r_max: float = 10.0, budget: int = 0) -> actor_critic.Shaping:
  """ExpRD: one reward, designed before the learner begins.

  Args:
    informative: False keeps the constraints alone (invariance).
    structured: R has the leaves of `line_leaves`; else it is free.
    gamma, r_max: of the design.
    budget: states with a reward, greedily chosen; 0 = any number.
  """
  d = design.Designer(env.mdp, gamma, r_max, line_leaves(env) if structured else None)
  horizons = HORIZONS if informative else ()
  return _table(env, d.sparse(budget, horizons=HORIZONS) if budget else d.solve(horizons=horizons))


def adaptive(env: env_lib.Env, *, structured: bool = True, gamma: float = 0.95,
             r_max: float = 10.0, eps: float = 0.3, every: int = 1) -> actor_critic.Shaping:
  """ExpAdaRD: the reward is designed anew for the learner's current policy.

  Args:
    structured, gamma, r_max: as in `designed`.
    eps: the teacher's share of random actions, in its occupancy.
    every: run steps between designs (a run step is `chunk` updates).
  """
  d = design.Designer(env.mdp, gamma, r_max, line_leaves(env) if structured else None)

  def redesign(table, policy_SA, step):
    if step % every:
      return table
    return d.solve(design.adaptive_gain(d, policy_SA, eps=eps)).astype(np.float32)
  return _table(env, env.mdp.reward_SA, redesign)


def self_reward(env: env_lib.Env, *, learned: bool = True, bonus: float = 0.0,
                bonus_max: float = 1.0, eta: float = 0.01, eta_value: float = 0.01,
                gamma: float = 0.99, every: int = 5, keep: int = 10) -> actor_critic.Shaping:
  """SelfRS, phi(s, a) learned from the returns; with `bonus`, ExploRS; only that, a count bonus.

  Every so many episodes, over the last `keep`, for each visited (s, a) with discounted return G
  under the environment's reward: w = pi(a|s) (G - V(s)), phi(s, a) += eta w, phi(s, .) -= eta
  pi(.|s) w; V(s) += eta_value times the sum of its G - V over the number of all visits. The bonus
  of entering s' is bonus / sqrt((bonus / bonus_max)^2 + N(s')), 0 at the end.

  Args:
    learned: False leaves phi at 0.
    bonus, bonus_max: lambda and B_max; 0 = no bonus.
    eta, eta_value: steps of phi and V. gamma: of the returns.
    every, keep: episodes.
  """
  S, A = env.n_states, env.n_actions
  ends_S = jnp.asarray(env.mdp.terminal_S)

  def init(key):
    del key
    return {"phi": jnp.zeros((S, A)), "value": jnp.zeros((S,)), "visits": jnp.zeros((S,)),
            "played": jnp.zeros((), jnp.int32)}

  def reward(state, e):
    extra = state["phi"][e.obs, e.action]
    if bonus:
      bonus_S = bonus / jnp.sqrt((bonus / bonus_max) ** 2 + state["visits"])
      extra = extra + jnp.where(ends_S, 0.0, bonus_S)[e.next_obs]
    return e.reward + extra * e.mask_NT

  def learn(state, e, prob, fresh):
    played = state["played"] + fresh
    visits = state["visits"].at[e.obs[-fresh:]].add(e.mask_NT[-fresh:])
    state = {**state, "visits": visits, "played": played}
    if not learned:
      return state
    return_NT = replay.discounted(e.reward, gamma)
    gap_NT = (return_NT - state["value"][e.obs]) * e.mask_NT
    w_NT = jnp.take_along_axis(prob, e.action[..., None], -1)[..., 0] * gap_NT
    change = jnp.zeros((S, A)).at[e.obs, e.action].add(w_NT).at[e.obs].add(-prob * w_NT[..., None])
    errors_S = jnp.zeros((S,)).at[e.obs].add(gap_NT) / jnp.maximum(jnp.sum(e.mask_NT), 1.0)
    due = (played // every > (played - fresh) // every).astype(jnp.float32)
    return {**state, "phi": state["phi"] + due * eta * change,
            "value": state["value"] + due * eta_value * errors_S}

  return actor_critic.Shaping(init, reward, learn, keep=keep)
