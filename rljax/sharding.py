"""Where arrays live: batches are split over the devices, parameters are on all of them."""

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.types import PyTree


def mesh(devices=None) -> Mesh:
  """A one-axis mesh named "data" over all devices."""
  return Mesh(np.asarray(devices if devices is not None else jax.devices()), ("data",))


def replicated(m: Mesh) -> NamedSharding:
  return NamedSharding(m, PartitionSpec())


def rows(m: Mesh) -> NamedSharding:
  """The leading dimension is split over "data"."""
  return NamedSharding(m, PartitionSpec("data"))


def put_rows(tree: PyTree, m: Mesh) -> PyTree:
  """Puts a host batch on the devices, split by row; scalars are replicated.

  Raises:
    ValueError: the number of rows is not a multiple of the number of devices.
  """
  count = m.shape["data"]

  def place(x):
    if np.ndim(x) and x.shape[0] % count:
      raise ValueError(f"{x.shape[0]} rows do not split over {count} devices")
    return jax.device_put(x, rows(m) if np.ndim(x) else replicated(m))

  return jax.tree.map(place, tree)


def put_replicated(tree: PyTree, m: Mesh) -> PyTree:
  return jax.device_put(tree, replicated(m))
