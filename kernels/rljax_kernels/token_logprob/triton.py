"""Pallas Triton kernels for GPUs: logits live in registers; only slices of their gradient are kept.

Forward: each program takes a block of tokens and streams the vocabulary by. Backward: per slice of
the vocabulary one kernel recomputes the logits and writes dL/dlogits [N, SLICE], and two library
matmuls take it to dh and dw: four products of the size of the forward's, as few as there can be
without keeping logits. Lowered and interpreted in the tests; speed on a GPU is not measured.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rljax_kernels.token_logprob import spec as spec_lib
from rljax_kernels.token_logprob import xla
from rljax_kernels.token_logprob.spec import Array, Cotangents, Spec, Stats

ROWS, COLUMNS, DEPTH = 64, 128, 64  # of a block of logits, and of one step of its product
SLICE = 4096  # columns of the gradient to the logits that exist at one time
PARAMS = plgpu.CompilerParams(num_warps=4, num_stages=3)


def fault(hidden: Array, unembed: Array, spec: Spec) -> str:
  """Why the kernels cannot take these arguments, or ""."""
  if hidden.shape[-1] % DEPTH:
    return f"a width of {hidden.shape[-1]} is not a multiple of {DEPTH}"
  for x in (hidden, unembed):
    if x.dtype not in (jnp.float32, jnp.bfloat16):
      return f"{x.dtype} is neither float32 nor bfloat16"
  return "it has no top_k" if spec.top_k else ""


def _logits(scalar_ref, h_ref, w_ref, at, vocab, spec):
  """A block of logits [ROWS, COLUMNS] from column `at` of w on; NEVER beyond its end."""
  columns = at + jnp.arange(COLUMNS)
  exact = jax.lax.Precision.HIGHEST if h_ref.dtype == jnp.float32 else None

  def add(k, a):
    h = plgpu.load(h_ref.at[:, pl.ds(k * DEPTH, DEPTH)])
    if spec.transposed:
      w = plgpu.load(w_ref.at[pl.ds(k * DEPTH, DEPTH), pl.ds(at, COLUMNS)],
                     mask=(columns < vocab)[None, :], other=0.0)
    else:
      w = plgpu.load(w_ref.at[pl.ds(at, COLUMNS), pl.ds(k * DEPTH, DEPTH)],
                     mask=(columns < vocab)[:, None], other=0.0).T
    return a + plgpu.dot(h, w.astype(h.dtype), precision=exact)

  a = jax.lax.fori_loop(0, h_ref.shape[1] // DEPTH, add, jnp.zeros((ROWS, COLUMNS), jnp.float32))
  z = spec_lib.squash(a, scalar_ref[1], spec)
  return jnp.where((columns < vocab)[None, :], z, spec_lib.NEVER), columns[None, :]


# --- forward --------------------------------------------------------------------------------------


def _forward_kernel(scalar_ref, h_ref, w_ref, y_ref, *outs, vocab, spec):
  y = y_ref[...][:, None]

  def step(j, carry):
    moments, picked = carry
    z, columns = _logits(scalar_ref, h_ref, w_ref, j * COLUMNS, vocab, spec)
    picked += jnp.sum(jnp.where(columns == y, z, 0.0), axis=-1, keepdims=True)
    return spec_lib.merge_moments(*moments, z), picked

  zero = jnp.zeros((ROWS, 1), jnp.float32)
  start = ((zero + spec_lib.NEVER, zero, zero, zero), zero)
  moments, picked = jax.lax.fori_loop(0, pl.cdiv(vocab, COLUMNS), step, start)
  lse, entropy, var = spec_lib.finish_moments(*moments)
  for ref, x in zip(outs, (lse, picked, entropy, var), strict=True):
    ref[...] = jnp.sum(x, axis=-1)


def _pad_rows(x, value=0):
  pad = -x.shape[0] % ROWS
  return jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1), constant_values=value) if pad else x


def _scalars(temperature):
  return jnp.stack([temperature, 1.0 / temperature])


def forward(h_ND: Array, w: Array, y_N: Array, temperature: Array, *, spec: Spec,
            interpret: object = False) -> Stats:
  """See `spec.Stats`. `y_N` outside [0, V) matches no column; D a multiple of 64; no top_k."""
  (N, D), V = h_ND.shape, w.shape[spec.vocab_axis]
  h, y = _pad_rows(h_ND), _pad_rows(y_N, -1)
  row = pl.BlockSpec((ROWS,), lambda i: (i,))
  out = pl.pallas_call(
      functools.partial(_forward_kernel, vocab=V, spec=spec), grid=(h.shape[0] // ROWS,),
      in_specs=[pl.no_block_spec, pl.BlockSpec((ROWS, D), lambda i: (i, 0)), pl.no_block_spec, row],
      out_specs=[row] * 4, out_shape=[jax.ShapeDtypeStruct(y.shape, jnp.float32)] * 4,
      compiler_params=PARAMS, name="token_logprobs_forward_triton", interpret=interpret,
  )(_scalars(temperature), h, w, y)
  return Stats(*(x[:N] for x in out))


# --- backward -------------------------------------------------------------------------------------


def _dz_kernel(scalar_ref, h_ref, w_ref, y_ref, lse_ref, target_ref, base_ref, slope_ref, out_ref,
               *, vocab, spec):
  """A block of the gradient to the products h w; `vocab` columns are in this slice of w."""
  j = pl.program_id(1)
  z, columns = _logits(scalar_ref, h_ref, w_ref, j * COLUMNS, vocab, spec)
  lse, target, base, slope = (
      ref[...][:, None] for ref in (lse_ref, target_ref, base_ref, slope_ref))
  hit = columns == y_ref[...][:, None]
  dz = jnp.where(hit, target, 0.0) - jnp.exp(z - lse) * (base + slope * z)
  dz = spec_lib.unsquash(dz, z, scalar_ref[1], scalar_ref[0], spec)
  plgpu.store(out_ref.at[:, pl.ds(j * COLUMNS, COLUMNS)], dz.astype(out_ref.dtype),
              mask=columns < vocab)


def _dz(h, w, y, temperature, cotangents, spec, interpret):
  rows, v = h.shape[0], w.shape[spec.vocab_axis]
  row = pl.BlockSpec((ROWS,), lambda i, j: (i,))
  return pl.pallas_call(
      functools.partial(_dz_kernel, vocab=v, spec=spec),
      grid=(rows // ROWS, pl.cdiv(v, COLUMNS)),
      in_specs=[pl.no_block_spec, pl.BlockSpec((ROWS, h.shape[1]), lambda i, j: (i, 0)),
                pl.no_block_spec, *[row] * 5],
      out_specs=pl.BlockSpec((ROWS, v), lambda i, j: (i, 0)),
      out_shape=jax.ShapeDtypeStruct((rows, v), h.dtype), compiler_params=PARAMS,
      name="token_logprobs_backward_triton", interpret=interpret,
  )(_scalars(temperature), h, w, y, *cotangents)


def backward(h_ND: Array, w: Array, y_N: Array, temperature: Array, cotangents: Cotangents, *,
             spec: Spec, interpret: object = False) -> tuple[Array, Array]:
  """Gradients to h, float32 [N, D], and to w, in its own dtype. Arguments as in `forward`."""
  h, y = _pad_rows(h_ND), _pad_rows(y_N, -1)
  cotangents = Cotangents(*map(_pad_rows, cotangents))

  def part(at, v, carry):
    dh, dw = carry
    w_part = jax.lax.dynamic_slice_in_dim(w, at, v, spec.vocab_axis).astype(h.dtype)
    dz = _dz(h, w_part, y - at, temperature, cotangents, spec, interpret)
    dw_part = spec_lib.dot_weights(dz, h, spec).astype(dw.dtype)
    dw = jax.lax.dynamic_update_slice_in_dim(dw, dw_part, at, spec.vocab_axis)
    return dh + spec_lib.dot_back(dz, w_part, spec), dw

  dh, dw = xla.over(w.shape[spec.vocab_axis], SLICE, part,
                    (jnp.zeros(h.shape, jnp.float32), jnp.zeros_like(w)))
  return dh[:h_ND.shape[0]], dw
