"""Pallas TPU kernels: logits live in VMEM only, forward and backward.

Forward: for each block of tokens the vocabulary streams by, and the softmax is taken online.
Backward, one pass of three matmuls per block of logits: for each block of the vocabulary the tokens
stream by; dw stays in VMEM until its block is done, dh (float32 [N, D] in HBM) is read, added to
and written back by copies that run behind the matmuls. Temporaries are O(N D), never O(N V).
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rljax_kernels.token_logprob import spec as spec_lib
from rljax_kernels.token_logprob.spec import Array, Cotangents, Spec, Stats

MIN_VOCAB = 4096  # below, all logits of a block of tokens are as small as its hidden states
LANES, SUBLANES = 128, 16  # of a bfloat16 tile
PIECE = 512  # columns of D per matmul of the backward: bounds what a product needs besides its sum

BLOCKS = json.loads((pathlib.Path(__file__).parent / "blocks.json").read_text())


def fault(hidden: Array, unembed: Array, device_kind: str) -> str:
  """Why the kernels cannot take these arguments on this kind of device, or ""."""
  D = hidden.shape[-1]
  if D % LANES:
    return f"a width of {D} is not a multiple of {LANES}"
  for x in (hidden, unembed):
    if x.dtype not in (jnp.float32, jnp.bfloat16):
      return f"{x.dtype} is neither float32 nor bfloat16"
  sizes = hidden.dtype.itemsize, unembed.dtype.itemsize
  limit = BLOCKS.get(device_kind, BLOCKS["default"])["vmem_mib"] * 2**20
  if _bytes("backward", SUBLANES, LANES, D, *sizes) > limit:
    return f"blocks of width {D} do not fit into the {limit >> 20} MiB of VMEM it may use"
  return ""


def _up(n, multiple):
  return -(-n // multiple) * multiple


def _bytes(name, n, v, D, hidden, weights):
  """VMEM of a kernel with blocks of n tokens and v columns; inputs and outputs are buffered twice.
  """
  size = 2 * n * D * hidden + 2 * v * D * weights + 6 * n * v * 4
  if weights != hidden:
    size += v * D * hidden  # the block in the dtype of the products
  if name == "backward":
    size += v * D * (4 + 2 * weights) + 2 * n * D * 4 + (n + v) * PIECE * 4
  return size


def blocks(name: str, device_kind: str, N: int, D: int, V: int, hidden: int,
           weights: int) -> tuple[int, int, int]:
  """Block of tokens, block of the vocabulary, and VMEM in bytes that the kernel may use.

  Args:
    name: "forward" or "backward".
    device_kind: as jax names it; unknown kinds get the entry "default" of blocks.json.
    N, D, V: sizes. hidden, weights: bytes per element.
  """
  entry = BLOCKS.get(device_kind, BLOCKS["default"])
  n, v = entry[name]
  limit = entry["vmem_mib"] * 2**20
  n = min(n, _up(N, SUBLANES))
  if name == "backward":  # at least two blocks of tokens: see the kernel
    n = min(n, _up(-(-N // 2), SUBLANES))
  v = min(v, _up(V, LANES))
  while _bytes(name, n, v, D, hidden, weights) > limit and (n > SUBLANES or v > LANES):
    n, v = (n, _up(v // 2, LANES)) if v >= n and v > LANES else (_up(n // 2, SUBLANES), v)
  return n, v, limit


def _pad_rows(x, rows, value=0):
  pad = rows - x.shape[0]
  return jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1), constant_values=value) if pad else x


def _precision(dtype):
  return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def _logits(scalar_ref, h, w, spec):
  return spec_lib.squash(spec_lib.dot_w(h, w, spec, _precision(h.dtype)), scalar_ref[0, 1], spec)


def _columns(z, v):
  """Vocabulary ids of the block's columns, [n, v]."""
  return v * z + jax.lax.broadcasted_iota(jnp.int32, (1, v), 1)


# --- forward --------------------------------------------------------------------------------------


