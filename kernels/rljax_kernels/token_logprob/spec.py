"""What the implementations of token log-probabilities share: their static options and results."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

NEVER = -1e15  # a logit that is not there: its square is finite, and no real logit is below it


@dataclasses.dataclass(frozen=True)
class Spec:
  """Static options.

  Attributes:
    softcap: c in c * tanh(a / c); 0 = off.
    transposed: the unembedding is [D, V] instead of [V, D].
    top_k: number of most likely ids to return; 0 = none.
  """

  softcap: float = 0.0
  transposed: bool = False
  top_k: int = 0

  @property
  def vocab_axis(self) -> int:
    return 1 if self.transposed else 0


class Stats(NamedTuple):
  """Per token, of the logits z = softcap(h w) / temperature over the columns of one `w`.

  Float32 [N] each: logsumexp z; z at the target (0 if the target is not among the columns); the
  entropy of softmax(z); the variance of z under it. With top_k, float32 and int32 [N, top_k]: the
  largest z, descending, and their columns; else None.
  """

  lse: Array
  picked: Array
  entropy: Array
  var: Array
  top_z: Array | None = None
  top_ids: Array | None = None


class Cotangents(NamedTuple):
  """Per token, float32 [N]: dL/dz_v = target * [v = y] - p_v (base + slope * z_v).

  From g = dL/dlogp and e = dL/dentropy: target = g, slope = e, base = g + e (entropy - lse).
  """

  lse: Array
  target: Array
  base: Array
  slope: Array


def dot_w(h: Array, w: Array, spec: Spec, precision=None) -> Array:
  """[n, D] with [v, D] (or [D, v]) -> float32 [n, v]."""
  contract = (((1,), (0,)) if spec.transposed else ((1,), (1,)), ((), ()))
  return jax.lax.dot_general(h, w, contract, precision=precision,
                             preferred_element_type=jnp.float32)


def dot_back(dz: Array, w: Array, spec: Spec, precision=None) -> Array:
  """The transpose of `dot_w` with respect to h: float32 [n, D]."""
  contract = (((1,), (1,)) if spec.transposed else ((1,), (0,)), ((), ()))
  return jax.lax.dot_general(dz, w, contract, precision=precision,
                             preferred_element_type=jnp.float32)


def dot_weights(dz: Array, h: Array, spec: Spec, precision=None) -> Array:
  """The transpose of `dot_w` with respect to w: float32 [v, D] (or [D, v])."""
  left, right = (h, dz) if spec.transposed else (dz, h)
  return jax.lax.dot_general(left, right, (((0,), (0,)), ((), ())), precision=precision,
                             preferred_element_type=jnp.float32)


def squash(a: Array, inv_temperature: Array, spec: Spec) -> Array:
  """Products to logits: z = softcap(a) / temperature."""
  if spec.softcap:
    a = spec.softcap * jnp.tanh(a * (1.0 / spec.softcap))
  return a * inv_temperature


def unsquash(dz: Array, z: Array, inv_temperature: Array, temperature: Array, spec: Spec) -> Array:
  """dL/dz to dL/da."""
  dz = dz * inv_temperature
  if spec.softcap:
    dz = dz * (1.0 - jnp.square(z * (temperature * (1.0 / spec.softcap))))
  return dz


def merge_moments(m: Array, s: Array, t: Array, q: Array, z: Array) -> tuple[Array, ...]:
  """Adds a block of logits to running moments of exp(z - m): the online softmax.

  Args:
    m, s, t, q: [n, 1]: the maximum so far; sums of e = exp(z - m), e (z - m), e (z - m)^2. Start
      with NEVER, 0, 0, 0.
    z: [n, v].
  """
  top = jnp.maximum(m, jnp.max(z, axis=-1, keepdims=True))
  d = m - top
  scale = jnp.exp(d)
  u = z - top
  e = jnp.exp(u)
  eu = e * u
  total = lambda x: jnp.sum(x, axis=-1, keepdims=True)
  q = (q + 2.0 * d * t + d * d * s) * scale + total(eu * u)
  t = (t + d * s) * scale + total(eu)
  s = s * scale + total(e)
  return top, s, t, q


def finish_moments(m: Array, s: Array, t: Array, q: Array) -> tuple[Array, Array, Array]:
  """logsumexp, entropy and variance from the running moments."""
  mean = t / s
  return m + jnp.log(s), jnp.log(s) - mean, jnp.maximum(q / s - mean * mean, 0.0)
