"""Pallas TPU kernel: rows meet their group by comparing ids in VMEM, without sorting or scatter."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

ROWS, TOKENS = 128, 2048  # of a block


def _kernel(reward_1B, group_1B, valid_1B, own_ref, own_group_ref, own_valid_ref, mask_ref, out_ref,
            *, finish):
  own, valid = own_ref[...], own_valid_ref[...] > 0
  same = (own_group_ref[...] == group_1B[...]) & (valid_1B[...] > 0) & valid
  total = lambda x: jnp.sum(x, axis=1, keepdims=True)
  low = jnp.min(jnp.where(same, reward_1B[...], jnp.inf), axis=1, keepdims=True)
  low = jnp.where(valid, low, 0.0)
  shifted = jnp.where(same, reward_1B[...] - low, 0.0)
  count = total(same.astype(jnp.float32))
  mean = total(shifted) / jnp.maximum(count, 1.0)
  squares = total(jnp.where(same, (shifted - mean) * (shifted - mean), 0.0))
  adv = finish(jnp.where(valid, own - low - mean, 0.0), squares, count)
  out_ref[...] = jnp.where((mask_ref[...] > 0) & valid, adv, 0.0)


def group_advantages(reward_B, group_B, mask_BT, valid_B, *, finish, interpret):
  """As `op.group_advantages`; `finish` is `op.Options.finish`."""
  B, T = mask_BT.shape
  rows = -(-B // ROWS) * ROWS
  pad = lambda x: jnp.pad(x, [(0, rows - B)] + [(0, 0)] * (x.ndim - 1))
  columns = [pad(x) for x in (reward_B.astype(jnp.float32), group_B, valid_B)]
  t = T if T <= TOKENS else TOKENS
  line = pl.BlockSpec((1, rows), lambda i, j: (0, 0))
  own = pl.BlockSpec((ROWS, 1), lambda i, j: (i, 0))
  tokens = pl.BlockSpec((ROWS, t), lambda i, j: (i, j))
  out = pl.pallas_call(
      functools.partial(_kernel, finish=finish), grid=(rows // ROWS, pl.cdiv(T, t)),
      in_specs=[line] * 3 + [own] * 3 + [tokens], out_specs=tokens,
      out_shape=jax.ShapeDtypeStruct((rows, T), jnp.float32),
      compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
      name="group_advantages", interpret=interpret,
  )(*(x[None, :] for x in columns), *(x[:, None] for x in columns), pad(mask_BT))
  return out[:B]
