"""One decoder-only transformer for all families. Pure functions over a tree of parameters.

`specs(cfg)` names every parameter with its shape, its logical axes and how it starts; that one
table is what initialisation, sharding, adapters and the Hugging Face map read. `forward` returns
hidden states; there is no logits API: training asks `rljax.ops.token_logprobs`, the sampler
unembeds one position per row. Parameters of all layers are stacked on a leading axis [L, ...].
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import ad_checkpoint

from rljax import sharding
from rljax.models import cache as cache_lib
from rljax.models import moe, tree
from rljax.types import Array, PyTree

ACTIVATIONS = {"silu": jax.nn.silu, "gelu": jax.nn.gelu, "relu": jax.nn.relu}
# What the backward pass keeps of a layer instead of computing it again.
REMAT = {
    "none": jax.checkpoint_policies.everything_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attended"),
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How rotary frequencies are stretched for longer contexts.

  Attributes:
    kind: "linear" divides all by `factor` (Gemma 3); "llama3" divides only wavelengths longer than
      `original / low`, leaves those shorter than `original / high`, and blends between.
    original: positions of the first training (llama3).
  """

  kind: str
  factor: float
  low: float = 1.0
  high: float = 4.0
  original: int = 8192


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """Sizes and switches; hashable, so it may be a static argument.

  Attributes:
    vocab: number of token ids. width: D. mlp: hidden width of the gated MLP.
    layers, heads, kv_heads: `heads` must be a multiple of `kv_heads`.
    head_dim: defaults to width // heads; even, because RoPE rotates pairs.
    activation: of the MLP gate. "relu" is the cheapest to differentiate on a CPU.
    rope_theta, rope_scaling: of layers that see everything; rope_theta_local: of layers with a
      window, unscaled (Gemma 3); 0 = the same as all.
    window: positions seen by layers with a sliding window, 0 = no such layers. local: per layer,
      whether it has the window; () = all of them.
    query_scale: multiplies attention scores; 0 = head_dim ** -0.5.
    attention_softcap, softcap: c tanh(x / c) of attention scores and of logits (Gemma 2); 0 = off.
    tied: the head is the embedding.
    scale_embed: multiply embedded tokens by sqrt(width). Embedding rows start with norm 1, so that
      a tied head starts near uniform; the residual stream wants rms 1.
    qkv_bias: q, k and v have biases (Qwen2). qk_norm: RMSNorm of each head of q and k (Qwen3).
    post_norms: also a norm after attention and after the MLP (Gemma 2, 3).
    norm_plus_one: norms multiply by 1 + scale (Gemma).
    experts: 0 = a dense MLP; else each token goes to `experts_per_token` of them, each of hidden
      width `mlp`. norm_routes: the chosen routing weights are scaled to sum to 1.
    scan: True scans over the layers (compile time does not grow with depth); False unrolls them
      (about twice as fast on a CPU at small width). Same parameters either way.
    remat: what the backward pass recomputes of a layer: a key of `REMAT`.
    query_chunk: queries whose attention scores exist at one time in training; 0 = all.
    decode_by_rows: decoding reads the cache's later segments row by row, those that reach so far,
      instead of all rows of every segment; faster on a CPU.
    dtype: of activations. param_dtype: of parameters.
    lora: rank, alpha and targets of adapters (`rljax.models.lora.Lora`), None = without.
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
  rope_scaling: RopeScaling | None = None
  rope_theta_local: float = 0.0
  window: int = 0
  local: tuple[bool, ...] = ()
  query_scale: float = 0.0
  attention_softcap: float = 0.0
  softcap: float = 0.0
  norm_eps: float = 1e-6
  tied: bool = True
  scale_embed: bool = True
  qkv_bias: bool = False
  qk_norm: bool = False
  post_norms: bool = False
  norm_plus_one: bool = False
  experts: int = 0
  experts_per_token: int = 0
  norm_routes: bool = True
  scan: bool = True
  remat: str = "none"
  query_chunk: int = 1024
  decode_by_rows: bool = False
  dtype: str = "float32"
  param_dtype: str = "float32"
  lora: object = None

  def __post_init__(self):
    if self.head_dim == 0:
      object.__setattr__(self, "head_dim", self.width // self.heads)
    if self.heads % self.kv_heads:
      raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
    if self.head_dim % 2:
      raise ValueError(f"head_dim={self.head_dim} must be even (RoPE)")
    for field, table in (("activation", ACTIVATIONS), ("remat", REMAT)):
      if getattr(self, field) not in table:
        raise ValueError(f"{field}={getattr(self, field)!r}; one of {', '.join(table)}")
    if self.rope_scaling and self.rope_scaling.kind not in ("linear", "llama3"):
      raise ValueError(f"rope scaling {self.rope_scaling.kind!r}; one of linear, llama3")
    if self.local and len(self.local) != self.layers:
      raise ValueError(f"local has {len(self.local)} entries for {self.layers} layers")
    if self.experts and not 0 < self.experts_per_token <= self.experts:
      raise ValueError(
          f"experts_per_token={self.experts_per_token}; 1 to experts={self.experts} can be chosen")

  def windowed(self) -> tuple[bool, ...]:
    """Per layer: does it have the sliding window?"""
    return (self.local or (True,) * self.layers) if self.window else (False,) * self.layers


def specs(cfg: TransformerConfig) -> dict[str, tree.Spec]:
  """Path ("layers/q") -> Spec, of every parameter of this config."""
  D, N, K, H, M, E = (cfg.width, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp, cfg.experts)
  Spec = tree.Spec
  start = "zeros" if cfg.norm_plus_one else "ones"
  norm = lambda size, axis="embed": Spec((size,), (axis,), 0, start)
  layer = {
      "norm_attn/scale": norm(D), "norm_mlp/scale": norm(D),
      "q": Spec((D, N, H), ("embed", "heads", "head_dim"), 1),
      "k": Spec((D, K, H), ("embed", "kv_heads", "head_dim"), 1),
      "v": Spec((D, K, H), ("embed", "kv_heads", "head_dim"), 1),
      "o": Spec((N, H, D), ("heads", "head_dim", "embed"), 2),
  }
  if cfg.qkv_bias:
    layer |= {"q_bias": Spec((N, H), ("heads", "head_dim"), 0, "zeros"),
              "k_bias": Spec((K, H), ("kv_heads", "head_dim"), 0, "zeros"),
              "v_bias": Spec((K, H), ("kv_heads", "head_dim"), 0, "zeros")}
  if cfg.qk_norm:
    layer |= {"norm_q/scale": norm(H, "head_dim"), "norm_k/scale": norm(H, "head_dim")}
  if cfg.post_norms:
    layer |= {"norm_attn_out/scale": norm(D), "norm_mlp_out/scale": norm(D)}
  ahead, axis = ((E,), ("experts",)) if E else ((), ())
  if E:
    layer["router"] = Spec((D, E), ("embed", None), 1)
  layer |= {"gate": Spec((*ahead, D, M), (*axis, "embed", "mlp"), 1),
            "up": Spec((*ahead, D, M), (*axis, "embed", "mlp"), 1),
            "down": Spec((*ahead, M, D), (*axis, "mlp", "embed"), 1)}
  if cfg.lora:
    layer |= cfg.lora.specs(layer)
  out = {f"layers/{n}": s._replace(shape=(cfg.layers, *s.shape), axes=("layers", *s.axes))
         for n, s in layer.items()}
  out |= {"embed": Spec((cfg.vocab, D), ("vocab", "embed"), 0, "embed"), "norm/scale": norm(D)}
  if not cfg.tied:
    out["head"] = Spec((cfg.vocab, D), ("vocab", "embed"), 0, "embed")
  return out


def inverse_frequencies(cfg: TransformerConfig, local: bool) -> Array:
  """Rotary radians per position of each pair, float32 [head_dim / 2]."""
  theta = cfg.rope_theta_local if local and cfg.rope_theta_local else cfg.rope_theta
  inv = theta ** (-jnp.arange(0, cfg.head_dim, 2, dtype=jnp.float32) / cfg.head_dim)
  scaling = cfg.rope_scaling
  if scaling is None or (local and cfg.rope_theta_local):
    return inv
  if scaling.kind == "linear":
    return inv / scaling.factor
  wave = 2 * jnp.pi / inv
  blend = jnp.clip((scaling.original / wave - scaling.low) / (scaling.high - scaling.low), 0, 1)
  return inv * (blend + (1 - blend) / scaling.factor)


def rope_table(positions_BS: Array, inv: Array) -> tuple[Array, Array]:
  """cos, sin [B, S, 1, head_dim] for rotating the two halves of a head, float32."""
  angle = positions_BS[..., None].astype(jnp.float32) * inv[None, None, :]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return (jnp.concatenate([cos, cos], -1)[:, :, None, :],
          jnp.concatenate([-sin, sin], -1)[:, :, None, :])


def rotate(x_BSNH: Array, cos: Array, sin: Array) -> Array:
  half = x_BSNH.shape[-1] // 2
  swapped = jnp.concatenate([x_BSNH[..., half:], x_BSNH[..., :half]], -1)
  return (x_BSNH * cos + swapped * sin).astype(x_BSNH.dtype)


def rms_norm(cfg: TransformerConfig, x: Array, scale: Array) -> Array:
  """x / rms(x) * scale, computed in float32. https://arxiv.org/abs/1910.07467"""
  x32 = x.astype(jnp.float32)
  y = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + cfg.norm_eps)
  scale = scale.astype(jnp.float32) + (1.0 if cfg.norm_plus_one else 0.0)
  return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


