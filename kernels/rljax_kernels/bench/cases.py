"""What is measured: an operation at one size, in each of its forms."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rljax_kernels.gae import op as gae_op
from rljax_kernels.group_advantage import op as group_op
from rljax_kernels.pg_loss import op as pg_op
from rljax_kernels.token_logprob import op as token_op

GROUP = 8  # rows of a group


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A compiled program: its text before compilation, and the bytes it needs besides arguments and
  results."""

  text: str
  temporary_bytes: int
  call: Callable


@dataclasses.dataclass(frozen=True)
class Case:
  """One operation at one size.

  Attributes:
    operation, size: shown.
    dtype: of the matmul's operands.
    forms: name -> function(placement) -> function of the arguments to a float32 scalar.
    arguments: shapes and dtypes; the first `differentiable` of them get gradients.
    matmul: n, k, m of the operation's one product [n, k] x [k, m], or None if it has none.
    limit: integer arguments are below it.
  """

  operation: str
  size: str
  dtype: str
  forms: dict[str, Callable]
  arguments: tuple[jax.ShapeDtypeStruct, ...]
  differentiable: int
  matmul: tuple[int, int, int] | None = None
  limit: int = 1

  def function(self, form: str, device, *, backward: bool = True) -> Callable:
    """The form as a function of the arguments: gradients, or values only."""
    mesh = jax.sharding.Mesh(np.array([device]), ("data",))
    run = self.forms[form](token_op.Placement(mesh))
    if backward and self.differentiable:
      return jax.grad(run, tuple(range(self.differentiable)))
    return run

  def compile(self, form: str, device, *, backward: bool = True) -> Compiled:
    """Compiles for a device, which need not be there (see `topology_device`)."""
    place = jax.sharding.SingleDeviceSharding(device)
    arguments = [jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place) for a in self.arguments]
    lowered = jax.jit(self.function(form, device, backward=backward)).lower(*arguments)
    compiled = lowered.compile()
    return Compiled(
        lowered.as_text(), compiled.memory_analysis().temp_size_in_bytes, compiled)

  def inputs(self, device) -> list[jax.Array]:
    """Arguments to time it with: small normal numbers, and integers below `limit`."""
    rng = np.random.default_rng(0)

    def make(a):
      if a.dtype == jnp.int32:
        x = rng.integers(0, self.limit, a.shape)
      else:
        x = rng.normal(size=a.shape).astype(np.float32) * a.shape[-1]**-0.5
      return jax.device_put(jnp.asarray(x, a.dtype), device)
    return [make(a) for a in self.arguments]


def topology_device(name: str):
  """The first device of a TPU topology that is not there, such as "v5p:2x2x1".

  Raises:
    ValueError: libtpu is missing or does not know the topology.
  """
  from jax.experimental import topologies
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=name).devices[0]
  except Exception as e:  # whatever the plugin raises
    raise ValueError(f"topology {name!r}: {e}") from e


def _dense(h, w, y):
  z = jnp.einsum("btd,vd->btv", h, w, preferred_element_type=jnp.float32)
  logp = jax.nn.log_softmax(z)
  picked = jnp.take_along_axis(logp, y[..., None], axis=-1)[..., 0]
  return picked, -jnp.sum(jnp.exp(logp) * logp, axis=-1)


def token_logprobs(tokens: int, width: int, vocab: int, dtype: str) -> Case:
  """Log-probabilities and entropies, with gradients to hidden and unembedding."""
  def scalar(f):
    def run(h, w, y):
      logp, entropy = f(h, w, y)
      return jnp.sum(logp) + 0.5 * jnp.sum(entropy)
    return run

  def op(name):
    return lambda placement: scalar(functools.partial(
        token_op.token_logprobs, return_entropy=True, implementation=name, placement=placement))

  return Case(
      "token_logprobs", f"N={tokens} D={width} V={vocab}", dtype,
      {"dense": lambda placement: scalar(_dense), "xla": op("xla"), "mosaic": op("mosaic"),
       "triton": op("triton")},
      (jax.ShapeDtypeStruct((1, tokens, width), dtype), jax.ShapeDtypeStruct((vocab, width), dtype),
       _ids(1, tokens)), 2, (tokens, width, vocab), vocab)


def group_advantages(rows: int, tokens: int) -> Case:
  """Rewards of groups of eight, normalised and spread over tokens."""
  def op(name):
    return lambda placement: lambda reward, group, mask: jnp.sum(group_op.group_advantages(
        reward, group, jnp.abs(mask), valid_B=jnp.ones(rows), implementation=name))
  return Case("group_advantages", f"B={rows} T={tokens}", "float32", _both(op),
              (_float(rows), _ids(rows), _float(rows, tokens)), 0, limit=max(rows // GROUP, 1))


def gae(rows: int, tokens: int) -> Case:
  """Advantages and returns; every token trained."""
  def op(name):
    def run(value, reward):
      one = jnp.ones_like(value)
      adv, returns = gae_op.gae(value, reward, one, one, implementation=name)
      return jnp.sum(adv) + jnp.sum(returns)
    return lambda placement: run
  return Case("gae", f"B={rows} T={tokens}", "float32", _both(op),
              (_float(rows, tokens), _float(rows, tokens)), 0)


def pg_token_loss(rows: int, tokens: int) -> Case:
  """The clipped loss with a k3 penalty, and its gradient."""
  def op(name):
    def run(logp, old, adv, ref):
      sums = pg_op.pg_token_loss(logp, old, adv, jnp.ones_like(adv), ref_BT=ref, kl_coef=0.01,
                                 implementation=name)
      return jnp.sum(sums.loss)
    return lambda placement: run
  return Case("pg_token_loss", f"B={rows} T={tokens}", "float32", _both(op),
              (_float(rows, tokens),) * 4, 1)


def _float(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _ids(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def _both(op):
  return {"xla": op("xla"), "mosaic": op("mosaic")}
