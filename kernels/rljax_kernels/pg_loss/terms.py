"""The loss of one token, its derivative, and what is logged: shared by reference and kernel."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

LIMIT = 20.0  # log-ratios are clamped to +-LIMIT, with gradient 0 outside
K3_LIMIT = 10.0  # and k3 to +-K3_LIMIT, likewise
KL_ESTIMATORS = ("k1", "k2", "k3", "k3+")


@dataclasses.dataclass(frozen=True)
class Options:
  """Static: see `op.pg_token_loss`."""

  clip_low: float
  clip_high: float
  dual_clip: float | None
  kl_coef: float
  kl_estimator: str


class Token(NamedTuple):
  """Per token; 0 (also of NaN inputs) wherever the mask is 0."""

  loss: Array
  slope: Array  # d loss / d logp
  ratio: Array
  low: Array  # 1 where the lower clip (A < 0) removes the gradient
  high: Array  # 1 where the upper one (A > 0) does
  kl: Array


def token(logp: Array, old: Array, adv: Array, mask: Array, ref: Array, weight: Array,
          options: Options) -> Token:
  """Everything about tokens, elementwise; `op.pg_token_loss` says what it is."""
  on = mask > 0
  clean = lambda x: jnp.where(on, x, 0.0)
  logp, adv, weight = clean(logp), clean(adv), clean(weight)
  d = jnp.clip(logp - clean(old), -LIMIT, LIMIT)
  ratio = jnp.exp(d)
  low = (ratio < 1.0 - options.clip_low) & (adv < 0)
  high = (ratio > 1.0 + options.clip_high) & (adv > 0)
  used = jnp.where(high, 1.0 + options.clip_high, jnp.where(low, 1.0 - options.clip_low, ratio))
  flat = low | high | (jnp.abs(d) >= LIMIT)
  if options.dual_clip is not None:
    dual = (adv < 0) & (used > options.dual_clip)
    used, flat = jnp.where(dual, options.dual_clip, used), flat | dual
  loss = -adv * weight * used
  slope = jnp.where(flat, 0.0, -adv * weight * ratio)
  kl, kl_slope = jnp.zeros_like(loss), 0.0
  if options.kl_coef:
    kl, kl_slope = _kl(logp - clean(ref), options.kl_estimator)
  keep = lambda x: jnp.where(on, x, 0.0)
  return Token(keep(loss + options.kl_coef * kl), keep(slope + options.kl_coef * kl_slope),
               keep(ratio), keep(low.astype(jnp.float32)), keep(high.astype(jnp.float32)), keep(kl))


def _kl(d: Array, estimator: str) -> tuple[Array, Array]:
  """An estimate of KL(policy || reference) from d = logp - ref, and its derivative in logp."""
  inside = jnp.abs(d) < LIMIT
  d = jnp.clip(d, -LIMIT, LIMIT)
  gate = lambda slope: jnp.where(inside, slope, 0.0)
  if estimator == "k1":
    return d, gate(1.0)
  if estimator == "k2":
    return 0.5 * d * d, gate(d)
  raw = jnp.exp(-d) - 1.0 + d
  k3 = jnp.clip(raw, -K3_LIMIT, K3_LIMIT)
  if estimator == "k3":
    return k3, gate(jnp.where(raw < K3_LIMIT, 1.0 - jnp.exp(-d), 0.0))
  return k3, gate(d)
