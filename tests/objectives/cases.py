"""Small batches, and what all tests of objectives do with them. Arrays are numpy float64.

The tests run in 64 bits and without jit. Every primitive compiles once per shape, which is where
the time goes: use the shape [B, T] wherever you can, with invalid rows and masked tokens to pad.
"""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from rljax import types

B, T = 6, 5
X64 = pytest.mark.usefixtures("x64")


@pytest.fixture
def x64():
  """64 bits and no jit around the test (import the name, or list it in `usefixtures`)."""
  with jax.enable_x64(True):
    yield


def random_batch(seed: int = 0, *, rows: int = B, length: int = T, group: int = 3,
                 spread: float = 0.6, old: bool = True) -> tuple[types.TokenStats, types.Batch]:
  """Ragged rows (lengths 1..length, one of each extreme), one untrained hole, groups of `group`."""
  r = np.random.default_rng(seed)
  lengths = r.integers(1, length + 1, rows)
  lengths[0], lengths[-1] = length, 1
  t = np.arange(length)[None, :]
  mask = (t < lengths[:, None]).astype(float)
  if length > 2:
    mask[0, 1] = 0.0  # a hole
  logp = -r.exponential(1.0, (rows, length)) - 0.05
  old_logp = logp + spread * r.standard_normal((rows, length))
  batch = types.Batch(
      inputs={"id": np.arange(rows)},
      actions_BT=r.integers(0, 50, (rows, length)).astype(np.int32),
      mask_BT=mask,
      behav_logp_BT=old_logp + 0.7 * r.standard_normal((rows, length)),
      reward_BT=np.where(t == lengths[:, None] - 1, r.standard_normal((rows, 1)), 0.0),
      discount_BT=np.where(t < lengths[:, None] - 1, 0.9, 0.0),
      adv_BT=r.standard_normal((rows, 1)) * np.ones((1, length)),
      valid_B=np.ones(rows),
      group_B=(np.arange(rows) // group).astype(np.int32),
      old_logp_BT=old_logp if old else None,
      ref_logp_BT=logp + 0.5 * r.standard_normal((rows, length)),
      value_BT=r.standard_normal((rows, length)),
      extras={"return_BT": r.standard_normal((rows, length)),
              "correct_B": (np.arange(rows) % 3 == 0).astype(float),
              "accuracy_B": np.full(rows, 1 / 3)},
  )
  stats = types.TokenStats(
      logp, entropy_BT=r.random((rows, length)), value_BT=r.standard_normal((rows, length)))
  return stats, batch


# --- evaluating -----------------------------------------------------------------------------------


def divide(loss: types.Loss) -> jax.Array:
  """What the train step does with a Loss."""
  weight = np.asarray(loss.weight)
  return loss.total / (weight if weight > 0 else 1.0)


def value(objective, stats, batch, **h) -> float:
  return float(divide(objective(stats, batch, **h)))


def value_and_gradient(objective, stats, batch, *, of: str = "logp_BT", **h):
  """total / weight, and its derivative by stats.<of>, as the train step computes them."""
  def total(x):
    loss = objective(dataclasses.replace(stats, **{of: x}), batch, **h)
    return loss.total, loss.weight
  (loss, weight), grad = jax.value_and_grad(total, has_aux=True)(
      jax.numpy.asarray(getattr(stats, of)))
  divisor = float(weight) if float(weight) > 0 else 1.0
  return float(loss) / divisor, np.asarray(grad) / divisor


def gradient(objective, stats, batch, **h) -> np.ndarray:
  return value_and_gradient(objective, stats, batch, **h)[1]


def metric(loss: types.Loss, name: str) -> float:
  return float(loss.metrics[name].compute())


# --- changing rows and columns --------------------------------------------------------------------


def rows(stats, batch, index):
  """The rows `index` of both (an index array or a slice)."""
  return jax.tree.map(lambda x: np.asarray(x)[index], (stats, batch))


def only(batch, index):
  """The batch with all rows but `index` invalid: a micro-batch without a new shape."""
  keep = np.zeros(np.shape(batch.valid_B))
  keep[list(index)] = 1.0
  return batch.replace(valid_B=np.asarray(batch.valid_B) * keep)


def map_tokens(change, stats, batch):
  """Applies `change` to every [B, T] array; others stay."""
  shape = np.shape(batch.mask_BT)
  return jax.tree.map(
      lambda x: change(np.asarray(x)) if np.shape(x) == shape else x, (stats, batch))


def pad(stats, batch, *, tokens: int = 0, padding_rows: int = 0, fill: float = np.nan):
  """Adds untrained tokens and invalid rows that hold `fill` wherever a float may."""
  def add(x):
    x = np.asarray(x)
    widths = [(0, padding_rows)] + ([(0, tokens)] + [(0, 0)] * (x.ndim - 2) if x.ndim > 1 else [])
    empty = fill if np.issubdtype(x.dtype, np.floating) else 0
    return np.pad(x, widths, constant_values=empty)
  s, b = jax.tree.map(add, (stats, batch))
  n, t = np.shape(batch.mask_BT)
  zeros = {name: np.nan_to_num(np.asarray(getattr(b, name)))
           for name in ("mask_BT", "reward_BT", "discount_BT", "valid_B")}
  group = np.asarray(b.group_B).copy()
  group[n:] = -1
  return s, b.replace(group_B=group, **zeros)


def hyperparameters(function) -> dict:
  """Its keyword-only parameters and their defaults."""
  parameters = inspect.signature(function).parameters.values()
  return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def public_functions(module) -> list[str]:
  """Names of the functions with hyperparameters that a module defines."""
  return [name for name, f in vars(module).items()
          if inspect.isfunction(f) and f.__module__ == module.__name__
          and not name.startswith("_") and hyperparameters(f)]


# --- aggregation, as loops ------------------------------------------------------------------------


def reduce_loops(loss, mask, how, constant=None) -> float:
  """`nums.aggregate` and its division, from the formulas, one token at a time."""
  total, used_rows, tokens = 0.0, 0, 0
  for i in range(len(loss)):
    row, count = 0.0, 0
    for t in range(len(loss[i])):
      if mask[i][t]:
        row, count = row + loss[i][t], count + 1
    if count:
      used_rows, tokens = used_rows + 1, tokens + count
      total += row / count if how == "seq-mean-token-mean" else row
  divisors = {"token-mean": tokens, "seq-mean-token-mean": used_rows,
              "seq-mean-token-sum": used_rows, "constant": used_rows * (constant or 1),
              "token-sum-constant": constant}
  return total / (divisors[how] or 1)
