"""Temporal-difference targets and losses, per row. Letters: B rows, A actions, M atoms."""

import jax
import jax.numpy as jnp

from rljax.types import Array


def bootstrap(q_BA: Array, chooser_BA: Array) -> Array:
  """q of the action that `chooser` prefers, [B]: Q-learning, or double Q-learning with two nets.

  https://arxiv.org/abs/1509.06461 equation 4: the online net chooses, the target net judges.
  """
  best_B1 = jnp.argmax(chooser_BA, axis=-1)[:, None]
  return jnp.take_along_axis(q_BA, best_B1, axis=-1)[:, 0]


def huber(error: Array, *, delta: float = 1.0) -> Array:
  """error^2 / 2 up to |error| = delta, linear beyond, elementwise."""
  size = jnp.abs(error)
  inside = jnp.minimum(size, delta)
  return 0.5 * inside**2 + delta * (size - inside)


def project(prob_BM: Array, return_B: Array, discount_B: Array, support_M: Array) -> Array:
  """The distribution of return + discount * z on the fixed support, [B, M].

  C51, https://arxiv.org/abs/1707.06887 equation 7: what falls between two atoms is shared in
  proportion to nearness, what falls outside goes to the end. Written as a triangular kernel, which
  has no special case for a point on an atom.

  Args:
    prob_BM: probabilities of the atoms z at the next state.
    return_B, discount_B: of the n steps in between.
    support_M: atoms, evenly spaced, ascending.
  """
  gap = support_M[1] - support_M[0]
  moved_BM = return_B[:, None] + discount_B[:, None] * support_M[None]
  moved_BM = jnp.clip(moved_BM, support_M[0], support_M[-1])
  near_BMM = 1.0 - jnp.abs(moved_BM[:, :, None] - support_M[None, None]) / gap
  return jnp.sum(prob_BM[:, :, None] * jnp.maximum(near_BMM, 0.0), axis=1)


def cross_entropy(target_BM: Array, logits_BM: Array) -> Array:
  """-sum_m target log softmax(logits), [B]: C51's loss."""
  return -jnp.sum(jax.lax.stop_gradient(target_BM) * jax.nn.log_softmax(logits_BM), axis=-1)


def expected(logits_BAM: Array, support_M: Array) -> Array:
  """The mean of each action's distribution, [B, A]."""
  return jnp.sum(jax.nn.softmax(logits_BAM) * support_M[None, None], axis=-1)


def polyak(target, online, *, step: float):
  """target + step (online - target), leaf by leaf: step = 1 copies, 0 freezes."""
  return jax.tree.map(lambda t, o: t + step * (o - t), target, online)
