"""From raw logits to the distribution sampled from: mask, temperature, top-k, top-p, min-p."""

import jax
import jax.numpy as jnp

from rljax.types import Array


def warp(logits_SV: Array, *, temperature_S: Array, top_k_S: Array, top_p_S: Array,
         min_p_S: Array, allowed_SM: Array | None = None, masked_S: Array | None = None) -> Array:
  """Log-probabilities [S, V] of the warped distribution; excluded tokens are -inf.

  Order as in the field: forbidden tokens out, temperature, then top-k, then top-p over what is
  left, then min-p (relative to the most likely token). What no row uses costs nothing at run time.
  Ties at a threshold are all kept. All settings are traced, so a new value compiles nothing.

  Args:
    logits_SV: float32 raw logits.
    temperature_S: positive. top_k_S: int, 0 = off. top_p_S: in (0, 1], 1 = off. min_p_S: 0 = off.
    allowed_SM: uint32, see `decode.Settings`; read for rows with masked_S.
  """
  z_SV = logits_SV / temperature_S[:, None]
  if allowed_SM is not None:
    z_SV = jax.lax.cond(jnp.any(masked_S), _forbid, lambda z, *_: z, z_SV, allowed_SM, masked_S)
  logp_SV = jax.nn.log_softmax(z_SV, axis=-1)
  used = jnp.any((top_k_S > 0) | (top_p_S < 1.0) | (min_p_S > 0.0))
  return jax.lax.cond(used, _filter, lambda logp, *_: logp, logp_SV, top_k_S, top_p_S, min_p_S)


def _forbid(z_SV, allowed_SM, masked_S):
  at_V = jnp.arange(z_SV.shape[1], dtype=jnp.uint32)
  bit_SV = (allowed_SM[:, at_V // 32] >> (at_V % 32)[None, :]) & 1
  return jnp.where((bit_SV > 0) | ~masked_S[:, None], z_SV, -jnp.inf)


def _filter(logp_SV, top_k_S, top_p_S, min_p_S):
  V = logp_SV.shape[-1]
  sorted_SV = -jnp.sort(-logp_SV, axis=-1)
  k_S = jnp.where(top_k_S > 0, jnp.minimum(top_k_S, V), V)
  kept_k_SV = jnp.arange(V)[None, :] < k_S[:, None]
  # The smallest prefix of the (renormalised) sorted tokens whose mass reaches top_p.
  p_SV = jnp.where(kept_k_SV, jnp.exp(sorted_SV), 0.0)
  p_SV = p_SV / jnp.sum(p_SV, axis=-1, keepdims=True)
  before_SV = jnp.cumsum(p_SV, axis=-1) - p_SV
  kept_SV = kept_k_SV & ((before_SV < top_p_S[:, None]) | (top_p_S >= 1.0)[:, None])
  floor_S = jnp.min(jnp.where(kept_SV, sorted_SV, jnp.inf), axis=-1)
  min_p_floor_S = jnp.where(min_p_S > 0, jnp.log(jnp.maximum(min_p_S, 1e-30)) + sorted_SV[:, 0],
                            -jnp.inf)
  floor_S = jnp.maximum(floor_S, min_p_floor_S)
  logp_SV = jnp.where(logp_SV >= floor_S[:, None], logp_SV, -jnp.inf)
  return jax.nn.log_softmax(logp_SV, axis=-1)