def project(cfg: TransformerConfig, w: dict, name: str, x: Array, inputs: int = 1) -> Array:
  """x @ kernel (+ bias, + adapter, where the layer has them), contracting `inputs` last axes."""
  def dot(x, kernel, inputs):
    contract = tuple(range(x.ndim - inputs, x.ndim)), tuple(range(inputs))
    return jax.lax.dot_general(x, kernel.astype(x.dtype), (contract, ((), ())))
  y = dot(x, w[name], inputs)
  if f"{name}_bias" in w:
    y = y + w[f"{name}_bias"].astype(y.dtype)[None, None]
  if f"{name}_lora_a" in w:
    y = y + cfg.lora.scale * dot(dot(x, w[f"{name}_lora_a"], inputs), w[f"{name}_lora_b"], 1)
  return y


class Where(NamedTuple):
  """Where the tokens of a call stand: positions; packed, their segment and the prefix it sees too;
  `counted` are real; `shared`, rows whose caches begin alike."""

  positions_BS: Array
  packed: tuple[Array, Array] | None
  counted_BS: Array | None
  shared: cache_lib.Shared | None = None


def attention(cfg: TransformerConfig, w: dict, x: Array, where: Where, rope, window, cache):
  """Returns the attended values and this call's keys and values, a Cache of one layer."""
  q, k, v = (project(cfg, w, name, x) for name in "qkv")
  if cfg.qk_norm:
    q, k = (rms_norm(cfg, y, w[f"norm_{n}"]["scale"]) for n, y in (("q", q), ("k", k)))
  q, k = rotate(q, *rope), rotate(k, *rope)
  new = cache_lib.Cache(jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))
  scale = cfg.query_scale or cfg.head_dim ** -0.5
  by_rows = cfg.decode_by_rows and x.shape[1] == 1
  attend = functools.partial(cache_lib.attend, scale=scale, softcap=cfg.attention_softcap,
                             by_rows=by_rows, shared=where.shared)
  at, packed = where.positions_BS, where.packed

  def over_new(q, at_q, packed_q):
    mask = cache_lib.visible(at_q, at, window)
    if packed is not None:
      key = packed[0][:, None, :]
      mask &= (packed_q[0][:, :, None] == key) | (packed_q[1][:, :, None] == key)
    return new, mask

  if cache is not None:
    blocks, first = [], 0
    for segment in cache:
      seen = cache_lib.before(at[:, 0], first, cache_lib.size(segment), at, window,
                              where.shared)
      blocks.append((segment, seen))
      first += cache_lib.size(segment)
    out = attend(q, [*blocks, over_new(q, at, packed)])
  else:
    out = _by_chunks(lambda *one: attend(one[0], [over_new(*one)]), cfg.query_chunk,
                     q, at, packed)
  out = ad_checkpoint.checkpoint_name(out, "attended")
  return project(cfg, w, "o", out, 2), new


