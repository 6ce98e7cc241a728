"""Optimizers as config leaves: an optax transformation, its schedule, and the clipping norm."""

from collections.abc import Callable
from typing import NamedTuple

import optax


class Optimizer(NamedTuple):
  """`tx` without clipping (the train step clips, since it needs the norm anyway); `schedule(count)`
  is the learning rate; gradients are clipped to global norm `max_norm`, 0 = off."""

  tx: optax.GradientTransformation
  schedule: Callable
  max_norm: float


def adamw(*, lr: float = 1e-3, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-8,
          weight_decay: float = 0.0, warmup: int = 0, decay: str = "constant", steps: int = 0,
          end: float = 0.0, max_norm: float = 1.0) -> Optimizer:
  """AdamW (https://arxiv.org/abs/1711.05101): linear warm-up, then constant, linear or cosine tail.

  Args:
    lr: peak learning rate. warmup: steps of linear rise from 0.
    decay: "constant", "linear" or "cosine"; the last two fall to `end * lr` at `steps`.
    max_norm: clip gradients to this global norm; 0 = off.

  Raises:
    ValueError: unknown decay, or a decay without `steps`.
  """
  if decay not in ("constant", "linear", "cosine"):
    raise ValueError(f"decay={decay!r}; one of constant, linear, cosine")
  if decay != "constant" and steps <= warmup:
    raise ValueError(f"decay={decay!r} needs steps > warmup, found steps={steps}, warmup={warmup}")
  tail = {"constant": lambda: optax.constant_schedule(lr),
          "linear": lambda: optax.linear_schedule(lr, end * lr, steps - warmup),
          "cosine": lambda: optax.cosine_decay_schedule(lr, steps - warmup, end)}[decay]()
  schedule = optax.join_schedules(
      [optax.linear_schedule(lr / warmup, lr, max(warmup - 1, 1)), tail],
      [warmup]) if warmup else tail
  return Optimizer(
      optax.adamw(schedule, b1, b2, eps, weight_decay=weight_decay), schedule, max_norm)


def sgd(*, lr: float = 1e-2, momentum: float = 0.0, max_norm: float = 0.0) -> Optimizer:
  """Plain SGD, for tests and tabular problems."""
  schedule = optax.constant_schedule(lr)
  return Optimizer(optax.sgd(schedule, momentum or None), schedule, max_norm)
