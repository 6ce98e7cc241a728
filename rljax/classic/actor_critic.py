"""Policy gradients in jnp environments, by the objectives and advantages of the language models.

An episode of a seat is a row, a decision is a token: what is known there of REINFORCE, PPO or GAE
holds here without a line of its own.
"""

import dataclasses
import functools
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
    reward: (state, episodes just played) -> what the learner is paid, float [N, T].
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
  learner = _Learner(env, policy(env, env.n_actions), critic(env, 1) if critic else None,
                     shaping(env) if shaping else None)
  optimizers = {"policy": optimizer(), "critic": critic_optimizer()}
  keep = max(batch, episodes, learner.shaped.keep if learner.shaped else 0)
  update = step_lib.make(learner.stats, objective, optimizers["policy"])
  fit = step_lib.make(learner.values, value_objective, optimizers["critic"], monitors=False)

  def learn(state, rows):
    if critic:
      rows = rows.replace(value_BT=learner.values(state["critic"].params, rows).value_BT)
    rows = jax.lax.stop_gradient(advantage(rows))
    state["policy"], metrics = update(state["policy"], rows)
    if critic:
      state["critic"], more = fit(state["critic"], rows)
      metrics |= {f"critic/{k}": m for k, m in more.items()}
    return state, metrics

  def step(state, key):
    fresh = env_lib.play(env, functools.partial(learner.act, state["policy"].params), key, episodes)
    state, kept = learner.remember(state, fresh, episodes)
    newest = jax.tree.map(lambda x: x[keep - batch:], (kept, state["paid"]))
    state, metrics = learn(state, _batch(*newest, gamma, env.seats))
    reward, length = jnp.sum(fresh.reward) / env.seats, jnp.sum(fresh.mask_NT)
    return state, {**metrics, "reward/mean": types.Mean(reward, jnp.float32(episodes)),
                   "episode/length": types.Mean(length, jnp.float32(episodes))}

  return agent_lib.Agent(
      lambda key: learner.init(key, optimizers, keep), step, learner.policy,
      episodes * env.horizon,
      redesign=learner.redesign if learner.shaped and learner.shaped.redesign else None)


@dataclasses.dataclass(frozen=True)
class _Learner:
  """The networks of an agent, one set of weights per seat, and its shaping."""

  env: env_lib.Env
  net: nets.Net
  critic: nets.Net | None
  shaped: Shaping | None

  def stats(self, params, rows: Batch) -> TokenStats:
    logp_BTA = jax.nn.log_softmax(_by_seat(self.net.apply, params, rows.inputs, self.env.seats))
    logp_BT = jnp.take_along_axis(logp_BTA, rows.actions_BT[..., None], axis=-1)[..., 0]
    return TokenStats(logp_BT, entropy_BT=-jnp.sum(jnp.exp(logp_BTA) * logp_BTA, axis=-1))

  def values(self, params, rows: Batch) -> TokenStats:
    value_BT = _by_seat(self.critic.apply, params, rows.inputs, self.env.seats)[..., 0]
    return TokenStats(jnp.zeros_like(value_BT), value_BT=value_BT)

  def probabilities(self, params, obs: Array) -> Array:
    """[A], or [seats, A]."""
    seats = self.env.seats
    prob = jax.nn.softmax(jax.vmap(self.net.apply)(params, obs if seats > 1 else obs[None]))
    return prob if seats > 1 else prob[0]

  def act(self, params, obs: Array, key: Array) -> tuple[Array, Array]:
    return agent_lib.draw(self.probabilities(params, obs), key)

  def policy(self, state, obs: Array) -> Array:
    return self.probabilities(state["policy"].params, obs)

  def init(self, key: Array, optimizers, keep: int) -> dict:
    keys = jax.random.split(key, 4)
    per_seat = lambda init, k: jax.vmap(init)(jax.random.split(k, self.env.seats))
    params = per_seat(self.net.init, keys[0])
    like = jax.eval_shape(lambda k: env_lib.play(
        self.env, functools.partial(self.act, params), k, keep), keys[1])
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    state = {"policy": step_lib.init_state(params, optimizers["policy"]), "episodes": empty,
             "paid": jnp.zeros_like(empty.reward)}
    if self.critic:
      state["critic"] = step_lib.init_state(per_seat(self.critic.init, keys[2]),
                                            optimizers["critic"])
    if self.shaped:
      state["shaping"] = self.shaped.init(keys[3])
    return state

  def remember(self, state, fresh: env_lib.Episodes, episodes: int) -> tuple:
    """The state with the new episodes and what they are paid, and all that are kept."""
    paid = self.shaped.reward(state["shaping"], fresh) if self.shaped else fresh.reward
    kept, paid = jax.tree.map(lambda old, new: jnp.concatenate([old, new])[episodes:],
                              (state["episodes"], state["paid"]), (fresh, paid))
    state = {**state, "episodes": kept, "paid": paid}
    if self.shaped:
      prob = jax.vmap(jax.vmap(functools.partial(self.policy, state)))(kept.obs)
      state["shaping"] = self.shaped.learn(state["shaping"], kept, prob, episodes)
    return state, kept

  def redesign(self, state, step: int) -> dict:
    ids = jnp.arange(self.env.n_states)
    policy_SA = jax.device_get(jax.vmap(functools.partial(self.policy, state))(ids))
    return {**state, "shaping": self.shaped.redesign(
        state["shaping"], policy_SA.astype(float), step)}


def _rows(x: Array, seats: int) -> Array:
  """[N, T, seats, ...] as [N * seats, T, ...]; as it is for one seat."""
  return x if seats == 1 else jnp.moveaxis(x, 2, 1).reshape(-1, x.shape[1], *x.shape[3:])


def _by_seat(apply: Callable, params, rows_BT: Array, seats: int) -> Array:
  """Outputs [B, T, ...] of rows that are episode-major, by the weights of each row's seat."""
  split = rows_BT.reshape(-1, seats, *rows_BT.shape[1:])
  each = jax.vmap(jax.vmap(apply, in_axes=(None, 0)), in_axes=(None, 0))
  out = jax.vmap(each, in_axes=(0, 1), out_axes=1)(params, split)
  return out.reshape(-1, *out.shape[2:])


def _batch(kept: env_lib.Episodes, paid: Array, gamma: float, seats: int) -> Batch:
  """Rows are (episode, seat), episodes that were not played yet are invalid; groups are seats."""
  mask_BT = jnp.repeat(kept.mask_NT, seats, axis=0)
  later_BT = jnp.pad(mask_BT[:, 1:], ((0, 0), (0, 1)))
  seat_B = jnp.tile(jnp.arange(seats), kept.mask_NT.shape[0])
  return Batch(
      inputs=_rows(kept.obs, seats), actions_BT=_rows(kept.action, seats), mask_BT=mask_BT,
      behav_logp_BT=_rows(kept.logp, seats), reward_BT=_rows(paid, seats),
      discount_BT=gamma * later_BT, adv_BT=jnp.zeros_like(mask_BT),
      valid_B=(mask_BT[:, 0] > 0).astype(jnp.float32), group_B=seat_B)
