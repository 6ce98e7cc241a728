"""A decoder-only transformer: RoPE, RMSNorm, gated MLP, grouped-query attention. Hidden states out.

There is no logits API: training asks `rljax.ops.token_logprobs`, the sampler unembeds one position.
Parameters of all layers are stacked on a leading axis [L, ...], scanned over or unrolled.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from rljax.types import Array

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu, "relu": jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes and switches; hashable, so it may be a static argument.

  Attributes:
    vocab: number of token ids. width: D. mlp: hidden width of the gated MLP.
    layers, heads, kv_heads: `heads` must be a multiple of `kv_heads`.
    head_dim: defaults to width // heads; even, because RoPE rotates pairs.
    activation: of the MLP gate. "relu" is the cheapest to differentiate on a CPU.
    tied: the head is the embedding.
    scale_embed: multiply embedded tokens by sqrt(width). Embedding rows start with norm 1, so that
      a tied head starts near uniform; the residual stream wants rms 1.
    qkv_bias: q, k and v have biases (Qwen2).
    scan: True scans over the layers (compile time does not grow with depth); False unrolls them
      (about twice as fast on a CPU at small width). Same parameters either way.
    remat: recompute each layer in the backward pass.
    dtype: of activations. param_dtype: of parameters.
  """

  vocab: int
  width: int = 128
  layers: int = 3
  heads: int = 4
  kv_heads: int = 4
  head_dim: int = 0
  mlp: int = 512
  activation: str = "silu"
  rope_theta: float = 10000.0
  norm_eps: float = 1e-6
  tied: bool = True
  scale_embed: bool = True
  qkv_bias: bool = False
  scan: bool = True
  remat: bool = False
  dtype: str = "float32"
  param_dtype: str = "float32"

  def __post_init__(self):
    if self.head_dim == 0:
      object.__setattr__(self, "head_dim", self.width // self.heads)
    if self.heads % self.kv_heads:
      raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
    if self.head_dim % 2:
      raise ValueError(f"head_dim={self.head_dim} must be even (RoPE)")
    if self.activation not in ACTIVATIONS:
      raise ValueError(f"activation={self.activation!r}; one of {', '.join(ACTIVATIONS)}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys and values of all layers: k, v [L, B, C, K, H] (C capacity, K kv heads, H head size)."""

  k: Array
  v: Array


def widen(cache: Cache, capacity: int) -> Cache:
  """The same cache with room for `capacity` positions."""
  room = capacity - cache.k.shape[2]
  return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))), cache)


def rope_table(positions_BS: Array, head_dim: int, theta: float) -> tuple[Array, Array]:
  """cos, sin [B, S, 1, head_dim] for rotating the two halves of a head, float32."""
  inv = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
  angle = positions_BS[..., None].astype(jnp.float32) * inv[None, None, :]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return (jnp.concatenate([cos, cos], -1)[:, :, None, :],
          jnp.concatenate([-sin, sin], -1)[:, :, None, :])


def rotate(x_BSNH: Array, cos: Array, sin: Array) -> Array:
  half = x_BSNH.shape[-1] // 2
  swapped = jnp.concatenate([x_BSNH[..., half:], x_BSNH[..., :half]], -1)
  return (x_BSNH * cos + swapped * sin).astype(x_BSNH.dtype)


