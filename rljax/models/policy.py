"""The model adapter: the only code that reads `Batch.inputs`. apply -> TokenStats.

A `Policy` is pure functions over parameters and is hashable, so it may be a static argument. The
trainer calls `stats`, the sampler `prefill` and `extend`; all run the same transformer.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rljax import ops, sharding, types
from rljax.config import ConfigError
from rljax.models import cache as cache_lib
from rljax.models import heads, transformer, tree
from rljax.types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Policy:
  """A decoder as pure functions.

  Attributes:
    cfg: the transformer's sizes.
    temperature: at which the trainer evaluates log-probabilities; that of the sampler, so that
      ratios compare the same distribution.
    head: values or rewards per action, None = without.
    tower: what reads images (`rljax.models.vision.Tower`), None = text alone.
    layout: how parameters and activations are split over devices, None = not at all.
  """

  cfg: transformer.TransformerConfig
  temperature: float = 1.0
  head: heads.Head | None = None
  tower: object = None
  layout: sharding.Layout | None = None

  def specs(self) -> dict[str, tree.Spec]:
    """Path -> shape, logical axes and start of every parameter."""
    parts = [self.head.specs(self.cfg.width)] if self.head else []
    parts += [self.tower.specs(self.cfg.width)] if self.tower else []
    return functools.reduce(lambda a, b: a | b, parts, transformer.specs(self.cfg))

  @property
  def patches(self) -> int:
    """Tokens that one image of a prompt takes; 0 = none can be read."""
    return self.tower.patches if self.tower else 0

  def table(self, media: tuple, tokens: np.ndarray) -> np.ndarray:
    """The images that one row's tokens name, as the array that the sampler takes.

    Raises:
      ConfigError: the model reads text alone, or the tokens name other images.
    """
    if self.tower is None:
      raise ConfigError(f"a prompt has {len(media)} images, and the model reads text alone; see "
                        f"rljax.models.vision")
    return self.tower.table(media, tokens)

  def media(self, media: Sequence[tuple], tokens: Sequence[np.ndarray], rows: int
            ) -> dict[str, np.ndarray]:
    """What `Batch.inputs` holds of the images of so many rows, the first of them given; {} for a
    model that reads text alone. Raises as `table`."""
    if self.tower is None and not any(media):
      return {}
    tables = [self.table(m, t) for m, t in zip(media, tokens, strict=True)]
    empty = np.zeros((rows - len(tables), *self.tower.shape), np.uint8)
    return {"media_BNHWC": np.concatenate([np.asarray(tables, np.uint8).reshape(
        -1, *self.tower.shape), empty])}

  def init(self, key: Array, paths: Collection[str] | None = None) -> PyTree:
    """Random parameters; each one's draw depends on the key and its own name alone.

    Args:
      paths: of the parameters wanted; None = all.
    """
    chosen = {p: s for p, s in self.specs().items() if paths is None or p in paths}
    make = lambda key: {
        path: tree.start(path, spec, key, self.cfg.param_dtype) for path, spec in chosen.items()}
    place = None if self.layout is None else {
        path: self.layout.sharding(spec.axes, spec.shape) for path, spec in chosen.items()}
    return tree.nest(jax.jit(make, out_shardings=place)(key))

  def shapes(self, paths: Collection[str] | None = None) -> PyTree:
    """The parameters as ShapeDtypeStructs, with their shardings where there is a layout."""
    place = lambda s: self.layout.sharding(s.axes, s.shape) if self.layout else None
    return tree.nest({
        path: jax.ShapeDtypeStruct(s.shape, self.cfg.param_dtype, sharding=place(s))
        for path, s in self.specs().items() if paths is None or path in paths})

  def adopt(self, params: PyTree, key: Array) -> PyTree:
    """Parameters of another source as this model's: cast, without what it does not have.

    A head that the source lacks starts fresh.

    Raises:
      ConfigError: a parameter of the transformer is missing or has another shape.
    """
    found, specs = tree.flatten(params), self.specs()
    fresh = {path for path in specs if path not in found}
    for path, spec in specs.items():
      if path in fresh and not path.startswith("value/"):
        raise ConfigError(f"the weights it starts from have no {path}")
      if path in found and found[path].shape != spec.shape:
        raise ConfigError(f"the weights it starts from have {path} of shape {found[path].shape}, "
                          f"this model wants {spec.shape}")
    out = {path: jnp.asarray(x, self.cfg.param_dtype) for path, x in found.items() if path in specs}
    return tree.nest(out | tree.flatten(self.init(key, fresh)))

  def for_sampling(self, params: PyTree) -> PyTree:
    """The parameters with every matrix in the activations' dtype: the same function, less memory
    read per token."""
    specs = self.specs()
    return tree.nest({
        path: x.astype(self.cfg.dtype) if specs[path].inputs or specs[path].init == "embed" else x
        for path, x in tree.flatten(params).items()})

  def _active(self):
    return self.layout.active() if self.layout else contextlib.nullcontext()

  def unembed(self, params: PyTree) -> Array:
    """The matrix of the language head [V, D]."""
    return transformer.unembed(self.cfg, params)

  def stats(self, params: PyTree, batch: types.Batch) -> types.TokenStats:
    """Log-probability and entropy of every action, and what the head says there.

    Args:
      batch: `inputs` holds tokens_BS int32 (right-padded) and action_pos_BT int32, the position
        whose hidden state predicts each action; or the packed form of `rljax.data.packing`. With
        images, media_BNHWC too, of which some tokens are patches (`types.FIRST_PATCH`).
        `extras["ids_BTK"]` (-1 = none) asks for the log-probabilities of those tokens too, as
        `TokenStats.extras["logp_BTK"]`; `extras["uniform_kl_BT"]` (any content) for KL(U || p), the
        divergence of the uniform distribution from the model's, nats, under the same name.
    """
    with self._active():
      return self._stats(params, batch)

  def _stats(self, params, batch):
    inputs = batch.inputs
    tokens_BS, pos_BT = inputs["tokens_BS"], inputs["action_pos_BT"]
    row_B = inputs.get("row_B")
    packed = None if row_B is None else (inputs["segments_BS"], inputs["prefixes_BS"])
    counted_BS = None
    if self.cfg.experts and packed:
      counted_BS = (packed[0] >= 0).astype(jnp.float32)
    elif self.cfg.experts:  # the last position that predicts an action ends the row
      at_1S = jnp.arange(tokens_BS.shape[1])[None, :]
      counted_BS = (at_1S <= jnp.max(pos_BT, axis=1)[:, None]).astype(jnp.float32)
    out = transformer.forward(
        self.cfg, params, tokens_BS, inputs.get("positions_BS"), packed=packed,
        counted_BS=counted_BS, embedded_BSD=self._embedded(
            params, tokens_BS, inputs.get("media_BNHWC"), inputs.get("owner_BS")))
    if row_B is None:
      hidden_BTD = jnp.take_along_axis(out.hidden, pos_BT[:, :, None], axis=1)
    else:
      hidden_BTD = sharding.of_rows(out.hidden, row_B[:, None], pos_BT)
    logp_BT, entropy_BT = self._logprobs(params, hidden_BTD, batch.actions_BT)
    extras = {}
    if out.router_B is not None:
      extras["router_B"] = (
          out.router_B if row_B is None else sharding.of_rows(out.router_B, row_B))
    if "ids_BTK" in batch.extras:
      extras["logp_BTK"] = self._logprobs_of(params, hidden_BTD, batch.extras["ids_BTK"])
    if "uniform_kl_BT" in batch.extras:
      extras["uniform_kl_BT"] = self._uniform_kl(params, hidden_BTD, batch.actions_BT, logp_BT)
    value_BT = None
    if self.head:
      extras["heads_BTK"] = self.head(params, hidden_BTD)
      value_BT = extras["heads_BTK"][..., 0] if self.head.outputs == 1 else None
    return types.TokenStats(logp_BT, entropy_BT, value_BT, extras)

  def _logprobs(self, params, hidden_BTD, targets_BT):
    return ops.token_logprobs(
        hidden_BTD, self.unembed(params).astype(hidden_BTD.dtype), targets_BT,
        temperature=self.temperature, softcap=self.cfg.softcap, return_entropy=True)

  def _uniform_kl(self, params, hidden_BTD, targets_BT, logp_BT):
    """-log V - mean_v log p_v, without the logits: their mean is that of one averaged row, and the
    normaliser is a target's logit less its log-probability."""
    if self.cfg.softcap:
      raise ConfigError("KL(U || p) is not computed for a model with soft-capped logits")
    rows_VD, hidden_BTD = self.unembed(params), hidden_BTD.astype(jnp.float32)
    dot = lambda rows: jnp.sum(hidden_BTD * rows.astype(jnp.float32), axis=-1) / self.temperature
    mean_D = jnp.mean(rows_VD.astype(jnp.float32), axis=0)[None, None]
    normaliser_BT = dot(rows_VD[targets_BT].astype(hidden_BTD.dtype)) - logp_BT
    return normaliser_BT - dot(mean_D) - np.log(rows_VD.shape[0])

  def _logprobs_of(self, params, hidden_BTD, ids_BTK):
    """[B, T, K]: one pass per k keeps the memory that of one column."""
    one = lambda ids_BT: self._logprobs(params, hidden_BTD, jnp.maximum(ids_BT, 0))[0]
    return jnp.moveaxis(jax.lax.map(one, jnp.moveaxis(ids_BTK, -1, 0)), 0, -1)

  def _embedded(self, params, tokens_BS, media_BNHWC, owner_BS=None):
    """Embeddings where some tokens may stand for patches; None where all are text."""
    if media_BNHWC is None:
      return None
    return self.tower.embedded(self.cfg, params, tokens_BS, media_BNHWC, owner_BS)

  def prefill(self, params: PyTree, tokens_BP: Array, length_B: Array, media_BNHWC=None):
    """Reads right-padded prompts: hidden state of each one's last token [B, D], and their cache."""
    with self._active():
      out = transformer.forward(self.cfg, params, tokens_BP, keep_kv=True,
                                embedded_BSD=self._embedded(params, tokens_BP, media_BNHWC))
    return _last(out.hidden, length_B), out.cache

  def extend(self, params: PyTree, tokens_BP: Array, length_B: Array, start_B: Array,
             cache: cache_lib.Segments, media_BNHWC: Array | None = None,
             shared: cache_lib.Shared | None = None):
    """Reads tokens behind the first `start_B` that the cache holds of each row.

    Args:
      shared: rows whose caches begin alike (`cache.Shared`); of single tokens, with
        `decode_by_rows`.

    Returns:
      Hidden state of each row's last token [B, D], and the new keys and values, a segment of
      capacity P, to be written by `cache.write`.
    """
    at_BP = start_B[:, None] + jnp.arange(tokens_BP.shape[1], dtype=jnp.int32)[None, :]
    with self._active():
      out = transformer.forward(self.cfg, params, tokens_BP, at_BP, cache, keep_kv=True,
                                embedded_BSD=self._embedded(params, tokens_BP, media_BNHWC),
                                shared=shared)
    return _last(out.hidden, length_B), out.cache

  def unstack(self, params: PyTree) -> PyTree:
    """The parameters as `prefill` and `extend` read them fastest (`transformer.unstack`)."""
    return transformer.unstack(self.cfg, params)

  def logits(self, params: PyTree, hidden_BD: Array) -> Array:
    """[B, V] float32, for the sampler: one position per row."""
    z_BV = jnp.einsum("bd,vd->bv", hidden_BD, self.unembed(params).astype(hidden_BD.dtype),
                      preferred_element_type=jnp.float32)
    return self.cfg.softcap * jnp.tanh(z_BV / self.cfg.softcap) if self.cfg.softcap else z_BV


