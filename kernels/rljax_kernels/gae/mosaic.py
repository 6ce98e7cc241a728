"""Pallas TPU kernel: time runs backwards through VMEM once; rows lie along the lanes."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

TOKENS, ROWS = 512, 128  # of a block


def _kernel(value_ref, reward_ref, discount_ref, mask_ref, adv_ref, state, *, lam, length):
  """`state`: V and A of the next trained token, and what was paid since the one before it."""
  chunk = pl.num_programs(1) - 1 - pl.program_id(1)

  @pl.when(pl.program_id(1) == 0)
  def _():
    state[...] = jnp.zeros_like(state)

  def step(k, carry):
    t = value_ref.shape[0] - 1 - k
    here = chunk * value_ref.shape[0] + t < length  # the last block may reach beyond the end
    value, reward, discount, mask = (
        jnp.where(here, ref[pl.ds(t, 1), :], 0.0)
        for ref in (value_ref, reward_ref, discount_ref, mask_ref))
    next_value, next_adv, late = carry
    on, hole = mask > 0, discount > 0
    adv = reward + late + discount * next_value - value + discount * lam * next_adv
    adv_ref[pl.ds(t, 1), :] = jnp.where(on, adv, 0.0)
    through = lambda new, old: jnp.where(on, new, jnp.where(hole, old, 0.0))
    return through(value, next_value), through(adv, next_adv), jnp.where(on, 0.0, late + reward)

  rows = tuple(state[pl.ds(i, 1), :] for i in range(3))
  for i, x in enumerate(jax.lax.fori_loop(0, value_ref.shape[0], step, rows)):
    state[pl.ds(i, 1), :] = x


def gae(value_BT, reward_BT, discount_BT, mask_BT, *, lam, interpret):
  """As `op.gae`, the advantages only; values must be 0 where the mask is."""
  B, T = mask_BT.shape
  t = min(TOKENS, -(-T // 8) * 8)
  chunks = pl.cdiv(T, t)
  block = pl.BlockSpec((t, ROWS), lambda i, j: (chunks - 1 - j, i))
  out = pl.pallas_call(
      functools.partial(_kernel, lam=lam, length=T), grid=(pl.cdiv(B, ROWS), chunks),
      in_specs=[block] * 4, out_specs=block, out_shape=jax.ShapeDtypeStruct((T, B), jnp.float32),
      scratch_shapes=[pltpu.VMEM((8, ROWS), jnp.float32)],
      compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
      name="gae", interpret=interpret,
  )(*(x.T.astype(jnp.float32) for x in (value_BT, reward_BT, discount_BT, mask_BT)))
  return out.T
