"""Where arrays live. Parameters and activations name *logical* axes; a layout maps those to a mesh.

A mesh has two axes, "data" and "tensor". A layout is a table of rules, logical axis -> mesh axis:

  single   rows split over "data", parameters on every device
  fsdp     as single, and each parameter split over "data" by its model width (gathered when used)
  fsdp_tp  as fsdp, and heads, MLP widths and vocabulary split over "tensor"
  sampler  parameters split over "tensor" only: nothing is gathered per decoded token

An axis that does not divide by the devices is left whole (2 kv heads on 4 devices); `Layout.whole`
lists those, so that a plan can show them.
"""

import contextlib
import contextvars
import os
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rljax.types import Array, PyTree

_BATCH = {"batch": "data"}
_TENSOR = {"heads": "tensor", "kv_heads": "tensor", "mlp": "tensor", "vocab": "tensor"}
LAYOUTS: dict[str, dict[str, str]] = {
    "single": _BATCH,
    "fsdp": {**_BATCH, "embed": "data"},
    "fsdp_tp": {**_BATCH, **_TENSOR, "embed": "data"},
    "sampler": {**_BATCH, **_TENSOR},
}


def mesh(devices=None, tensor: int = 1) -> Mesh:
  """A mesh ("data", "tensor") over all devices, `tensor` of them along the second axis.

  The devices of one host are neighbours.

  Raises:
    ValueError: `tensor` does not divide the number of devices.
  """
  devices = np.asarray(devices if devices is not None else jax.devices()).reshape(-1)
  devices = np.asarray(sorted(devices, key=lambda d: d.process_index))
  if tensor < 1 or devices.size % tensor:
    raise ValueError(f"{devices.size} devices cannot be split by tensor={tensor}")
  return Mesh(devices.reshape(-1, tensor), ("data", "tensor"))


def split_cpu() -> None:
  """Makes a CPU of several cores two devices; to be called before JAX looks for devices.

  Two devices with a half of the rows each are faster than one that splits every operation over the
  cores: most are too small for that. Where the environment says how many devices there are or
  turns jit off, which is for looking at one, or JAX has begun already, nothing changes.
  """
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  given = "device_count" in os.environ.get("XLA_FLAGS", "") or jax.config.jax_num_cpu_devices > 0
  if (cores or 1) > 1 and not given and not jax.config.jax_disable_jit:
    with contextlib.suppress(RuntimeError):  # JAX has begun
      jax.config.update("jax_num_cpu_devices", 2)


def divided(devices=None, sampler: int = 0) -> tuple[list, list]:
  """(devices that train, those of this host that only sample): the last of every host.

  Raises:
    ValueError: nothing is left to train on.
  """
  train, sample = [], []
  devices = list(devices if devices is not None else jax.devices())
  for host in sorted({d.process_index for d in devices}):
    some = [d for d in devices if d.process_index == host]
    if not 0 <= sampler < len(some):
      raise ValueError(f"sampler={sampler} of {len(some)} devices leaves none to train on")
    train += some[:len(some) - sampler]
    sample += some[len(some) - sampler:] if host == jax.process_index() else []
  return train, sample


def own(m: Mesh) -> Mesh:
  """The part of a mesh that lies on this host: all of it, unless there are several hosts.

  Raises:
    ValueError: devices along "tensor" lie on different hosts.
  """
  if jax.process_count() == 1:
    return m
  mine = np.vectorize(lambda d: d.process_index == jax.process_index())(m.devices)
  if (mine.any(axis=1) != mine.all(axis=1)).any():
    raise ValueError(f"tensor={m.shape['tensor']} reaches over several hosts; at most the devices "
                     f"of one, {mine.sum()}, work on one response")
  return m if mine.all() else Mesh(m.devices[mine.all(axis=1)], m.axis_names)


def near(tree: PyTree, m: Mesh) -> PyTree:
  """The same arrays on this host's part `m` of their mesh, without moving anything.

  Args:
    tree: arrays of which every host holds all, in some split over "tensor".
  """
  def one(x):
    if x.is_fully_addressable:
      return x
    parts = {s.device: s.data for s in x.addressable_shards}
    return jax.make_array_from_single_device_arrays(
        x.shape, NamedSharding(m, x.sharding.spec), [parts[d] for d in m.devices.flat])
  return jax.tree.map(one, tree)


def put(tree: PyTree, places: PyTree) -> PyTree:
  """`jax.device_put` of values that every host holds whole; each places what is on its devices."""
  def one(x, place):
    if place.is_fully_addressable or isinstance(x, jax.Array) and not x.is_fully_addressable:
      return jax.device_put(x, place)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])
  if all(place.is_fully_addressable for place in jax.tree.leaves(places)):
    return jax.device_put(tree, places)  # each call costs as much as one for all
  return jax.tree.map(one, tree, places)


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
    return rows(m) if np.ndim(x) else replicated(m)

  return put(tree, jax.tree.map(place, tree))


def put_replicated(tree: PyTree, m: Mesh) -> PyTree:
  return put(tree, jax.tree.map(lambda _: replicated(m), tree))


