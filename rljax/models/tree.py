"""Parameters as a table: what each is called, its shape, its logical axes, how it starts."""

import math
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax.types import Array, PyTree


class Spec(NamedTuple):
  """A parameter: shape, logical axes (see `rljax.sharding`), and how it starts.

  `inputs` is the number of leading axes (after "layers", "experts") that a product contracts: its
  fan-in. 0: not a kernel; then `init` says how it starts: "ones", "zeros" or "embed" (rows of norm
  1). A kernel with init "zeros" starts there; else it is normal with variance 1 / fan-in.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  inputs: int = 0
  init: str = ""


def start(path: str, spec: Spec, key: Array, dtype: str) -> Array:
  """The first value of a parameter; its randomness depends on the key and its own name alone."""
  if spec.init in ("ones", "zeros"):
    return jnp.full(spec.shape, float(spec.init == "ones"), dtype)
  key = jax.random.fold_in(key, zlib.crc32(path.encode()) & 0x7FFFFFFF)
  batch = sum(a in ("layers", "experts") for a in spec.axes)
  fan_in = spec.shape[-1]
  if spec.inputs:
    fan_in = math.prod(spec.shape[batch:batch + spec.inputs])
  return jax.random.normal(key, spec.shape, dtype) * jnp.asarray(fan_in ** -0.5, dtype)


def nest(flat: dict[str, object]) -> PyTree:
  """{"a/b": x} -> {"a": {"b": x}}."""
  out: dict = {}
  for path, x in flat.items():
    *folders, name = path.split("/")
    node = out
    for folder in folders:
      node = node.setdefault(folder, {})
    node[name] = x
  return out


def flatten(tree: PyTree, prefix: str = "") -> dict[str, object]:
  """The inverse of `nest`."""
  out = {}
  for name, x in tree.items():
    out |= flatten(x, f"{prefix}{name}/") if isinstance(x, dict) else {f"{prefix}{name}": x}
  return out
