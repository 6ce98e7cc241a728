"""Small networks as pure functions: `leaf(env, ...) -> Net`; one observation in, vmapped by users.

Convolutions gather their patches and multiply: under vmap over seeds, and on a CPU, that is faster
than XLA's own (a batch of kernels there becomes a grouped convolution).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import config as config_lib
from rljax.classic import env as env_lib
from rljax.types import Array, PyTree


class Net(NamedTuple):
  """init: key -> params; apply: (params, observation) -> outputs."""

  init: Callable
  apply: Callable


# --- layers ---------------------------------------------------------------------------------------


def dense_init(key: Array, fan_in: int, fan_out: int, *, scale: float = 2.0) -> PyTree:
  """Weights of variance scale / fan_in, biases 0."""
  w = jax.random.normal(key, (fan_in, fan_out)) * (scale / fan_in) ** 0.5
  return {"w": w, "b": jnp.zeros((fan_out,))}


def dense(params: PyTree, x: Array) -> Array:
  """x @ w + b along the last axis."""
  y = x @ params["w"]
  return y + params["b"].reshape((1,) * (y.ndim - 1) + (-1,))


def patches(x_HWC: Array, size: int, stride: int) -> Array:
  """[H / stride, W / stride, size * size * C], zeros outside ("SAME")."""
  out = [-(-n // stride) for n in x_HWC.shape[:2]]
  pads = [max((o - 1) * stride + size - n, 0) for o, n in zip(out, x_HWC.shape[:2])]
  x = jnp.pad(x_HWC, [(p // 2, p - p // 2) for p in pads] + [(0, 0)])
  ends = [(o - 1) * stride + 1 for o in out]
  return jnp.concatenate([x[i:i + ends[0]:stride, j:j + ends[1]:stride]
                          for i in range(size) for j in range(size)], axis=-1)


def conv_init(key: Array, size: int, channels_in: int, channels_out: int) -> PyTree:
  return dense_init(key, size * size * channels_in, channels_out)


def conv(params: PyTree, x_HWC: Array, *, size: int, stride: int = 1) -> Array:
  return dense(params, patches(x_HWC, size, stride))


def min_max(x: Array, *, eps: float = 1e-5) -> Array:
  """To [0, 1] over one sample; a constant gives 0, not NaN."""
  low = jnp.min(x)
  return (x - low) / (jnp.max(x) - low + eps)


def unit(obs: Array) -> Array:
  """float32; bytes become [0, 1]."""
  return obs.astype(jnp.float32) / (255.0 if obs.dtype == jnp.uint8 else 1.0)


# --- encoders: observation -> latent of any shape -------------------------------------------------


def flat(env: env_lib.Env) -> Net:
  """The observation as one vector; ids become one-hot."""
  def apply(params, obs):
    del params
    return jax.nn.one_hot(obs, env.n_states) if env.n_states else unit(obs).reshape(-1)
  return Net(lambda key: {}, apply)


def convolution(env: env_lib.Env, *, channels: Sequence[int] = (16, 32),
                sizes: Sequence[int] = (3, 3), strides: Sequence[int] = (2, 2),
                renormalise: bool = False) -> Net:
  """Convolutions with ReLU: [16, 16, 3] gives [4, 4, 32].

  Args:
    channels, sizes, strides: of each layer.
    renormalise: the latent to [0, 1] per sample (`min_max`).

  Raises:
    ConfigError: observations are not images, or the layers are not as many everywhere.
  """
  if len(env.shape) != 3 or not len(channels) == len(sizes) == len(strides):
    raise config_lib.ConfigError("a convolution needs images [height, width, channels], and as "
                                 "many channels as sizes and strides")

  def init(key):
    widths = (env.shape[2], *channels)
    return [conv_init(k, size, a, b) for k, size, a, b in zip(
        jax.random.split(key, len(channels)), sizes, widths, widths[1:])]

  def apply(params, obs):
    x = unit(obs)
    for layer, size, stride in zip(params, sizes, strides):
      x = jax.nn.relu(conv(layer, x, size=size, stride=stride))
    return min_max(x) if renormalise else x
  return Net(init, apply)


def vit(env: env_lib.Env, *, patch: int = 4, width: int = 64, depth: int = 2,
        heads: int = 4) -> Net:
  """A vision transformer (https://arxiv.org/abs/2010.11929): patches, learned positions, pre-norm.

  The latent is [patches, width].

  Args:
    patch: side of a patch in pixels. width, depth, heads: of the transformer.

  Raises:
    ConfigError: observations are not images, or do not divide into patches or heads.
  """
  if len(env.shape) != 3 or env.shape[0] % patch or env.shape[1] % patch or width % heads:
    raise config_lib.ConfigError(
        f"vit needs images that divide into patches of {patch}, and width % heads == 0")
  count = (env.shape[0] // patch) * (env.shape[1] // patch)

  def init(key):
    first, at, *keys = jax.random.split(key, 2 + 4 * depth)
    blocks = [{"qkv": dense_init(a, width, 3 * width, scale=1.0),
               "out": dense_init(b, width, width, scale=1.0),
               "up": dense_init(c, width, 4 * width),
               "down": dense_init(d, 4 * width, width, scale=1.0)}
              for a, b, c, d in zip(*[iter(keys)] * 4)]
    return {"patch": conv_init(first, patch, env.shape[2], width), "blocks": blocks,
            "position": 0.02 * jax.random.normal(at, (count, width))}

  def attend(block, x):
    q, k, v = jnp.split(dense(block["qkv"], x).reshape(count, heads, -1), 3, axis=-1)
    weight = jax.nn.softmax(jnp.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5)
    return dense(block["out"], jnp.einsum("hnm,mhd->nhd", weight, v).reshape(count, width))

  def apply(params, obs):
    x = conv(params["patch"], unit(obs), size=patch, stride=patch).reshape(count, width)
    x = x + params["position"]
    for block in params["blocks"]:
      x = x + attend(block, _norm(x))
      x = x + dense(block["down"], jax.nn.relu(dense(block["up"], _norm(x))))
    return _norm(x)
  return Net(init, apply)


def _norm(x, eps=1e-5):
  return jax.nn.standardize(x, axis=-1, epsilon=eps)


# --- policies and values: observation -> [outputs] ------------------------------------------------


def table(env: env_lib.Env, outputs: int, *, start: Callable | None = None) -> Net:
  """One row of outputs per state.

  Args:
    start: (env) -> float [S, outputs] to begin with; None = zeros.

  Raises:
    ConfigError: observations are no ids.
  """
  if not env.n_states:
    raise config_lib.ConfigError("a table needs observations that are ids of states")

  def init(key):
    del key
    return jnp.zeros((env.n_states, outputs)) if start is None else jnp.asarray(
        start(env), jnp.float32)
  return Net(init, lambda params, obs: params[obs])


def mlp(env: env_lib.Env, outputs: int, *, encoder: Callable = flat,
        hidden: Sequence[int] = (64,)) -> Net:
  """Dense layers with ReLU on an encoder's latent; hidden=() is linear. The last starts at 0."""
  base = encoder(env)

  def init(key):
    first, *keys = jax.random.split(key, 2 + len(hidden))
    params = base.init(first)
    widths = (latent_size(env, base), *hidden)
    layers = [dense_init(k, a, b) for k, a, b in zip(keys, widths, widths[1:])]
    layers.append({"w": jnp.zeros((widths[-1], outputs)), "b": jnp.zeros((outputs,))})
    return {"encoder": params, "layers": layers}

  def apply(params, obs):
    x = base.apply(params["encoder"], obs).reshape(-1)
    for layer in params["layers"][:-1]:
      x = jax.nn.relu(dense(layer, x))
    return dense(params["layers"][-1], x)
  return Net(init, apply)


def latent_shape(env: env_lib.Env, encoder: Net) -> tuple[int, ...]:
  """The shape of an encoder's latent."""
  def run(key):
    obs = env.observe(env.reset(key))
    return encoder.apply(encoder.init(key), obs[0] if env.seats > 1 else obs)
  return jax.eval_shape(run, jax.random.key(0)).shape


def latent_size(env: env_lib.Env, encoder: Net) -> int:
  return math.prod(latent_shape(env, encoder))
