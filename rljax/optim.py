"""Optimizers as config leaves: an optax transformation, its schedule, clipping, what is frozen."""

import fnmatch
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rljax.types import Array, PyTree

MOMENTS = ("float32", "bfloat16", "int8")


class Optimizer(NamedTuple):
  """`tx` without clipping (the train step clips, since it needs the norm anyway); `schedule(count)`
  is the learning rate; gradients are clipped to global norm `max_norm`, 0 = off; parameters whose
  path matches a pattern of `freeze` get no gradient and have no state."""

  tx: optax.GradientTransformation
  schedule: Callable
  max_norm: float
  freeze: tuple[str, ...] = ()


def adamw(*, lr: float = 1e-3, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-8,
          weight_decay: float = 0.0, warmup: int = 0, decay: str = "constant", steps: int = 0,
          end: float = 0.0, max_norm: float = 1.0, moments: str = "float32",
          freeze: tuple = ()) -> Optimizer:
  """AdamW (https://arxiv.org/abs/1711.05101): linear warm-up, then constant, linear or cosine tail.

  Args:
    lr: peak learning rate. warmup: steps of linear rise from 0.
    decay: "constant", "linear" or "cosine"; the last two fall to `end * lr` at `steps`.
    max_norm: clip gradients to this global norm; 0 = off.
    moments: how the two moments are stored: "float32", "bfloat16" or "int8" (one scale per row): 8,
      4 or 2 bytes per parameter. The last two round at random, so that small changes count.
    freeze: patterns of parameter paths that do not move, such as "embed" or "layers/norm*".

  Raises:
    ValueError: unknown decay or moments, or a decay without `steps`.
  """
  if decay not in ("constant", "linear", "cosine"):
    raise ValueError(f"decay={decay!r}; one of constant, linear, cosine")
  if decay != "constant" and steps <= warmup:
    raise ValueError(f"decay={decay!r} needs steps > warmup, found steps={steps}, warmup={warmup}")
  if moments not in MOMENTS:
    raise ValueError(f"moments={moments!r}; one of {', '.join(MOMENTS)}")
  tail = {"constant": lambda: optax.constant_schedule(lr),
          "linear": lambda: optax.linear_schedule(lr, end * lr, steps - warmup),
          "cosine": lambda: optax.cosine_decay_schedule(lr, steps - warmup, end)}[decay]()
  schedule = optax.join_schedules(
      [optax.linear_schedule(lr / warmup, lr, max(warmup - 1, 1)), tail],
      [warmup]) if warmup else tail
  adam = (optax.scale_by_adam(b1, b2, eps) if moments == "float32"
          else _scale_by_small_adam(b1, b2, eps, moments))
  tx = optax.chain(adam, optax.add_decayed_weights(weight_decay),
                   optax.scale_by_learning_rate(schedule))
  return Optimizer(tx, schedule, max_norm, tuple(freeze))


def sgd(*, lr: float = 1e-2, momentum: float = 0.0, max_norm: float = 0.0) -> Optimizer:
  """Plain SGD, for tests and tabular problems."""
  schedule = optax.constant_schedule(lr)
  return Optimizer(optax.sgd(schedule, momentum or None), schedule, max_norm)


# --- frozen parameters ----------------------------------------------------------------------------


def partition(params: PyTree, freeze: Sequence[str]) -> tuple[PyTree, PyTree]:
  """(moved, fixed): two trees of the same structure, None where the leaf is in the other.

  Raises:
    ValueError: a pattern that matches nothing, or nothing is left to move.
  """
  if not freeze:
    return params, jax.tree.map(lambda _: None, params)
  flat, structure = jax.tree_util.tree_flatten_with_path(params)
  paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
  for pattern in freeze:
    if not fnmatch.filter(paths, pattern):
      raise ValueError(f"freeze pattern {pattern!r} matches no parameter; there are: "
                       f"{', '.join(paths)}")
  fixed = [any(fnmatch.fnmatchcase(path, pattern) for pattern in freeze) for path in paths]
  if all(fixed):
    raise ValueError(f"freeze={tuple(freeze)} leaves nothing to train")
  pick = lambda want: jax.tree.unflatten(
      structure, [x if f == want else None for f, (_, x) in zip(fixed, flat)])
  return pick(False), pick(True)


