"""`token_logprobs`: the public function, its gradient, the choice of implementation, sharding."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from rljax_kernels.token_logprob import mosaic, triton, xla
from rljax_kernels.token_logprob import spec as spec_lib
from rljax_kernels.token_logprob.spec import Array, Cotangents, Spec, Stats

IMPLEMENTATIONS = ("xla", "mosaic", "triton")


@dataclasses.dataclass(frozen=True)
class Placement:
  """How the arguments lie on a mesh. Without it, the kernels run on one device only.

  Attributes:
    mesh: of the devices.
    tokens: axes that split the rows of `hidden` and `targets`.
    vocabulary: axis that splits the vocabulary of `unembed`, or None. Axes not named hold copies.
  """

  mesh: Mesh
  tokens: tuple[str, ...] = ("data",)
  vocabulary: str | None = None

  def specs(self, spec: Spec):
    """Partition specs of hidden, unembed and targets."""
    P = PartitionSpec
    w = P(None, self.vocabulary) if spec.transposed else P(self.vocabulary, None)
    return P(self.tokens, None, None), w, P(self.tokens, None)

  def fault(self, rows: int, vocab: int) -> str:
    """Why these sizes cannot be split so, or ""."""
    parts = math.prod(self.mesh.shape[a] for a in self.tokens)
    if rows % parts:
      return f"{rows} rows do not split over {parts} devices ({', '.join(self.tokens)})"
    if self.vocabulary and vocab % self.mesh.shape[self.vocabulary]:
      return (f"a vocabulary of {vocab} does not split over {self.mesh.shape[self.vocabulary]} "
              f"devices ({self.vocabulary})")
    return ""


@dataclasses.dataclass(frozen=True)
class _Plan:
  """Everything static. `implementation` None: decided by the platform when lowered."""

  spec: Spec
  implementation: str | None
  placement: Placement | None
  device_kind: str
  interpret: object


def token_logprobs(hidden_BTD: Array, unembed: Array, targets_BT: Array, *,
                   temperature: float | Array = 1.0, softcap: float = 0.0,
                   return_entropy: bool = False, top_k: int = 0, transposed: bool = False,
                   implementation: str | None = None, placement: Placement | None = None,
                   interpret: object = False):
  """log softmax(softcap(h W^T) / temperature)[target], without ever holding [B, T, V].

  Logits exist for one block at a time, forward and backward (the backward recomputes them); sums
  are float32. Differentiable in hidden, unembed and temperature.

  Args:
    hidden_BTD: float [B, T, D], final hidden states, after the last norm. Products are taken in
      its dtype (float32 or bfloat16).
    unembed: float [V, D], or [D, V] if `transposed`; its gradient has its own dtype.
    targets_BT: int [B, T]. A negative target is ignored: values 0, no gradient. One beyond the
      vocabulary gives NaN.
    temperature: divides the logits; positive.
    softcap: c in c * tanh(logits / c) (Gemma 2); 0 = off.
    return_entropy: also return the entropy of each distribution, in nats (differentiable).
    top_k: also return the ids of the k largest logits, descending (for diagnostics).
    transposed: see `unembed`.
    implementation: "xla"; "mosaic", the Pallas kernel for TPUs; "triton", that for GPUs; None:
      "mosaic" on a TPU where it can be used and pays, else "xla".
    placement: how the arguments are sharded; None = one device.
    interpret: run the kernel on any platform, slowly, for tests (see `pl.pallas_call`).

  Returns:
    logp_BT float32, or a tuple with entropy_BT float32 and ids int32 [B, T, top_k] if asked for.

  Raises:
    ValueError: wrong shapes or options, or a named implementation that cannot be used.
  """
  spec = Spec(float(softcap), bool(transposed), int(top_k))
  _check(hidden_BTD, unembed, targets_BT, spec, implementation)
  plan = _plan(hidden_BTD, unembed, spec, implementation, placement, interpret)
  logp_BT, entropy_BT, ids = _token_logprobs(
      hidden_BTD, unembed, targets_BT, jnp.asarray(temperature, jnp.float32), plan)
  out = (logp_BT, *([entropy_BT] if return_entropy else []), *([ids] if top_k else []))
  return out if len(out) > 1 else logp_BT


def _check(hidden, unembed, targets, spec, implementation):
  if implementation is not None and implementation not in IMPLEMENTATIONS:
    raise ValueError(f"token_logprobs has no implementation {implementation!r}; "
                     f"there is: {', '.join(IMPLEMENTATIONS)}")
  shape = unembed.shape[::-1] if spec.transposed else unembed.shape
  if hidden.ndim != 3 or unembed.ndim != 2 or hidden.shape[:2] != targets.shape:
    raise ValueError(f"token_logprobs wants hidden [B, T, D], unembed [V, D] and targets [B, T], "
                     f"found {hidden.shape}, {unembed.shape}, {targets.shape}")
  if shape[1] != hidden.shape[2]:
    raise ValueError(f"hidden is {hidden.shape[2]} wide, unembed {unembed.shape} is not "
                     f"[{'D, V' if spec.transposed else 'V, D'}] with that D")
  if not 0 <= spec.top_k <= min(shape[0], 128):
    raise ValueError(f"top_k={spec.top_k} must be between 0 and the vocabulary ({shape[0]}) or 128")


def _plan(hidden, unembed, spec, implementation, placement, interpret):
  vocab = unembed.shape[spec.vocab_axis]
  fault = ""
  if placement is not None:
    fault = placement.fault(hidden.shape[0], vocab)
    placement = None if fault else placement
  elif jax.device_count() > 1:
    fault = f"{jax.device_count()} devices and no placement"
  kind = (placement.mesh.devices.flat[0] if placement else jax.devices()[0]).device_kind
  fault = fault or (triton.fault(hidden, unembed, spec) if implementation == "triton"
                    else mosaic.fault(hidden, unembed, kind))
  if implementation in ("mosaic", "triton") and fault:
    raise ValueError(f"token_logprobs(implementation={implementation!r}) cannot be used: {fault}")
  if implementation is None and (fault or vocab < mosaic.MIN_VOCAB):
    implementation = "xla"
  if placement and placement.mesh.size == 1:
    placement = None  # nothing to split: without shard_map, results are written in place
  return _Plan(spec, implementation, placement, kind, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _token_logprobs(h, w, y, temperature, plan):
  return _forward(h, w, y, temperature, plan)[0]


def _forward(h, w, y, temperature, plan):
  local = functools.partial(_local_forward, plan=plan)
  if plan.placement is not None:
    specs = plan.placement.specs(plan.spec)
    out = Stats(*[specs[2]] * 4, *[specs[0]] * 2 if plan.spec.top_k else ())
    local = jax.shard_map(local, mesh=plan.placement.mesh, in_specs=(*specs, PartitionSpec()),
                          out_specs=out, check_vma=False)
  stats = local(h, w, y, temperature)
  logp = jnp.where(y < w.shape[plan.spec.vocab_axis], stats.picked - stats.lse, jnp.nan)
  logp, entropy = (jnp.where(y >= 0, x, 0.0) for x in (logp, stats.entropy))
  return (logp, entropy, stats.top_ids), (h, w, y, temperature, logp, stats)


def _backward(plan, residuals, grads):
  h, w, y, temperature, logp, stats = residuals
  g, e = (jnp.where(y >= 0, x, 0.0) for x in grads[:2])
  cotangents = Cotangents(stats.lse, g, g + e * (stats.entropy - stats.lse), e)
  local = functools.partial(_local_backward, plan=plan)
  if plan.placement is not None:
    specs = plan.placement.specs(plan.spec)
    local = jax.shard_map(
        local, mesh=plan.placement.mesh, check_vma=False, out_specs=specs[:2],
        in_specs=(*specs, PartitionSpec(), Cotangents(*[specs[2]] * 4)))
  dh, dw = local(h, w, y, temperature, cotangents)
  # dz/dT = -z / T; under p, z - E z has mean 0 and its product with z the mean var.
  slope = g * (logp + stats.entropy) - e * stats.var
  dt = -jnp.sum(jnp.where(g == 0, -e * stats.var, slope)) / temperature
  return dh, dw, None, dt


_token_logprobs.defvjp(_forward, _backward)


# --- on one device --------------------------------------------------------------------------------


def _run(plan, name, *args):
  """The named function of the implementation; without one, that of the platform it is lowered to.
  """
  forms = {
      "xla": functools.partial(getattr(xla, name), spec=plan.spec),
      "mosaic": functools.partial(getattr(mosaic, name), spec=plan.spec, interpret=plan.interpret,
                                  device_kind=plan.device_kind),
      "triton": functools.partial(getattr(triton, name), spec=plan.spec, interpret=plan.interpret)}
  if plan.implementation is None:
    return jax.lax.platform_dependent(*args, tpu=forms["mosaic"], default=forms["xla"])
  return forms[plan.implementation](*args)


def _flat(h, w, y, plan):
  """Tokens in one dimension, targets relative to this device's part of the vocabulary."""
  y = y.reshape(-1).astype(jnp.int32)
  axis = plan.placement.vocabulary if plan.placement else None
  start = jax.lax.axis_index(axis) * w.shape[plan.spec.vocab_axis] if axis else 0
  return h.reshape(-1, h.shape[-1]), y - start, start, axis


