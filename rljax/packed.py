"""A tree of many small arrays as a few: each array that goes to a device, or comes back, costs as
much as one of all their numbers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rljax.types import Array, PyTree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
  """What `pack` makes.

  Attributes:
    stacks: the leaves of one shape and dtype each, [leaves, ...].
    form: the tree, and where each of its leaves is; static.
  """

  stacks: tuple[Array, ...]
  form: Any = dataclasses.field(metadata={"static": True})


def pack(tree: PyTree) -> Packed:
  """Under jit a part of the program; of numpy arrays on the host."""
  leaves, structure = jax.tree.flatten(tree)
  xp = np if all(isinstance(x, np.ndarray) for x in leaves) else jnp
  kinds: dict[tuple, list] = {}
  places = []
  for x in map(xp.asarray, leaves):
    kind = x.shape, x.dtype
    some = kinds.setdefault(kind, [])
    places.append((list(kinds).index(kind), len(some)))
    some.append(x)
  stacks = tuple(xp.stack(some) if len(some) > 1 else some[0][None] for some in kinds.values())
  return Packed(stacks, (structure, tuple(places)))


def unpack(packed: Packed) -> PyTree:
  """The tree again; the leaves are views, of numpy arrays."""
  structure, places = packed.form
  return structure.unflatten([packed.stacks[kind][at] for kind, at in places])