def combine(moved: PyTree, fixed: PyTree) -> PyTree:
  """The inverse of `partition`."""
  return jax.tree.map(lambda a, b: b if a is None else a, moved, fixed, is_leaf=lambda x: x is None)


# --- moments of fewer bits ------------------------------------------------------------------------


class SmallAdamState(NamedTuple):
  """`mu` and the root of `nu` as stored; `mu_scale`, `nu_scale` [..., 1] per row (1s if bf16)."""

  count: Array
  mu: PyTree
  nu: PyTree
  mu_scale: PyTree
  nu_scale: PyTree


def _scale_by_small_adam(b1, b2, eps, moments) -> optax.GradientTransformation:
  """Adam whose moments live in bfloat16 or in 8 bits; the arithmetic stays float32.

  In the spirit of https://arxiv.org/abs/2110.02861, with one linear scale per row (last axis)
  instead of its blocks and code table, the root of the second moment instead of itself (half the
  dynamic range), and stochastic rounding instead of nearest: without it an average of slow decay
  never moves, since each change is below half a step.
  """
  top = {"bfloat16": None, "int8": 127.0}[moments]

  def store(x, key):
    """(stored, scale). The scale is that of the row's largest."""
    if top is None:
      return _round_to_bf16(x, key), jnp.ones((*x.shape[:-1], 1), jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), 1e-30) / top
    up = jnp.floor(x / scale + jax.random.uniform(key, x.shape))
    return jnp.clip(up, -top, top).astype(jnp.int8), scale

  def load(stored, scale):
    return stored.astype(jnp.float32) * scale

  def init(params):
    dtype = jnp.bfloat16 if top is None else jnp.int8
    zeros = lambda: jax.tree.map(lambda p: jnp.zeros(jnp.atleast_1d(p).shape, dtype), params)
    ones = lambda: jax.tree.map(lambda p: jnp.ones((*jnp.atleast_1d(p).shape[:-1], 1)), params)
    return SmallAdamState(jnp.zeros((), jnp.int32), zeros(), zeros(), ones(), ones())

  def update(grads, state, params=None):
    del params
    count = state.count + 1
    leaves, structure = jax.tree.flatten(grads)
    rows = zip(leaves, *map(jax.tree.leaves, state[1:]), strict=True)
    out, stored = [], []
    for i, (g, mu, nu, mu_scale, nu_scale) in enumerate(rows):
      g32 = jnp.atleast_1d(g).astype(jnp.float32)
      m = b1 * load(mu, mu_scale) + (1 - b1) * g32
      v = b2 * jnp.square(load(nu, nu_scale)) + (1 - b2) * jnp.square(g32)
      step = (m / (1 - b1**count)) / (jnp.sqrt(v / (1 - b2**count)) + eps)
      out.append(step.reshape(g.shape).astype(g.dtype))
      keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(jax.random.key(0), i), count))
      mu, mu_scale = store(m, keys[0])
      nu, nu_scale = store(jnp.sqrt(v), keys[1])
      if top is not None:  # a root below one step of the row would divide by nothing
        nu = jnp.maximum(nu, 1)
      stored.append((mu, nu, mu_scale, nu_scale))
    parts = [jax.tree.unflatten(structure, list(x)) for x in zip(*stored)]
    return jax.tree.unflatten(structure, out), SmallAdamState(count, *parts)

  return optax.GradientTransformation(init, update)


def _round_to_bf16(x: Array, key: Array) -> Array:
  """float32 to bfloat16, up or down at random in proportion to the distance."""
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  noise = jax.random.bits(key, x.shape, jnp.uint32) & 0xFFFF
  return jax.lax.bitcast_convert_type(
      ((bits + noise) >> 16).astype(jnp.uint16), jnp.bfloat16)