class Layout:
  """A mesh and the rules by which logical axes are split over it."""

  def __init__(self, m: Mesh, rules: str | dict[str, str] = "single"):
    """Raises: ValueError: an unknown layout, or a rule for a mesh axis that does not exist."""
    if isinstance(rules, str) and rules not in LAYOUTS:
      raise ValueError(f"layout {rules!r}; one of {', '.join(LAYOUTS)}")
    self.mesh = m
    self.rules = LAYOUTS[rules] if isinstance(rules, str) else dict(rules)
    self.whole: set[str] = set()
    for logical, axis in self.rules.items():
      if axis not in m.shape:
        raise ValueError(f"rule {logical} -> {axis}: the mesh has axes {', '.join(m.axis_names)}")

  def spec(self, axes: Sequence[str | None], shape: Sequence[int] | None = None) -> PartitionSpec:
    """How an array with these logical axes is split.

    Raises:
      ValueError: two of its axes go to one mesh axis (named).
    """
    out, used = [], {}
    for i, logical in enumerate(axes):
      axis = self.rules.get(logical)
      if axis is not None and shape is not None and shape[i] % self.mesh.shape[axis]:
        self.whole.add(f"{logical}={shape[i]} over {axis}={self.mesh.shape[axis]}")
        axis = None
      if axis is not None and axis in used:
        raise ValueError(f"axes {used[axis]!r} and {logical!r} of one array are both split over "
                         f"mesh axis {axis!r}: {tuple(axes)}")
      if axis is not None:
        used[axis] = logical
      out.append(axis)
    return PartitionSpec(*out)

  def sharding(self, axes, shape=None) -> NamedSharding:
    return NamedSharding(self.mesh, self.spec(axes, shape))

  @contextlib.contextmanager
  def active(self):
    """While functions are traced inside, `constrain` and `per_device` follow this layout."""
    token = _ACTIVE.set(self)
    try:
      yield self
    finally:
      _ACTIVE.reset(token)

  def wrap(self, fn: Callable) -> Callable:
    """`fn`, traced under this layout; to be given to `jax.jit`."""
    def wrapped(*args, **kwargs):
      with self.active():
        return fn(*args, **kwargs)
    return wrapped

  def follow(self, state: PyTree, params: PyTree) -> PyTree:
    """Shardings for a state that holds copies of the parameters (an optimizer's moments).

    A leaf whose path ends like that of a parameter is split as it, where it has its dimensions;
    anything else (a count, a scale per row) is on every device.

    Args:
      state: anything with shapes. params: ShapeDtypeStructs with shardings.
    """
    flat = {jax.tree_util.keystr(path): x
            for path, x in jax.tree_util.tree_flatten_with_path(params)[0]}

    def one(path, x):
      for start in range(len(path)):
        like = flat.get(jax.tree_util.keystr(path[start:]))
        if like is not None and len(like.shape) == len(x.shape):
          axes = (*like.sharding.spec, *(None,) * len(x.shape))
          return NamedSharding(self.mesh, PartitionSpec(
              *(a if n == m else None for a, n, m in zip(axes, x.shape, like.shape))))
      return replicated(self.mesh)

    return jax.tree_util.tree_map_with_path(one, state)


_ACTIVE: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


def several() -> Layout | None:
  """The active layout, if it has more than one device."""
  layout = _ACTIVE.get()
  return layout if layout is not None and layout.mesh.size > 1 else None


def constrain(x: Array, axes: Sequence[str | None]) -> Array:
  """Tells the compiler how an activation is split under the active layout; else does nothing."""
  layout = several()
  if layout is None:
    return x
  return jax.lax.with_sharding_constraint(x, layout.sharding(axes, x.shape))


def per_device(fn: Callable, *, ins: Sequence, outs: Sequence) -> Callable:
  """`fn` run by each device on its own part (`shard_map`); plain `fn` without an active layout.

  Rows that do not divide by the devices are computed by all of them.

  Args:
    ins, outs: logical axes of each argument and of each result; an axis without a rule is whole.

  Raises:
    ValueError: (when traced) another axis than "batch" does not divide.
  """
  layout = several()
  if layout is None:
    return fn

  def run(*args):
    whole = set()
    for axes, x in zip(ins, args, strict=True):
      for logical, size in zip(axes, x.shape, strict=True):
        devices = layout.mesh.shape.get(layout.rules.get(logical), 1)
        if size % devices and logical != "batch":
          raise ValueError(f"{logical} of size {size} does not split over {devices} devices")
        whole |= {logical} if size % devices else set()
    spec = lambda axes: layout.spec([None if a in whole else a for a in axes])
    return jax.shard_map(fn, mesh=layout.mesh, in_specs=tuple(map(spec, ins)),
                         out_specs=tuple(map(spec, outs)), check_vma=False)(*args)
  return run


def of_rows(x: Array, row: Array, *at: Array) -> Array:
  """x[row, *at], where each device counts rows from its own first: nothing is gathered over them.

  Args:
    x: split by row. row, at: int32 arrays that broadcast to one shape, split by their first axis.
  """
  args, rank = (x, row, *at), max(i.ndim for i in (row, *at)) + x.ndim - 1 - len(at)
  axes = lambda ndim: ("batch", *(None,) * (ndim - 1))
  take = per_device(lambda x, *index: (x[index],), ins=[axes(a.ndim) for a in args],
                    outs=[axes(rank)])
  return take(*args)[0]


def sum_over(x: Array, axis: str) -> Array:
  """Inside `per_device`: the sum over the devices that a logical axis is split over."""
  layout = several()
  name = layout.rules.get(axis) if layout else None
  return jax.lax.psum(x, name) if name else x
