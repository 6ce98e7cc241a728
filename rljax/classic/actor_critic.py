"""Policy gradients in jnp environments, by the objectives and advantages of the language models.

An episode of a seat is a row, a decision is a token: what is known there of REINFORCE, PPO or GAE
holds here without a line of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import advantages, optim, types
from rljax import config as config_lib
from rljax.classic import agent as agent_lib
from rljax.classic import env as env_lib
from rljax.classic import nets
from rljax.objectives import pg
from rljax.objectives import value as value_lib
from rljax.train import step as step_lib
from rljax.types import Array, Batch, TokenStats


class Shaping(NamedTuple):
  """A reward for the learner that is not the environment's; a leaf is `(env, *, knobs) -> Shaping`.

  Attributes:
    init: key -> state, a pytree of arrays.
    reward: (state, episodes) -> what the learner maximises, shaped as `episodes.reward`.
    learn: (state, episodes, probabilities [N, T, A] of the policy before its update, fresh) ->
      state; episodes are the last `keep`, oldest first, `fresh` of them new, those with an all-zero
      mask not played yet.
    keep: episodes that `learn` sees; 0 = as many as the learner.
    redesign: None, or host code (state, policy float64 [S, A], step) -> state, between the run's
      steps.
  """

  init: Callable
  reward: Callable
  learn: Callable
  keep: int = 0
  redesign: Callable | None = None


def policy_gradient(env: env_lib.Env, *, policy: Callable = nets.table,
                    critic: Callable | None = None, advantage: Callable = advantages.returns,
                    objective: Callable = pg.reinforce,
                    value_objective: Callable = value_lib.clipped,
                    optimizer: Callable = optim.sgd, critic_optimizer: Callable = optim.sgd,
                    episodes: int = 2, batch: int = 2, gamma: float = 0.99,
                    shaping: Callable | None = None) -> agent_lib.Agent:
  """Plays `episodes`, then takes one step on the last `batch` of them (older ones again).

  Each seat has weights of its own.

  Args:
    policy: (env, outputs) -> `Net` of logits. critic: of one value; None = without.
    advantage: such as `advantages.returns`, or `advantages.gae` with a critic.
    objective: of the policy. value_objective: of the critic.
    optimizer, critic_optimizer: leaves of `rljax.optim`.
    episodes: played per step. batch: rows of an update, times the seats.
    gamma: discount per step.
    shaping: a leaf of `Shaping`; None = the environment's reward.

  Raises:
    ConfigError: an advantage that needs values without a critic, or shaping for several seats.
  """
  if "value" in types.needs_of(advantage) and critic is None:
    raise config_lib.ConfigError("the agent's advantage needs values: give it a critic")
  if shaping and env.seats > 1:
    raise config_lib.ConfigError("shaping is for environments of one seat")
  net = policy(env, env.n_actions)
  value_net = critic(env, 1) if critic else None
  shaped = shaping(env) if shaping else None
  keep = max(batch, episodes, shaped.keep if shaped else 0)
  optimizers = {"policy": optimizer(), "critic": critic_optimizer()}

  def logits(params, obs):
    return _by_seat(net.apply, params, obs, env.seats)

  def logp_fn(params, rows):
    logp_BTA = jax.nn.log_softmax(logits(params, rows.inputs))
    logp_BT = jnp.take_along_axis(logp_BTA, rows.actions_BT[..., None], axis=-1)[..., 0]
    return TokenStats(logp_BT, entropy_BT=-jnp.sum(jnp.exp(logp_BTA) * logp_BTA, axis=-1))

  def value_fn(params, rows):
    value_BT = _by_seat(value_net.apply, params, rows.inputs, env.seats)[..., 0]
    return TokenStats(jnp.zeros_like(value_BT), value_BT=value_BT)

  update = step_lib.make(logp_fn, objective, optimizers["policy"])
  fit = step_lib.make(value_fn, value_objective, optimizers["critic"], monitors=False)

  def act(params, obs, key):
    prob = jax.nn.softmax(_at_once(net.apply, params, obs, env.seats))
    return agent_lib.draw(prob, key)

  def init(key):
    keys = jax.random.split(key, 3)
    per_seat = lambda init_fn, k: jax.vmap(init_fn)(jax.random.split(k, env.seats))
    params = per_seat(net.init, keys[0])
    like = jax.eval_shape(lambda k: env_lib.play(
        env, lambda obs, key: act(params, obs, key), k, keep), keys[1])
    state = {"policy": step_lib.init_state(params, optimizers["policy"]),
             "episodes": jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)}
    if value_net:
      state["critic"] = step_lib.init_state(per_seat(value_net.init, keys[1]),
                                            optimizers["critic"])
    if shaped:
      state["shaping"] = shaped.init(keys[2])
    return state

  def step(state, key):
    fresh = env_lib.play(env, lambda obs, k: act(state["policy"].params, obs, k), key, episodes)
    kept = jax.tree.map(lambda old, new: jnp.concatenate([old, new])[episodes:],
                        state["episodes"], fresh)
    state = {**state, "episodes": kept}
    if shaped:
      prob = jax.nn.softmax(logits(state["policy"].params, _rows(kept.obs, env.seats)))
      state["shaping"] = shaped.learn(state["shaping"], kept, prob, episodes)
    reward = shaped.reward(state["shaping"], kept) if shaped else kept.reward
    rows = _batch(jax.tree.map(lambda x: x[keep - batch:], kept), reward[keep - batch:], gamma,
                  env.seats)
    if value_net:
      rows = rows.replace(value_BT=value_fn(state["critic"].params, rows).value_BT)
    rows = jax.lax.stop_gradient(advantage(rows))
    state["policy"], metrics = update(state["policy"], rows)
    if value_net:
      state["critic"], more = fit(state["critic"], rows)
      metrics |= {f"critic/{k}": m for k, m in more.items()}
    one = jnp.ones(())
    return state, {**metrics, "reward/mean": types.Mean(
        jnp.sum(fresh.reward) / (episodes * env.seats), one), "episode/length": types.Mean(
            jnp.sum(fresh.mask_NT) / episodes, one)}

  def probabilities(state, obs):
    return jax.nn.softmax(_at_once(net.apply, state["policy"].params, obs, env.seats))

  def redesign(state, index):
    policy_SA = jax.vmap(lambda s: probabilities(state, s))(jnp.arange(env.n_states))
    return {**state, "shaping": shaped.redesign(
        state["shaping"], jax.device_get(policy_SA).astype(float), index)}

  return agent_lib.Agent(init, step, probabilities, episodes * env.horizon,
                         redesign if shaped and shaped.redesign else None)


def _rows(x: Array, seats: int) -> Array:
  """[N, T, seats, ...] as [N * seats, T, ...]; as it is for one seat."""
  return x if seats == 1 else jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], *x.shape[3:])


def _by_seat(apply: Callable, params, rows_BT: Array, seats: int) -> Array:
  """Outputs [B, T, ...] of rows that are episode-major, by the weights of each row's seat."""
  split = rows_BT.reshape(-1, seats, *rows_BT.shape[1:])
  each = jax.vmap(jax.vmap(apply, in_axes=(None, 0)), in_axes=(None, 0))
  out = jax.vmap(each, in_axes=(0, 1), out_axes=1)(params, split)
  return out.reshape(-1, *out.shape[2:])


def _at_once(apply: Callable, params, obs: Array, seats: int) -> Array:
  """Outputs for one observation, [seats, ...] where there are several seats."""
  out = jax.vmap(apply)(params, obs if seats > 1 else obs[None])
  return out if seats > 1 else out[0]


def _batch(kept: env_lib.Episodes, reward: Array, gamma: float, seats: int) -> Batch:
  """Rows are (episode, seat), episodes that were not played yet are invalid; groups are seats."""
  mask_BT = jnp.repeat(kept.mask_NT, seats, axis=0)
  later_BT = jnp.pad(mask_BT[:, 1:], ((0, 0), (0, 1)))
  seat_B = jnp.tile(jnp.arange(seats), kept.mask_NT.shape[0])
  return Batch(
      inputs=_rows(kept.obs, seats), actions_BT=_rows(kept.action, seats), mask_BT=mask_BT,
      behav_logp_BT=_rows(kept.logp, seats), reward_BT=_rows(reward, seats),
      discount_BT=gamma * later_BT, adv_BT=jnp.zeros_like(mask_BT),
      valid_B=(mask_BT[:, 0] > 0).astype(jnp.float32), group_B=seat_B)
