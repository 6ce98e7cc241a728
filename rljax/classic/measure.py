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
