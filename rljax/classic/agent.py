"""What the loop asks of an agent, and how metrics of many steps become one."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from rljax import types
from rljax.types import Array, Metric


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
  """A learner in an environment; an agent leaf is `(env, *, knobs) -> Agent`.

  The state is a pytree of arrays: weights, optimizer, replay, the environment's state; no keys.

  Attributes:
    init: key -> state.
    step: (state, key) -> (state, metrics): acts, then learns; one entry of the loop's scan.
    policy: (state, observation) -> probabilities of the actions when evaluated, [A] or [seats, A].
    frames: environment steps of one `step`, at most.
    views: name -> (state, observation) -> array, what probes look at.
    redesign: None, or host code (state as numpy, step) -> state, between the steps of the run.
  """

  init: Callable
  step: Callable
  policy: Callable
  frames: int
  views: Mapping[str, Callable] = dataclasses.field(default_factory=dict)
  redesign: Callable | None = None


def actor(agent: Agent, state) -> Callable:
  """`act` of `env.play` for the agent as it is evaluated."""
  return lambda obs, key: draw(agent.policy(state, obs), key)


def draw(prob: Array, key: Array) -> tuple[Array, Array]:
  """(action, its log-probability), for every leading axis of the probabilities [..., A]."""
  logp = jnp.log(jnp.maximum(prob, 1e-30))
  action = jax.random.categorical(key, logp, axis=-1)
  return action, jnp.take_along_axis(logp, action[..., None], axis=-1)[..., 0]


def folded(metrics: dict[str, Metric]) -> dict[str, Metric]:
  """Metrics with a leading axis, merged along it, each by its own rule."""
  rules = {types.Mean: jnp.sum, types.Sum: jnp.sum, types.Max: jnp.max, types.Min: jnp.min}
  def fold(metric):
    return jax.tree.map(lambda x: rules[type(metric)](x, axis=0), metric)
  return {k: fold(m) for k, m in metrics.items()}
