"""The reference: plain XLA, blocked over tokens and vocabulary so that a block stays in cache.

On a CPU it is also the fastest form: the dense one spends its time on moving [N, V] arrays.
"""

import jax
import jax.numpy as jnp

from rljax_kernels.token_logprob import spec as spec_lib
from rljax_kernels.token_logprob.spec import Array, Cotangents, Spec, Stats

TOKENS, VOCAB = 512, 2048  # of one block of logits
SMALL = 2**19  # numbers; with a smaller vocabulary a block may have more tokens


def over(total, size, body, carry):
  """carry = body(start, size, carry) over all blocks; the last may be smaller. Sizes are static."""
  count, tail = divmod(total, size)
  if count == 1:
    carry = body(0, size, carry)
  elif count:
    carry = jax.lax.fori_loop(0, count, lambda i, c: body(i * size, size, c), carry)
  return body(count * size, tail, carry) if tail else carry


def _cut(x, start, size, axis=0):
  return jax.lax.dynamic_slice_in_dim(x, start, size, axis)


def _put(x, block, start, axis=0):
  return jax.lax.dynamic_update_slice_in_dim(x, block.astype(x.dtype), start, axis)


def forward(h_ND: Array, w: Array, y_N: Array, temperature: Array, spec: Spec) -> Stats:
  """See `spec.Stats`. `y_N` outside [0, V) matches no column."""
  N, V = h_ND.shape[0], w.shape[spec.vocab_axis]
  inv = 1.0 / temperature

  def vocab(h, y, at, v, carry):
    moments, picked, top_z, top_ids = carry
    z = spec_lib.squash(
        spec_lib.dot_w(h, _cut(w, at, v, spec.vocab_axis).astype(h.dtype), spec), inv, spec)
    ids = at + jnp.arange(v)[None, :]
    picked += jnp.sum(jnp.where(ids == y[:, None], z, 0.0), axis=-1)
    if spec.top_k:  # ties go to the lower id: those kept so far stand first
      pool = jnp.concatenate([top_z, z], axis=-1)
      pool_ids = jnp.concatenate([top_ids, jnp.broadcast_to(ids, z.shape)], axis=-1)
      top_z, at_k = jax.lax.top_k(pool, spec.top_k)
      top_ids = jnp.take_along_axis(pool_ids, at_k, axis=-1)
    return spec_lib.merge_moments(*moments, z), picked, top_z, top_ids

  def tokens(at, n, out):
    h, y = _cut(h_ND, at, n), _cut(y_N, at, n)
    zero = jnp.zeros((n, 1))
    carry = ((zero + spec_lib.NEVER, zero, zero, zero), zero[:, 0],
             jnp.full((n, spec.top_k), spec_lib.NEVER), jnp.zeros((n, spec.top_k), jnp.int32))
    moments, picked, top_z, top_ids = over(
        V, VOCAB, lambda at, v, c: vocab(h, y, at, v, c), carry)
    lse, entropy, var = (x[:, 0] for x in spec_lib.finish_moments(*moments))
    return tuple(_put(x, b, at) for x, b in zip(
        out, (lse, picked, entropy, var, top_z, top_ids), strict=True))

  out = (*(jnp.zeros(N) for _ in range(4)), jnp.zeros((N, spec.top_k)),
         jnp.zeros((N, spec.top_k), jnp.int32))
  out = over(N, max(TOKENS, SMALL // V), tokens, out)
  return Stats(*out) if spec.top_k else Stats(*out[:4])


def backward(h_ND: Array, w: Array, y_N: Array, temperature: Array, cotangents: Cotangents,
             spec: Spec) -> tuple[Array, Array]:
  """Gradients to h, float32 [N, D], and to w, in its own dtype. Recomputes the logits."""
  N, V = h_ND.shape[0], w.shape[spec.vocab_axis]
  inv = 1.0 / temperature

  def vocab(at_v, v, carry):
    dh_ND, dw = carry
    w_block = _cut(w, at_v, v, spec.vocab_axis)
    low = w_block.astype(h_ND.dtype)

    def tokens(at, n, carry):
      dh_ND, dw_block = carry
      h, y = _cut(h_ND, at, n), _cut(y_N, at, n)
      c = Cotangents(*(_cut(x, at, n)[:, None] for x in cotangents))
      z = spec_lib.squash(spec_lib.dot_w(h, low, spec), inv, spec)
      hit = at_v + jnp.arange(v)[None, :] == y[:, None]
      dz = jnp.where(hit, c.target, 0.0) - jnp.exp(z - c.lse) * (c.base + c.slope * z)
      dz = spec_lib.unsquash(dz, z, inv, temperature, spec).astype(h.dtype)
      dh = _cut(dh_ND, at, n) + spec_lib.dot_back(dz, low, spec)
      return _put(dh_ND, dh, at), dw_block + spec_lib.dot_weights(dz, h, spec)

    dh_ND, dw_block = over(N, max(TOKENS, SMALL // V), tokens, (dh_ND, jnp.zeros(w_block.shape)))
    return dh_ND, _put(dw, dw_block, at_v, spec.vocab_axis)

  return over(V, VOCAB, vocab, (jnp.zeros(h_ND.shape), jnp.zeros_like(w)))