def _forward_kernel(scalar_ref, h_ref, w_ref, y_ref, out_ref, *rest, vocab, spec):
  *top_out, moments, picked, top_z, top_ids = rest
  j, v = pl.program_id(1), w_ref.shape[spec.vocab_axis]

  @pl.when(j == 0)
  def _():
    moments[...] = jnp.zeros_like(moments)
    moments[0] = jnp.full(moments.shape[1:], spec_lib.NEVER, jnp.float32)
    picked[...] = jnp.zeros_like(picked)
    top_z[...] = jnp.full(top_z.shape, spec_lib.NEVER, jnp.float32)
    top_ids[...] = jnp.zeros_like(top_ids)

  h = h_ref[...]
  z = _logits(scalar_ref, h, w_ref[...].astype(h.dtype), spec)
  ids = _columns(j, v)
  if vocab % v:
    z = jnp.where(ids < vocab, z, spec_lib.NEVER)
  hit = jnp.where(ids == y_ref[...], z, 0.0)
  picked[...] += jnp.sum(hit, axis=-1, keepdims=True)
  merged = spec_lib.merge_moments(*(moments[i] for i in range(4)), z)
  for i, x in enumerate(merged):
    moments[i] = x
  if spec.top_k:
    _merge_top(z, ids, top_z, top_ids, spec.top_k)

  @pl.when(j == pl.num_programs(1) - 1)
  def _():
    lse, entropy, var = spec_lib.finish_moments(*(moments[i] for i in range(4)))
    lane = jax.lax.broadcasted_iota(jnp.int32, out_ref.shape, 1)
    out = jnp.zeros(out_ref.shape, jnp.float32)
    for i, x in enumerate((lse, picked[...], entropy, var)):
      out = jnp.where(lane == i, x, out)
    out_ref[...] = out
    for ref, kept in zip(top_out, (top_z, top_ids)):
      ref[...] = kept[...]


def _merge_top(z, ids, top_z, top_ids, k):
  """Merges a block into the kept k largest, in k rounds; ties go to the lower id."""
  kept, kept_ids = top_z[...], top_ids[...]
  lane = jax.lax.broadcasted_iota(jnp.int32, kept.shape, 1)
  new, new_ids = jnp.full(kept.shape, spec_lib.NEVER, jnp.float32), jnp.zeros_like(kept_ids)
  big = jnp.iinfo(jnp.int32).max
  for i in range(k):
    block_max, kept_max = (jnp.max(x, axis=-1, keepdims=True) for x in (z, kept))
    block_id = jnp.min(jnp.where(z == block_max, ids, big), axis=-1, keepdims=True)
    kept_at = jnp.min(jnp.where(kept == kept_max, lane, big), axis=-1, keepdims=True)
    kept_id = jnp.sum(jnp.where(lane == kept_at, kept_ids, 0), axis=-1, keepdims=True)
    fresh = block_max > kept_max
    new = jnp.where(lane == i, jnp.maximum(block_max, kept_max), new)
    new_ids = jnp.where(lane == i, jnp.where(fresh, block_id, kept_id), new_ids)
    z = jnp.where(fresh & (ids == block_id), spec_lib.NEVER, z)
    kept = jnp.where(~fresh & (lane == kept_at), spec_lib.NEVER, kept)
  top_z[...], top_ids[...] = new, new_ids


