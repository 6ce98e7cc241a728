"""What an evaluation measures: traceable `(env, agent, state, key, *, knobs) -> {name: scalar}`."""

import jax
import jax.numpy as jnp
import numpy as np

from rljax.classic import agent as agent_lib
from rljax.classic import env as env_lib
from rljax.classic import plan
from rljax.types import Array


def episodes(env: env_lib.Env, agent: agent_lib.Agent, state, key: Array, *,
             count: int = 20) -> dict[str, Array]:
  """Mean undiscounted return and length of played episodes; with seats, also of each: seat0, ...

  Args:
    count: episodes.
  """
  played = env_lib.play(env, agent_lib.actor(agent, state), key, count)
  return_N = jnp.sum(played.reward, axis=1)
  out = {"return": jnp.mean(return_N), "length": jnp.sum(played.mask_NT) / count}
  if env.seats > 1:
    out |= {f"seat{i}": jnp.mean(return_N[:, i]) for i in range(env.seats)}
  return out


def exact(env: env_lib.Env, agent: agent_lib.Agent, state, key: Array, *, gamma: float = 1.0,
          horizon: int = 0) -> dict[str, Array]:
  """The policy's expected return in an exact process, and its share of the best one's.

  "return" is E sum_{t < horizon} gamma^t r_t; "share" divides it by the value of an optimal policy
  without a time limit, and is there for gamma < 1 only.

  Args:
    gamma: discount. horizon: steps; 0 = the environment's.
  """
  del key
  mdp = env.mdp
  P_SAS, R_SA = (jnp.asarray(x, jnp.float32) for x in (mdp.transition_SAS, mdp.reward_SA))
  policy_SA = jax.vmap(lambda s: agent.policy(state, s))(jnp.arange(env.n_states))
  P_SS = jnp.einsum("sa,sat->st", policy_SA, P_SAS)
  R_S = jnp.sum(policy_SA * R_SA, axis=1)
  V_S = jax.lax.fori_loop(0, horizon or env.horizon, lambda _, V: R_S + gamma * P_SS @ V,
                          jnp.zeros_like(R_S))
  found = V_S @ jnp.asarray(mdp.start_S, jnp.float32)
  if gamma == 1:
    return {"return": found}
  best = float(mdp.start_S @ plan.solve(mdp, gamma)[0])
  return {"return": found, "share": found / np.float32(best)}


def _walks(env: env_lib.Env, key: Array, count: int, steps: int):
  """States [count, ...] after so many random steps from as many starts, episodes following on."""
  act, advance = env_lib.random_actions(env), env_lib.auto_reset(env)

  def one(key):
    first, key = jax.random.split(key)

    def step(state, key):
      for_act, for_step = jax.random.split(key)
      return advance(state, act(None, for_act)[0], for_step)[0], None
    return jax.lax.scan(step, env.reset(first), jax.random.split(key, steps))[0]
  return jax.vmap(one)(jax.random.split(key, count))


def _viewed(env: env_lib.Env, agent: agent_lib.Agent, state, states, view: str) -> Array:
  """What the agent's view says of each state, flat [N, D]."""
  return jax.vmap(lambda s: agent.views[view](state, env.observe(s)).reshape(-1))(states)


def probe(env: env_lib.Env, agent: agent_lib.Agent, state, key: Array, *, view: str = "latent",
          count: int = 1500, held_out: int = 500, steps: int = 12, ridge: float = 100.0
          ) -> dict[str, Array]:
  """How much of the facts a linear map of a frozen view tells: held-out error over variance.

  Ridge regression from the view's values (and 1) to `env.facts`, on states of random play. "error"
  is the mean of squared errors over the mean variance: 0 = all is told, 1 = no better than the
  mean.

  Args:
    view: of `Agent.views`.
    count, held_out: states to fit and to judge. steps: random steps that lead to each.
    ridge: weight of the squared coefficients, in units of the view's mean variance.

  Raises:
    KeyError: the agent has no such view. TypeError: the environment tells no facts.
  """
  states = _walks(env, key, count + held_out, steps)
  x_ND = _viewed(env, agent, state, states, view)
  y_NF = jax.vmap(env.facts)(states)
  x_ND = x_ND - jnp.mean(x_ND[:count], axis=0, keepdims=True)
  x_ND = x_ND / jnp.sqrt(jnp.mean(x_ND[:count] ** 2) + 1e-8)
  mean_1F = jnp.mean(y_NF[:count], axis=0, keepdims=True)
  gram = x_ND[:count].T @ x_ND[:count] + ridge * jnp.eye(x_ND.shape[1])
  w_DF = jnp.linalg.solve(gram, x_ND[:count].T @ (y_NF[:count] - mean_1F))
  error = jnp.mean((x_ND[count:] @ w_DF + mean_1F - y_NF[count:]) ** 2)
  return {"error": error / jnp.mean((y_NF[count:] - mean_1F) ** 2)}


def spread(env: env_lib.Env, agent: agent_lib.Agent, state, key: Array, *,
           view: str = "projection", count: int = 500, steps: int = 12) -> dict[str, Array]:
  """Has a view collapsed? Mean standard deviation of its dimensions, of vectors of length 1.

  "std" is times the root of the dimension, so that directions that are spread evenly have 1
  whatever the width; a view that is the same for all states has 0.

  Args:
    view: of `Agent.views`. count: states of random play. steps: that lead to each.
  """
  x_ND = _viewed(env, agent, state, _walks(env, key, count, steps), view)
  x_ND = x_ND / jnp.maximum(jnp.linalg.norm(x_ND, axis=1, keepdims=True), 1e-6)
  return {"std": jnp.mean(jnp.std(x_ND, axis=0)) * x_ND.shape[1] ** 0.5}