def attend_cached(q_BSNH: Array, k_BSKH: Array, v_BSKH: Array, cache: Cache, mask: Array,
                  cached_mask: Array) -> Array:
  """Attention over a cache and this call's own keys, without copying the cache.

  Args:
    q_BSNH, k_BSKH, v_BSKH: of the S new positions; N is a multiple of K.
    cache: of one layer, k and v [B, C, K, H].
    mask: bool [B, 1, S, S], which new position sees which. cached_mask: bool [B, 1, 1, C].

  Returns:
    [B, S, N, H].
  """
  B, S, N, H = q_BSNH.shape
  K, C = k_BSKH.shape[2], cache.k.shape[1]
  q = q_BSNH.reshape(B, S, K, N // K, H)
  score = lambda keys, seen: jnp.where(
      seen[:, :, None], jnp.einsum("bskgh,bckh->bkgsc", q, keys,
                                   preferred_element_type=jnp.float32) * H ** -0.5, -1e30)
  scores = jnp.concatenate([score(cache.k, cached_mask), score(k_BSKH, mask)], axis=-1)
  weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
  mix = lambda w, values: jnp.einsum("bkgsc,bckh->bskgh", w, values)
  out = mix(weights[..., :C], cache.v) + mix(weights[..., C:], v_BSKH)
  return out.reshape(B, S, N, H)


class RMSNorm(nn.Module):
  """x / rms(x) * scale, computed in float32. https://arxiv.org/abs/1910.07467"""

  cfg: TransformerConfig

  @nn.compact
  def __call__(self, x):
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.cfg.param_dtype)
    x32 = x.astype(jnp.float32)
    var = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
    y = x32 * jax.lax.rsqrt(var + self.cfg.norm_eps)
    return (y * scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class Block(nn.Module):
  """Pre-norm attention and gated MLP; the signature is that of a `scan` body."""

  cfg: TransformerConfig
  keep_kv: bool = False

  def dense(self, name, x, shape, axes):
    """x @ kernel, contracting the last `axes` axes of x; fan-in initialised."""
    fan_in = nn.initializers.variance_scaling(
        1.0, "fan_in", "normal", in_axis=tuple(range(axes)),
        out_axis=tuple(range(axes, len(shape))))
    kernel = self.param(name, fan_in, shape, self.cfg.param_dtype).astype(x.dtype)
    contract = tuple(range(x.ndim - axes, x.ndim))
    return jax.lax.dot_general(x, kernel, ((contract, tuple(range(axes))), ((), ())))

  def heads(self, name, x, count):
    """x projected to `count` heads [B, S, count, head_dim]."""
    y = self.dense(name, x, (self.cfg.width, count, self.cfg.head_dim), 1)
    if self.cfg.qkv_bias:
      bias = self.param(f"{name}_bias", nn.initializers.zeros, (count, self.cfg.head_dim),
                        self.cfg.param_dtype)
      y = y + bias.astype(y.dtype)[None, None]
    return y

  def attention(self, x, cache, rope, mask, cached_mask):
    """Returns the attended values and this call's keys and values, a Cache of one layer."""
    cfg = self.cfg
    q, k, v = (self.heads("q", x, cfg.heads), self.heads("k", x, cfg.kv_heads),
               self.heads("v", x, cfg.kv_heads))
    q, k = rotate(q, *rope), rotate(k, *rope)
    if cache is None:
      out = jax.nn.dot_product_attention(q, k, v, mask=mask)
    else:
      out = attend_cached(q, k, v, cache, mask, cached_mask)
    return self.dense("o", out, (cfg.heads, cfg.head_dim, cfg.width), 2), Cache(k, v)

  @nn.compact
  def __call__(self, x, cache, rope, mask, cached_mask):
    attended, new = self.attention(
        RMSNorm(self.cfg, name="norm_attn")(x), cache, rope, mask, cached_mask)
    x = x + attended
    y = RMSNorm(self.cfg, name="norm_mlp")(x)
    gate = self.dense("gate", y, (self.cfg.width, self.cfg.mlp), 1)
    up = self.dense("up", y, (self.cfg.width, self.cfg.mlp), 1)
    y = ACTIVATIONS[self.cfg.activation](gate) * up
    x = x + self.dense("down", y, (self.cfg.mlp, self.cfg.width), 1)
    return x, new if self.keep_kv else None


class Transformer(nn.Module):
  """tokens -> hidden states. With a cache, new keys and values go to their positions."""

  cfg: TransformerConfig

  @nn.compact
  def __call__(self, tokens_BS: Array, positions_BS: Array | None = None,
               cache: Cache | None = None, keep_kv: bool = False) -> tuple[Array, Cache | None]:
    """Runs the model on right-padded rows.

    Args:
      tokens_BS: int32. Padding is on the right: causality alone keeps it out of earlier positions.
      positions_BS: int32, ascending and contiguous in each row; default 0, 1, 2, ... With a cache
        they are also where the new keys go; what the cache holds at and beyond the first of
        them is not seen.
      cache: see `Cache`; its capacity must cover the last position.
      keep_kv: without a cache, return this call's keys and values as one of capacity S.

    Returns:
      hidden_BSD after the final norm, and the new cache (None if there is nothing to keep).
    """
    cfg = self.cfg
    B, S = tokens_BS.shape
    if positions_BS is None:
      positions_BS = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32)[None, :], (B, S))
    embed = self.param("embed", nn.initializers.normal(cfg.width ** -0.5), (cfg.vocab, cfg.width),
                       cfg.param_dtype)
    if not cfg.tied:
      self.param("head", nn.initializers.normal(cfg.width ** -0.5), (cfg.vocab, cfg.width),
                 cfg.param_dtype)
    x = embed.astype(cfg.dtype)[tokens_BS]
    if cfg.scale_embed:
      x = x * jnp.asarray(cfg.width ** 0.5, cfg.dtype)
    at_BS = positions_BS[:, None, :]
    mask = (at_BS <= positions_BS[:, :, None])[:, None]
    cached_mask = None if cache is None else (
        jnp.arange(cache.k.shape[2])[None, None, :] < positions_BS[:, :1, None])[:, None]
    block = nn.remat(Block, prevent_cse=not cfg.scan) if cfg.remat else Block
    keep_kv = keep_kv or cache is not None
    layers = nn.scan(block, variable_axes={"params": 0}, split_rngs={"params": True},
                     in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                     length=cfg.layers, unroll=1 if cfg.scan else cfg.layers)
    rope = rope_table(positions_BS, cfg.head_dim, cfg.rope_theta)
    x, new = layers(cfg, keep_kv, name="layers")(x, cache, rope, mask, cached_mask)
    if cache is not None:
      new = jax.tree.map(
          lambda old, n: old.at[:, jnp.arange(B)[:, None], positions_BS].set(n), cache, new)
    return RMSNorm(cfg, name="norm")(x), new


def unembed(cfg: TransformerConfig, params) -> Array:
  """The head's matrix [V, D]."""
  return params["embed"] if cfg.tied else params["head"]