def forward(h_ND: Array, w: Array, y_N: Array, temperature: Array, *, spec: Spec,
            device_kind: str, interpret: object = False) -> Stats:
  """See `spec.Stats`. `y_N` outside [0, V) matches no column.

  Args:
    h_ND: float32 or bfloat16, D a multiple of 128. w: [V, D], or [D, V] if `spec.transposed`.
    y_N: int32 [N]. temperature: float32 scalar.
    device_kind: chooses the block sizes. interpret: see `pl.pallas_call`.
  """
  (N, D), V = h_ND.shape, w.shape[spec.vocab_axis]
  n, v, limit = blocks("forward", device_kind, N, D, V, h_ND.dtype.itemsize, w.dtype.itemsize)
  rows = _up(N, n)
  h, y = _pad_rows(h_ND, rows), _pad_rows(y_N, rows, -1)[:, None]
  w_spec = (pl.BlockSpec((D, v), lambda i, j: (0, j)) if spec.transposed
            else pl.BlockSpec((v, D), lambda i, j: (j, 0)))
  of_tokens = lambda width: pl.BlockSpec((n, width), lambda i, j: (i, 0))
  tops = [jnp.float32, jnp.int32] if spec.top_k else []
  out = pl.pallas_call(
      functools.partial(_forward_kernel, vocab=V, spec=spec),
      grid=(rows // n, pl.cdiv(V, v)),
      in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), of_tokens(D), w_spec, of_tokens(1)],
      out_specs=[of_tokens(8), *[of_tokens(LANES) for _ in tops]],
      out_shape=[jax.ShapeDtypeStruct((rows, 8), jnp.float32),
                 *[jax.ShapeDtypeStruct((rows, LANES), t) for t in tops]],
      scratch_shapes=[pltpu.VMEM((4, n, 1), jnp.float32), pltpu.VMEM((n, 1), jnp.float32),
                      pltpu.VMEM((n, LANES), jnp.float32), pltpu.VMEM((n, LANES), jnp.int32)],
      compiler_params=pltpu.CompilerParams(
          dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=limit),
      cost_estimate=pl.CostEstimate(
          flops=2 * N * D * V, transcendentals=N * V,
          bytes_accessed=h.nbytes + w.nbytes * (rows // n)),
      name="token_logprobs_forward", interpret=interpret,
  )(_scalars(temperature), h, w, y)
  stats = Stats(*out[0][:N, :4].T)
  return stats._replace(top_z=out[1][:N, :spec.top_k],
                        top_ids=out[2][:N, :spec.top_k]) if spec.top_k else stats


def _scalars(temperature):
  return jnp.stack([temperature, 1.0 / temperature])[None, :]


# --- backward -------------------------------------------------------------------------------------


def _backward_kernel(scalar_ref, h_ref, w_ref, y_ref, tok_ref, dw_ref, dh_hbm, dw_acc, dh_buf,
                     reads, writes, *, vocab, spec):
  i, j = pl.program_id(0), pl.program_id(1)
  parts, blocks_n = pl.num_programs(0), pl.num_programs(1)
  n, v = h_ref.shape[0], w_ref.shape[spec.vocab_axis]
  step = i * blocks_n + j
  slot = jax.lax.rem(step, 2)

  def rows(block):
    return dh_hbm.at[pl.ds(pl.multiple_of(block * n, n), n)]
  read = lambda block, slot: pltpu.make_async_copy(rows(block), dh_buf.at[slot], reads.at[slot])
  write = lambda block, slot: pltpu.make_async_copy(dh_buf.at[slot], rows(block), writes.at[slot])

  h = h_ref[...]
  ids = _columns(i, v)
  dz = _dz(scalar_ref, h, w_ref[...].astype(h.dtype), ids, y_ref[...], tok_ref[...], spec)
  if vocab % v:
    dz = jnp.where(ids < vocab, dz, jnp.zeros_like(dz))
  _add_dw(dw_acc, dw_ref, dz, h_ref, j, blocks_n, spec)

  # This step's rows of dh were asked for at the end of the step before.
  pl.when(i > 0)(lambda: read(j, slot).wait())
  add = functools.partial(_add_dh, dh_buf.at[slot], dz, w_ref, i, vocab, spec)
  pl.when(i == 0)(lambda: add(first=True))
  pl.when(i > 0)(lambda: add(first=False))
  write(j, slot).start()
  # The other buffer is free once its write is done. The rows to read next were written
  # `blocks_n` >= 2 steps before that step, so their write too has been waited for by now.
  pl.when(step > 0)(lambda: write(jax.lax.rem(j + blocks_n - 1, blocks_n), 1 - slot).wait())
  more = (step + 1 >= blocks_n) & (step + 1 < parts * blocks_n)
  pl.when(more)(lambda: read(jax.lax.rem(j + 1, blocks_n), 1 - slot).start())
  pl.when(step == parts * blocks_n - 1)(lambda: write(j, slot).wait())


def _dz(scalar_ref, h, w, ids, y, tok, spec):
  """The gradient to the products h w of a block, [n, v] in the dtype of h."""
  z = _logits(scalar_ref, h, w, spec)
  c = Cotangents(*(tok[:, k:k + 1] for k in range(4)))
  dz = jnp.where(ids == y, c.target, 0.0) - jnp.exp(z - c.lse) * (c.base + c.slope * z)
  dz = spec_lib.unsquash(dz, z, scalar_ref[0, 1], scalar_ref[0, 0], spec)
  return dz.astype(h.dtype)


def _over_pieces(D, body):
  """body(columns) for all columns of D: a loop, so that compilation does not grow with D."""
  size = next(s for s in (PIECE, PIECE // 2, LANES) if D % s == 0)

  def step(k, carry):
    body(pl.ds(pl.multiple_of(k * size, size), size))
    return carry
  jax.lax.fori_loop(0, D // size, step, 0)


def _add_dw(acc, dw_ref, dz, h_ref, j, blocks_n, spec):
  """acc += dz^T h over the blocks of tokens; the last one writes it out."""
  @pl.when(j == 0)
  def _():
    acc[...] = jnp.zeros_like(acc)

  def add(d):
    at = (d, slice(None)) if spec.transposed else (slice(None), d)
    acc[at] += spec_lib.dot_weights(dz, h_ref[:, d], spec, _precision(dz.dtype))
  _over_pieces(h_ref.shape[1], add)

  @pl.when(j == blocks_n - 1)
  def _():
    dw_ref[...] = acc[...].astype(dw_ref.dtype)


def _add_dh(buf, dz, w_ref, i, vocab, spec, *, first):
  """buf (+)= dz w. Columns of the last block beyond the vocabulary hold anything, NaN too."""
  v = w_ref.shape[spec.vocab_axis]
  ragged, last = vocab % v, vocab // v

  def add(d, *, mask):
    w = w_ref[d, :] if spec.transposed else w_ref[:, d]
    if mask:
      column = jax.lax.broadcasted_iota(jnp.int32, w.shape, spec.vocab_axis)
      w = jnp.where(column < ragged, w, jnp.zeros_like(w))
    product = spec_lib.dot_back(dz, w.astype(dz.dtype), spec, _precision(dz.dtype))
    buf[:, d] = product if first else buf[:, d] + product

  run = lambda mask: _over_pieces(buf.shape[1], functools.partial(add, mask=mask))
  if not ragged:
    run(False)
    return
  pl.when(i < last)(lambda: run(False))
  pl.when(i == last)(lambda: run(True))


def backward(h_ND: Array, w: Array, y_N: Array, temperature: Array, cotangents: Cotangents, *,
             spec: Spec, device_kind: str, interpret: object = False) -> tuple[Array, Array]:
  """Gradients to h, float32 [N, D], and to w, in its own dtype. Arguments as in `forward`."""
  (N, D), V = h_ND.shape, w.shape[spec.vocab_axis]
  n, v, limit = blocks("backward", device_kind, N, D, V, h_ND.dtype.itemsize, w.dtype.itemsize)
  rows = max(_up(N, n), 2 * n)
  h, y = _pad_rows(h_ND, rows), _pad_rows(y_N, rows, -1)[:, None]
  tok = _pad_rows(jnp.pad(jnp.stack(cotangents, axis=1), ((0, 0), (0, 4))), rows)
  w_spec = (pl.BlockSpec((D, v), lambda i, j: (0, i)) if spec.transposed
            else pl.BlockSpec((v, D), lambda i, j: (i, 0)))
  of_tokens = lambda width: pl.BlockSpec((n, width), lambda i, j: (j, 0))
  parts = pl.cdiv(V, v)
  dw, dh = pl.pallas_call(
      functools.partial(_backward_kernel, vocab=V, spec=spec),
      grid=(parts, rows // n),
      in_specs=[pl.BlockSpec(memory_space=pltpu.SMEM), of_tokens(D), w_spec, of_tokens(1),
                of_tokens(8)],
      out_specs=[w_spec, pl.BlockSpec(memory_space=pl.ANY)],
      out_shape=[jax.ShapeDtypeStruct(w.shape, w.dtype),
                 jax.ShapeDtypeStruct((rows, D), jnp.float32)],
      scratch_shapes=[pltpu.VMEM((D, v) if spec.transposed else (v, D), jnp.float32),
                      pltpu.VMEM((2, n, D), jnp.float32), pltpu.SemaphoreType.DMA((2,)),
                      pltpu.SemaphoreType.DMA((2,))],
      compiler_params=pltpu.CompilerParams(
          dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=limit),
      cost_estimate=pl.CostEstimate(
          flops=6 * N * D * V, transcendentals=N * V,
          bytes_accessed=2 * w.nbytes + parts * (h.nbytes + 2 * rows * D * 4)),
      name="token_logprobs_backward", interpret=interpret,
  )(_scalars(temperature), h, w, y, tok)
  return dh[:N], dw
