"""Images for the decoder: a patch transformer whose outputs stand where patch tokens stand.

The tokenizer (`rljax.data.text:images`) writes the ids of patches (`types.FIRST_PATCH` and above)
where a prompt names an image. So buckets, packing, caches and the engine see plain tokens, and the
only new thing is one array of pixels per row, media_BNHWC. Places for images that a row does not
have are read by no token.

Tiny here, built for synthetic images of one size. A Qwen2.5-VL checkpoint would still need: images
of any size (patch grids per image instead of one static grid), window attention in most layers of
the tower with 2-D rotary positions in place of the learned ones, the merger that joins 2 x 2
patches before the projection, multimodal RoPE (three position components) in the decoder, and names
for its tensors in `families`.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from rljax import sharding
from rljax.config import ConfigError
from rljax.models import hf as hf_lib
from rljax.models import policy, transformer, tree
from rljax.types import FIRST_PATCH, Array, PyTree

CHANNELS = 3


@dataclasses.dataclass(frozen=True)
class Tower:
  """Patches -> transformer -> projection, one image at a time. Hashable; part of a Policy.

  Attributes:
    cfg: of its layers; what concerns tokens is unused.
    images: N, the most of one row; each place has a learned embedding.
    size: height and width of an image in pixels; a smaller one is padded with black.
    patch: height and width of a patch; they divide those of the image.
  """

  cfg: transformer.TransformerConfig
  images: int
  size: tuple[int, int]
  patch: tuple[int, int]

  def __post_init__(self):
    if self.images < 1 or any(p < 1 or s < p or s % p for s, p in zip(self.size, self.patch)):
      raise ValueError(f"images={self.images} of {self.size} pixels in patches of {self.patch}: "
                       f"at least one image, and patches that divide it")

  @property
  def patches(self) -> int:
    """Of one image."""
    return (self.size[0] // self.patch[0]) * (self.size[1] // self.patch[1])

  @property
  def shape(self) -> tuple[int, ...]:
    """Of the pixels of one row, uint8."""
    return (self.images, *self.size, CHANNELS)

  def specs(self, width: int) -> dict[str, tree.Spec]:
    """Path -> Spec; `width` is the decoder's."""
    D, pixels = self.cfg.width, self.patch[0] * self.patch[1] * CHANNELS
    own = {"patch": tree.Spec((pixels, D), (None, "embed"), 1),
           "position": tree.Spec((self.patches, D), (None, "embed"), 0, "embed"),
           "out": tree.Spec((D, width), (None, "embed"), 1),
           "slot": tree.Spec((self.images, width), (None, "embed"), 0, "embed")}
    own |= {p: s for p, s in transformer.specs(self.cfg).items()
            if p.startswith("layers/") or p == "norm/scale"}
    return {f"tower/{path}": spec for path, spec in own.items()}

  def __call__(self, params: PyTree, media_BNHWC: Array) -> Array:
    """Features of all patches, image after image [B, N * patches, decoder width].

    Args:
      media_BNHWC: uint8 [B, N, height, width, 3].
    """
    w, cfg, (h, v) = params["tower"], self.cfg, self.patch
    B, N, H, W, C = media_BNHWC.shape
    x = media_BNHWC.reshape(B * N, H // h, h, W // v, v, C).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(B * N, self.patches, h * v * C).astype(cfg.dtype) / 127.5 - 1.0
    x = jnp.einsum("bpf,fd->bpd", x, w["patch"].astype(cfg.dtype))
    x = x + _places(w["position"], cfg.dtype)[None]
    # At one position for all, no patch is behind another and the rotations cancel.
    where = transformer.Where(jnp.zeros((1, self.patches), jnp.int32), None, None)
    x, _, _ = transformer.layers(cfg, w["layers"], x, where)
    x = transformer.rms_norm(cfg, x, w["norm"]["scale"])
    out = jnp.einsum("bpd,dw->bpw", x, w["out"].astype(cfg.dtype)).reshape(B, N, self.patches, -1)
    out = out + _places(w["slot"], cfg.dtype)[None, :, None, :]
    return out.reshape(B, N * self.patches, -1)

  def embedded(self, cfg: transformer.TransformerConfig, params: PyTree, tokens_BS: Array,
               media_BNHWC: Array, owner_BS: Array | None = None) -> Array:
    """What stands at each position [B, S, D]: an embedding, or what the tower says of a patch.

    Args:
      cfg: the decoder's.
      owner_BS: the row of `media_BNHWC` that a token means; None = its own.
    """
    text_BSD = transformer.embed(cfg, params, jnp.minimum(tokens_BS, cfg.vocab - 1))
    seen_BMD, at_BS = self(params, media_BNHWC), jnp.maximum(tokens_BS - FIRST_PATCH, 0)
    if owner_BS is None:
      patch_BSD = jnp.take_along_axis(seen_BMD, at_BS[..., None], axis=1)
    else:
      patch_BSD = sharding.of_rows(seen_BMD, owner_BS, at_BS)
    return jnp.where((tokens_BS >= FIRST_PATCH)[..., None], patch_BSD.astype(cfg.dtype), text_BSD)

  def table(self, media: tuple, tokens: np.ndarray) -> np.ndarray:
    """The images of one row as one array, uint8 [N, height, width, 3].

    Args:
      media: uint8 [h, w, 3] each, at most N.
      tokens: of the row, which name each patch of each image once, in order.

    Raises:
      ConfigError: too many images, one that is too large, or tokens that name others.
    """
    out = np.zeros(self.shape, np.uint8)
    tokens = np.asarray(tokens, np.int64)
    named = tokens[tokens >= FIRST_PATCH] - FIRST_PATCH
    if not np.array_equal(named, np.arange(len(media) * self.patches)):
      raise ConfigError(f"a prompt names {len(named) / self.patches:g} images, each with "
                        f"{self.patches} patches, and has {len(media)}")
    if len(media) > self.images:
      raise ConfigError(f"a prompt has {len(media)} images; the model reads {self.images}")
    for image, place in zip(media, out):
      image = np.asarray(image)
      if image.ndim != 3 or image.shape[2] != CHANNELS or image.dtype != np.uint8 or (
          image.shape[0] > self.size[0] or image.shape[1] > self.size[1]):
        raise ConfigError(f"an image of {image.dtype} {image.shape}; wanted uint8 of at most "
                          f"{(*self.size, CHANNELS)}")
      place[:image.shape[0], :image.shape[1]] = image
    return out


def _places(table: Array, dtype) -> Array:
  """Its rows start with norm 1; beside features of unit variance that is too faint to be learned
  from, so they are scaled as the decoder scales the embeddings of text."""
  return table.astype(dtype) * table.shape[-1] ** 0.5


def vision(vocab: int, *, images: int = 1, size: tuple = (24, 24), patch: tuple = (6, 6),
           tower_width: int = 32, tower_layers: int = 1, tower_heads: int = 2, width: int = 128,
           layers: int = 3, heads: int = 4, activation: str = "silu", tied: bool = True,
           scan: bool = True, dtype: str = "float32") -> policy.Policy:
  """A decoder (`policy:decoder`) that reads up to `images` images per prompt; see `Tower`."""
  text = policy.decoder(vocab, width=width, layers=layers, heads=heads, activation=activation,
                        tied=tied, scan=scan, dtype=dtype)
  return over(text, images=images, size=size, patch=patch, tower_width=tower_width,
              tower_layers=tower_layers, tower_heads=tower_heads)


def over(text: policy.Policy, *, images: int, size: tuple, patch: tuple, tower_width: int,
         tower_layers: int, tower_heads: int) -> policy.Policy:
  """A tower of these sizes over a given decoder, in its activation and dtype."""
  cfg = transformer.TransformerConfig(
      vocab=1, width=tower_width, layers=tower_layers, heads=tower_heads, kv_heads=tower_heads,
      mlp=policy.gated(tower_width), activation=text.cfg.activation, scan=text.cfg.scan,
      remat=text.cfg.remat, dtype=text.cfg.dtype, param_dtype=text.cfg.param_dtype)
  return dataclasses.replace(text, tower=Tower(cfg, images, tuple(size), tuple(patch)))


def hf(vocab: int, *, path: str, images: int, size: tuple, patch: tuple, tower_width: int,
       tower_layers: int, tower_heads: int) -> policy.Policy:
  """A tower over the decoder of a Hugging Face folder (`rljax.models.hf:model`), for plans: the
  folder has no weights for it."""
  return over(hf_lib.model(vocab, path=path), images=images, size=size, patch=patch,
              tower_width=tower_width, tower_layers=tower_layers, tower_heads=tower_heads)
