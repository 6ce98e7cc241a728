"""Pallas TPU kernels: every array of the loss is read once, forward and backward."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rljax_kernels.pg_loss import terms

ROWS, TOKENS, SUMS = 64, 1024, 8  # of a block; columns of the sums


def _inside(shape, tokens):
  """Which tokens of the block exist: the last block may reach beyond the end."""
  at = pl.program_id(1) * shape[1] + jax.lax.broadcasted_iota(jnp.int32, shape, 1)
  return at < tokens


def _forward_kernel(logp, old, adv, mask, ref, weight, out, *, options, tokens):
  on = jnp.where(_inside(mask.shape, tokens), mask[...], 0.0)
  t = terms.token(logp[...], old[...], adv[...], on, ref[...], weight[...], options)

  @pl.when(pl.program_id(1) == 0)
  def _():
    out[...] = jnp.zeros_like(out)

  total = lambda x: jnp.sum(x, axis=1, keepdims=True)
  lane = jax.lax.broadcasted_iota(jnp.int32, out.shape, 1)
  new = out[...]
  for i, x in enumerate((t.loss, on, t.ratio, None, t.low, t.high, t.kl)):
    if x is None:
      new = jnp.where(lane == i, jnp.maximum(new, jnp.max(t.ratio, axis=1, keepdims=True)), new)
    else:
      new = jnp.where(lane == i, new + total(x), new)
  out[...] = new


def _backward_kernel(logp, old, adv, mask, ref, weight, grad, out, *, options, tokens):
  on = jnp.where(_inside(mask.shape, tokens), mask[...], 0.0)
  t = terms.token(logp[...], old[...], adv[...], on, ref[...], weight[...], options)
  out[...] = grad[...] * t.slope


def _call(kernel, args, extra, out_width, *, name, semantics, options, interpret):
  B, T = args[0].shape
  rows, t = -(-B // ROWS) * ROWS, T if T <= TOKENS else TOKENS
  pad = lambda x: jnp.pad(x.astype(jnp.float32), ((0, rows - B), (0, 0)))
  tokens = pl.BlockSpec((ROWS, t), lambda i, j: (i, j))
  row = lambda width: pl.BlockSpec((ROWS, width), lambda i, j: (i, 0))
  out = pl.pallas_call(
      functools.partial(kernel, options=options, tokens=T), grid=(rows // ROWS, pl.cdiv(T, t)),
      in_specs=[tokens] * len(args) + [row(1)] * len(extra),
      out_specs=row(out_width) if out_width else tokens,
      out_shape=jax.ShapeDtypeStruct((rows, out_width or T), jnp.float32),
      compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", semantics)),
      name=name, interpret=interpret)(*map(pad, (*args, *extra)))
  return out[:B]


def forward(*args, options, interpret):
  """The columns of `op.Sums`, from logp, old, adv, mask, ref, weight [B, T]."""
  out = _call(_forward_kernel, args, (), SUMS, name="pg_token_loss_forward", semantics="arbitrary",
              options=options, interpret=interpret)
  return out.T[:7]


def backward(*args, options, interpret):
  """The gradient to logp, from the same and the gradient to the loss of each row [B]."""
  return _call(_backward_kernel, args[:-1], (args[-1][:, None],), 0, name="pg_token_loss_backward",
               semantics="parallel", options=options, interpret=interpret)
