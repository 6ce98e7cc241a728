"""`pg_token_loss`: ratio, clip, KL, mask, sums and metrics of a batch in one pass each way."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax_kernels import choose
from rljax_kernels.pg_loss import mosaic, terms

Array = jax.Array


class Sums(NamedTuple):
  """[B] each: sums over the row's tokens (`ratio_max`: the largest, 0 in an empty row).

  Only `loss` has a gradient. Any aggregation is a weighted sum of `loss` over rows: the token mean
  is sum(loss) / sum(tokens), the mean over rows of token means sum(loss / tokens) / B.
  """

  loss: Array
  tokens: Array
  ratio: Array
  ratio_max: Array
  clip_low: Array
  clip_high: Array
  kl: Array


def pg_token_loss(logp_BT: Array, old_BT: Array, adv_BT: Array, mask_BT: Array, *,
                  ref_BT: Array | None = None, weight_BT: Array | None = None,
                  clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = None,
                  kl_coef: float = 0.0, kl_estimator: str = "k3",
                  implementation: str | None = None, interpret: object = False) -> Sums:
  """l_t = w_t max(-A_t r_t, -A_t clip(r_t, 1 - clip_low, 1 + clip_high)) + kl_coef KL_t, r = e^d.

  d = logp - old, clamped to +-20. GRPO: https://arxiv.org/abs/2402.03300 equation 3.

  Args:
    logp_BT: float [B, T], the only argument with a gradient. old_BT: the ratio's denominator.
    adv_BT: advantages A. mask_BT: float 0/1; where it is 0 anything may stand, NaN too.
    ref_BT: log-probabilities of the reference; required by kl_coef.
    weight_BT: importance weights w of sampler against trainer; None = 1.
    clip_low, clip_high: the ratio's interval.
    dual_clip: c bounds the loss by -c A for A < 0 (https://arxiv.org/abs/1912.09729).
    kl_coef, kl_estimator: k1 = d', k2 = d'^2 / 2, k3 = e^-d' - 1 + d' (clamped to +-10) with
      d' = logp - ref; "k3+" has the value of k3 and the gradient of k2.
    implementation: "xla", "mosaic" (TPU, one device), or None. interpret: see `pl.pallas_call`.

  Raises:
    ValueError: an unknown implementation or estimator, or kl_coef without a reference.
  """
  name = choose.check("pg_token_loss", implementation)
  if kl_estimator not in terms.KL_ESTIMATORS:
    raise ValueError(f"unknown KL estimator {kl_estimator!r}; "
                     f"one of {', '.join(terms.KL_ESTIMATORS)}")
  if kl_coef and ref_BT is None:
    raise ValueError("kl_coef is not 0 but there is no ref_BT")
  options = terms.Options(clip_low, clip_high, dual_clip, kl_coef, kl_estimator)
  ref_BT = jnp.zeros_like(logp_BT) if ref_BT is None else ref_BT
  weight_BT = jnp.ones_like(logp_BT) if weight_BT is None else weight_BT
  rest = jax.lax.stop_gradient((old_BT, adv_BT, mask_BT, ref_BT, weight_BT))
  return _pg_token_loss(logp_BT, rest, options, name, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _pg_token_loss(logp_BT, rest, options, name, interpret):
  args = (logp_BT, *rest)
  if name == "mosaic":
    return Sums(*mosaic.forward(*args, options=options, interpret=interpret))
  t = terms.token(*args, options)
  total = lambda x: jnp.sum(x, axis=1)
  return Sums(total(t.loss), total(args[3]), total(t.ratio), jnp.max(t.ratio, axis=1, initial=0.0),
              total(t.low), total(t.high), total(t.kl))


def _forward(logp_BT, rest, options, name, interpret):
  return _pg_token_loss(logp_BT, rest, options, name, interpret), (logp_BT, rest)


def _backward(options, name, interpret, residuals, grads):
  logp_BT, rest = residuals
  args = (logp_BT, *rest)
  if name == "mosaic":
    slope_BT = mosaic.backward(*args, grads.loss, options=options, interpret=interpret)
  else:
    slope_BT = grads.loss[:, None] * terms.token(*args, options).slope
  return slope_BT.astype(logp_BT.dtype), None


_pg_token_loss.defvjp(_forward, _backward)