def _local_forward(h, w, y, temperature, plan):
  shape = y.shape
  h_ND, y_N, start, axis = _flat(h, w, y, plan)
  stats = _run(plan, "forward", h_ND, w, y_N, temperature)
  if axis:
    stats = _merge_parts(stats, start, axis, plan.spec.top_k)
  return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), stats)


def _merge_parts(stats, start, axis, top_k):
  """The statistics over all parts of the vocabulary: two reductions of O(tokens) numbers."""
  top = jax.lax.pmax(stats.lse, axis)
  weight = jnp.exp(stats.lse - top)
  mean = stats.lse - top - stats.entropy
  parts = (weight, weight * mean, weight * (stats.var + mean * mean), stats.picked)
  s, t, q, picked = jax.lax.psum(jnp.stack(parts), axis)
  lse, entropy, var = spec_lib.finish_moments(top, s, t, q)
  if not top_k:
    return Stats(lse, picked, entropy, var)
  gather = lambda x: jax.lax.all_gather(x, axis, axis=1, tiled=True)
  top_z, at_k = jax.lax.top_k(gather(stats.top_z), top_k)
  ids = jnp.take_along_axis(gather(stats.top_ids + start), at_k, axis=-1)
  return Stats(lse, picked, entropy, var, top_z, ids)


def _local_backward(h, w, y, temperature, cotangents, plan):
  h_ND, y_N, _, axis = _flat(h, w, y, plan)
  cotangents = jax.tree.map(lambda x: x.reshape(-1), cotangents)
  dh, dw = _run(plan, "backward", h_ND, w, y_N, temperature, cotangents)
  dh = jax.lax.psum(dh, axis) if axis else dh
  if plan.placement:
    dw = jax.lax.psum(dw, plan.placement.tokens)
  return dh.reshape(h.shape).astype(h.dtype), dw