def _by_chunks(fn, size, q_BSNH, at_BS, packed):
  """fn over chunks of queries one after the other, recomputed in the backward pass."""
  S = q_BSNH.shape[1]
  if not size or S <= size:
    return fn(q_BSNH, at_BS, packed)
  n = -(-S // size)
  def split(x):
    x = jnp.pad(x, ((0, 0), (0, n * size - S)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(x.shape[0], n, size, *x.shape[2:]), 1, 0)
  parts = jax.tree.map(split, (q_BSNH, at_BS, packed))
  out = jax.lax.map(jax.checkpoint(lambda one: fn(*one)), parts)
  return jnp.moveaxis(out, 0, 1).reshape(q_BSNH.shape[0], n * size, *q_BSNH.shape[2:])[:, :S]


def feed_forward(cfg: TransformerConfig, w: dict, x: Array, where: Where):
  """The gated MLP, dense or of experts; and the router's balance loss [B] (None if dense)."""
  act = ACTIVATIONS[cfg.activation]
  if cfg.experts:
    return moe.mlp(x, w, act, per_token=cfg.experts_per_token, norm_routes=cfg.norm_routes,
                   counted_BS=where.counted_BS)
  y = act(project(cfg, w, "gate", x)) * project(cfg, w, "up", x)
  return project(cfg, w, "down", sharding.constrain(y, ("batch", None, "mlp"))), None


def block(cfg: TransformerConfig, w: dict, x: Array, where: Where, rope, window, cache):
  """One layer: (x, its new keys and values, the router's loss)."""
  norm = lambda name, y: rms_norm(cfg, y, w[name]["scale"])
  y, new = attention(cfg, w, norm("norm_attn", x), where, rope, window, cache)
  x = x + (norm("norm_attn_out", y) if cfg.post_norms else y)
  y, router_B = feed_forward(cfg, w, norm("norm_mlp", x), where)
  x = x + (norm("norm_mlp_out", y) if cfg.post_norms else y)
  return sharding.constrain(x, ("batch", None, None)), new, router_B


def embed(cfg: TransformerConfig, params: PyTree, tokens_BS: Array) -> Array:
  """What tokens put into the residual stream [B, S, D]."""
  x = params["embed"].astype(cfg.dtype)[tokens_BS]
  return x * jnp.asarray(cfg.width ** 0.5, cfg.dtype) if cfg.scale_embed else x


class Output(NamedTuple):
  """hidden_BSD after the final norm; this call's keys and values if they were asked for; router_B,
  the balance loss of a mixture of experts per row (mean over layers), None if dense."""

  hidden: Array
  cache: cache_lib.Cache | None
  router_B: Array | None


def forward(cfg: TransformerConfig, params: PyTree, tokens_BS: Array,
            positions_BS: Array | None = None, cache: cache_lib.Segments | None = None, *,
            packed: tuple[Array, Array] | None = None, counted_BS: Array | None = None,
            keep_kv: bool = False, embedded_BSD: Array | None = None,
            shared: cache_lib.Shared | None = None) -> Output:
  """Runs the model on right-padded (or packed) rows, or behind what a cache holds of them.

  Args:
    tokens_BS: int32. Padding is on the right: causality alone keeps it out of earlier positions.
    positions_BS: int32, ascending and contiguous in each row; default 0, 1, 2, ...
    cache: see `rljax.models.cache`; what it holds before a row's first position is seen. It is only
      read: `cache.write` adds the new keys and values.
    packed: int32 [B, S] twice, the segment of each token and another one that it sees; beside these
      two it sees nothing (packed rows; not with a cache).
    counted_BS: float, 1 for real tokens: those in the router's balance loss. None = all.
    keep_kv: return this call's keys and values, a segment of capacity S.
    embedded_BSD: what stands at each position, where not all of it is `embed(tokens_BS)`.
    shared: see `cache.attend`; of single tokens with `decode_by_rows` alone.
  """
  if positions_BS is None:  # one row for all: so are the rotations and the mask
    positions_BS = jnp.arange(tokens_BS.shape[1], dtype=jnp.int32)[None, :]
  x = embed(cfg, params, tokens_BS) if embedded_BSD is None else embedded_BSD
  x = sharding.constrain(x, ("batch", None, None))
  where = Where(positions_BS, packed, counted_BS, shared)
  x, new, router = layers(cfg, params["layers"], x, where, cache, keep_kv)
  hidden = rms_norm(cfg, x, params["norm"]["scale"])
  return Output(hidden, new, None if router is None else jnp.mean(router, axis=0))


def layers(cfg: TransformerConfig, stacked: PyTree, x: Array, where: Where, cache=None,
           keep_kv: bool = False):
  """All layers: x [B, S, D], new keys and values (None if not kept), router losses [L, B] or
  None."""
  kinds = sorted(set(cfg.windowed()))  # one kind of layer, or both
  ropes = [rope_table(where.positions_BS, inverse_frequencies(cfg, local)) for local in kinds]

  def one(x, w, cache, rope, window):
    x, new, router_B = block(cfg, w, x, where, rope, window, cache)
    return x, (new if keep_kv else None, router_B)
  if cfg.remat != "none":
    one = jax.checkpoint(one, policy=REMAT[cfg.remat], prevent_cse=not cfg.scan,
                         static_argnums=(4,) if len(kinds) == 1 or not cfg.scan else ())
  window_of = lambda local: cfg.window if local else 0

  if not cfg.scan:
    news, routers = [], []
    for l, local in enumerate(cfg.windowed()):
      w = jax.tree.map(lambda a, l=l: a[l], stacked) if isinstance(stacked, dict) else stacked[l]
      mine = cache and tuple(segment[l] for segment in cache)
      x, (new, router_B) = one(x, w, mine, ropes[kinds.index(local)], window_of(local))
      news.append(new)
      routers.append(router_B)
    return x, tuple(news), jnp.stack(routers) if cfg.experts else None

  if len(kinds) == 1:
    body = lambda x, layer: one(x, *layer, ropes[0], window_of(kinds[0]))
    x, (new, router) = jax.lax.scan(body, x, (stacked, cache))
    return x, new, router

  def mixed(x, layer):
    *layer, local = layer
    rope = jax.tree.map(lambda a, b: jnp.where(local, b, a), *ropes)
    return one(x, *layer, rope, jnp.where(local, cfg.window, 0))
  x, (new, router) = jax.lax.scan(mixed, x, (stacked, cache, jnp.asarray(cfg.windowed())))
  return x, new, router


def unstack(cfg: TransformerConfig, params: PyTree) -> PyTree:
  """The same parameters with `layers` as a tuple of layers, where they are not scanned over.

  `forward` takes both. Slicing a stacked kernel copies it, which costs more than using it where one
  token is decoded at a time.
  """
  if cfg.scan:
    return params
  layers = tuple(jax.tree.map(lambda a, l=l: a[l], params["layers"]) for l in range(cfg.layers))
  return {**params, "layers": layers}


def unembed(cfg: TransformerConfig, params: PyTree) -> Array:
  """The head's matrix [V, D]."""
  return params["embed"] if cfg.tied else params["head"]
