"""Low-rank adapters: W x + (alpha / rank) B A x on chosen matrices. https://arxiv.org/abs/2106.09685

An adapter's parameters stand beside the matrices they adapt ("layers/q_lora_a"), so a base and its
adapters join by merging two trees; several roles may adapt one base, which is then stored once.
"""

import dataclasses
import fnmatch

import jax
import jax.numpy as jnp

from rljax.types import PyTree

MARK = "_lora_"


@dataclasses.dataclass(frozen=True)
class Lora:
  """Which matrices get adapters, and of what size. Hashable; part of a TransformerConfig.

  Attributes:
    rank: of the update. alpha: the update is scaled by alpha / rank.
    targets: patterns of the matrices of a layer: q, k, v, o, gate, up, down.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  @property
  def scale(self) -> float:
    return self.alpha / self.rank

  def specs(self, layer: dict) -> dict:
    """Adapters for the Specs of one layer: A [inputs..., rank] random, B [rank, outputs...] zero.

    Raises:
      ValueError: a pattern that matches nothing, or experts (one matrix each, not adapted here).
    """
    out = {}
    kernels = {n: s for n, s in layer.items() if s.inputs and n != "router"}
    for pattern in self.targets:
      found = fnmatch.filter(kernels, pattern)
      if not found:
        raise ValueError(f"lora target {pattern!r} matches none of {', '.join(kernels)}")
      for name in found:
        spec = kernels[name]
        if "experts" in spec.axes:
          raise ValueError(f"lora target {pattern!r}: the matrices of experts have no adapters")
        n = spec.inputs
        out[f"{name}{MARK}a"] = spec._replace(
            shape=(*spec.shape[:n], self.rank), axes=(*spec.axes[:n], None))
        out[f"{name}{MARK}b"] = spec._replace(
            shape=(self.rank, *spec.shape[n:]), axes=(None, *spec.axes[n:]), inputs=1,
            init="zeros")
    return out


def lora(*, rank: int = 16, alpha: float = 32.0,
         targets: tuple = ("q", "k", "v", "o", "gate", "up", "down")) -> Lora:
  """A role's adapters, as a config leaf.

  Raises:
    ValueError: a rank below 1, or no targets.
  """
  if rank < 1 or not targets:
    raise ValueError(f"lora needs rank >= 1 and targets, found rank={rank}, targets={targets}")
  return Lora(int(rank), float(alpha), tuple(targets))


def split(params: PyTree) -> tuple[PyTree, PyTree]:
  """(base, adapters): the same tree cut in two; either part may be missing folders."""
  base, adapters = {}, {}
  for name, x in params.items():
    if isinstance(x, dict):
      inner_base, inner = split(x)
      if inner_base:
        base[name] = inner_base
      if inner:
        adapters[name] = inner
    else:
      (adapters if MARK in name else base)[name] = x
  return base, adapters


def join(base: PyTree, adapters: PyTree) -> PyTree:
  """The inverse of `split`; no array is copied. What `adapters` holds wins."""
  out = dict(base)
  for name, x in adapters.items():
    out[name] = join(base.get(name, {}), x) if isinstance(x, dict) else x
  return out


def merge(cfg, params: PyTree) -> PyTree:
  """The base with its adapters added into the matrices: a plain model of the same function.

  Args:
    cfg: the TransformerConfig with `lora`. params: base and adapters joined.
  """
  base, adapters = split(params)
  layers = dict(base["layers"])
  for name in [n[:-len(MARK + "a")] for n in adapters.get("layers", {}) if n.endswith(MARK + "a")]:
    a, b = (adapters["layers"][f"{name}{MARK}{x}"] for x in "ab")
    delta = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(
        a.astype(jnp.float32), b.astype(jnp.float32))
    kernel = layers[name]
    layers[name] = (kernel.astype(jnp.float32) + cfg.lora.scale * delta).astype(kernel.dtype)
  return {**base, "layers": layers}