def _last(hidden_BSD: Array, length_B: Array) -> Array:
  at_B11 = jnp.maximum(length_B - 1, 0)[:, None, None]
  return jnp.take_along_axis(hidden_BSD, at_B11, axis=1)[:, 0]


def gated(width: int) -> int:
  """Hidden width of a gated MLP of 8 * width^2 weights, a multiple of 8."""
  return -(-8 * width // 3 // 8) * 8


def decoder(vocab: int, *, width: int = 128, layers: int = 3, heads: int = 4, kv_heads: int = 0,
            head_dim: int = 0, mlp: int = 0, activation: str = "silu", rope_theta: float = 10000.0,
            window: int = 0, experts: int = 0, experts_per_token: int = 2, tied: bool = True,
            scan: bool = True, remat: str = "none", dtype: str = "float32",
            temperature: float = 1.0) -> Policy:
  """A decoder of these sizes; kv_heads 0 = heads, mlp 0 = the gated size of 8 * width^2 weights."""
  cfg = transformer.TransformerConfig(
      vocab=vocab, width=width, layers=layers, heads=heads, kv_heads=kv_heads or heads,
      head_dim=head_dim, mlp=mlp or gated(width), activation=activation,
      rope_theta=rope_theta, window=window, experts=experts,
      experts_per_token=experts_per_token if experts else 0, tied=tied, scan=scan, remat=remat,
      dtype=dtype)
  return Policy(cfg, temperature)


def count(params: PyTree) -> int:
  """Number of parameters."""
  return sum(x.size for x in jax.tree.leaves(params))
