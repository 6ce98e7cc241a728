"""Hot operations: a reference in plain XLA here, a kernel behind the same signature elsewhere."""

import functools

import chex
import jax
import jax.numpy as jnp

from rljax.types import Array

CHUNK = 512  # tokens whose logits exist at one time


def token_logprobs(hidden_BTD: Array, unembed_VD: Array, targets_BT: Array, *,
                   temperature: float | Array = 1.0, softcap: float = 0.0,
                   return_entropy: bool = False, implementation: str | None = None):
  """log softmax(softcap(h W^T) / temperature)[target], without ever holding [B, T, V].

  Logits live for `CHUNK` tokens at a time, forward and backward (the backward recomputes them).

  Args:
    hidden_BTD: float [B, T, D], final hidden states, after the last norm.
    unembed_VD: float [V, D].
    targets_BT: int [B, T]; out-of-range ids are clipped (mask them in the loss).
    temperature: divides the logits; positive.
    softcap: c in c * tanh(logits / c) (Gemma 2); 0 = off.
    return_entropy: also return the entropy of each distribution, in nats (differentiable).
    implementation: "xla" or None (best available).

  Returns:
    logp_BT float32, or (logp_BT, entropy_BT).

  Raises:
    ValueError: an implementation that is not available.
  """
  if implementation not in (None, "xla"):
    raise ValueError(f"token_logprobs has no implementation {implementation!r}; there is: xla")
  chex.assert_rank([hidden_BTD, unembed_VD, targets_BT], [3, 2, 2])
  B, T, D = hidden_BTD.shape
  flat = _token_logprobs(hidden_BTD.reshape(B * T, D), unembed_VD, targets_BT.reshape(B * T),
                         jnp.asarray(temperature, jnp.float32), float(softcap))
  logp_BT, entropy_BT = (x.reshape(B, T) for x in flat)
  return (logp_BT, entropy_BT) if return_entropy else logp_BT


def _chunks(N):
  """Number and size of chunks of at most CHUNK that tile N rows (padded)."""
  n = -(-N // CHUNK)
  return n, -(-N // n)


def _split(x, n, c):
  pad = n * c - x.shape[0]
  x = jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)) if pad else x
  return x.reshape(n, c, *x.shape[1:])


def _logits(h_cD, w_VD, temperature, softcap):
  z = jnp.einsum("cd,vd->cv", h_cD, w_VD, preferred_element_type=jnp.float32)
  if softcap:
    z = softcap * jnp.tanh(z / softcap)
  return z / temperature


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _token_logprobs(h_ND, w_VD, y_N, temperature, softcap):
  return _forward(h_ND, w_VD, y_N, temperature, softcap)[0]


def _forward(h_ND, w_VD, y_N, temperature, softcap):
  n, c = _chunks(h_ND.shape[0])

  def chunk(_, hy):
    h, y = hy
    z = _logits(h, w_VD, temperature, softcap)
    lse = jax.nn.logsumexp(z, axis=-1)
    picked = jnp.take_along_axis(z, y[:, None], axis=-1, mode="clip")[:, 0]
    mean_z = jnp.sum(jnp.exp(z - lse[:, None]) * z, axis=-1)
    return None, (picked - lse, lse - mean_z, lse)

  _, out = jax.lax.scan(chunk, None, (_split(h_ND, n, c), _split(y_N, n, c)))
  logp, entropy, lse = (x.reshape(-1)[:h_ND.shape[0]] for x in out)
  return (logp, entropy), (h_ND, w_VD, y_N, temperature, lse, entropy)


def _backward(softcap, residuals, grads):
  h_ND, w_VD, y_N, temperature, lse_N, entropy_N = residuals
  g_logp_N, g_entropy_N = grads
  n, c = _chunks(h_ND.shape[0])
  V = w_VD.shape[0]

  def chunk(carry, xs):
    dw, dtemp = carry
    h, y, lse, entropy, g_logp, g_entropy = xs
    z = _logits(h, w_VD, temperature, softcap)
    logp = z - lse[:, None]
    p = jnp.exp(logp)
    onehot = jnp.clip(y, 0, V - 1)[:, None] == jnp.arange(V)[None, :]
    # d logp_y / dz = onehot - p;  d H / dz = -p (log p + H)
    dz = (jnp.where(onehot, g_logp[:, None], 0.0) - p * g_logp[:, None]
          - p * (logp + entropy[:, None]) * g_entropy[:, None])
    dtemp -= jnp.sum(dz * z) / temperature
    dz = dz / temperature
    if softcap:
      dz = dz * (1.0 - jnp.square(z * temperature / softcap))
    dz = dz.astype(h.dtype)
    dh = jnp.einsum("cv,vd->cd", dz, w_VD, preferred_element_type=jnp.float32)
    dw += jnp.einsum("cv,cd->vd", dz, h, preferred_element_type=jnp.float32)
    return (dw, dtemp), dh.astype(h.dtype)

  xs = [_split(x, n, c) for x in (h_ND, y_N, lse_N, entropy_N, g_logp_N, g_entropy_N)]
  init = (jnp.zeros(w_VD.shape, jnp.float32), jnp.zeros((), jnp.float32))
  (dw, dtemp), dh = jax.lax.scan(chunk, init, tuple(xs))
  return dh.reshape(-1, h_ND.shape[1])[:h_ND.shape[0]], dw.astype(w_VD.dtype), None, dtemp


_token_logprobs.defvjp(_forward, _backward)
