"""Checkpoints of a whole run: device arrays by orbax, host state as JSON, checked when read."""

import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rljax import config as config_lib
from rljax.train import distributed
from rljax.types import PyTree

log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one run.

  A save is atomic (written aside, then renamed), and carries a checksum per array, so a kill leaves
  the one before, and a truncated or damaged one is passed over when restoring, aloud.

  Args:
    folder: any path that orbax writes, such as gs://...; several hosts must all see it.
    keep: how many stay.
    hosts: those that save and restore together, each its own part of every array.
  """

  def __init__(self, folder: str, *, keep: int = 2, hosts: distributed.Hosts = distributed.ALONE):
    self.folder = folder if "://" in folder else os.path.abspath(folder)
    self._hosts = hosts
    self._apart = hosts.count < jax.process_count()  # a run of one host's own, beside the others
    on_cpu = jax.default_backend() == "cpu"  # there, a copy to the host may alias a donated buffer
    me = jax.process_index()
    if self._apart:
      os.makedirs(self.folder, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=not on_cpu and not self._apart,
        cleanup_tmp_directories=True, create=not self._apart,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"host{me}")
        if self._apart else ocp.options.MultiprocessingOptions())
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(self, step: int, arrays: PyTree, host: dict) -> None:
    """Saves under this step; a step that is already there is left alone."""
    if step in self._manager.all_steps():
      return
    host = {**host, "checksums": _checksums(arrays)}
    if self._apart:  # orbax writes arrays of all hosts, or plain ones
      arrays = jax.device_get(arrays)
    self._manager.save(step, args=ocp.args.Composite(
        arrays=ocp.args.StandardSave(arrays), host=ocp.args.JsonSave(host)))

  def restore(self, like: PyTree) -> tuple[int, PyTree, dict] | None:
    """The newest readable checkpoint as (step, arrays, host), or None if there is none at all.

    Args:
      like: arrays or ShapeDtypeStructs with the structure, shapes and shardings wanted.

    Raises:
      ConfigError: there are checkpoints, and none can be read.
    """
    steps = self.steps()[::-1]
    for i, step in enumerate(steps):
      found, reason = self._try(step, like)
      reason = next(filter(None, self._hosts.each("restore", lambda reason=reason: reason)), "")
      if not reason:
        for damaged in steps[:i]:
          self._manager.delete(damaged)  # the run will write these steps again
        return step, *found
      log.warning("checkpoint %d in %s cannot be read (%s); trying the one before", step,
                  self.folder, reason)
      if i == len(steps) - 1:
        raise config_lib.ConfigError(
            f"no checkpoint in {self.folder} can be read; the last error: {reason}") from None
    return None

  def _try(self, step, like):
    """(what was read, why nothing was)."""
    try:
      return self._read(step, like), ""
    except Exception as e:  # whatever a damaged file makes the reader raise
      return None, str(e).split("\n")[0][:200] or type(e).__name__

  def _read(self, step, like):
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)),
        like)
    found = self._manager.restore(step, args=ocp.args.Composite(
        arrays=ocp.args.StandardRestore(like), host=ocp.args.JsonRestore()))
    if found.host["checksums"] != _checksums(found.arrays):
      raise ValueError("a checksum does not match")
    return found.arrays, found.host

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def _checksums(arrays: PyTree) -> list[int]:
  """Per leaf, the sum over elements of a hash of bits and index, mod 2^32: the same, bit for bit,
  however the array is split over devices and hosts."""
  return [int(x) for x in jax.device_get(_sums(jax.tree.leaves(arrays)))]


@jax.jit
def _sums(leaves):
  def one(x):
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
    index, stride = jnp.zeros(x.shape, jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
      at = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
      index, stride = index + at * np.uint32(stride % 2**32), stride * x.shape[axis]
    h = bits.astype(jnp.uint32) + index * np.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # murmur3's finaliser
      h = (h ^ (h >> shift)) * np.uint32(factor)
    return jnp.sum(h ^ (h >> 16), dtype=jnp.uint32)
  return [one(x) for x in leaves]


def folder_of(config, workdir: str) -> str:
  """Where the checkpoints of a run lie."""
  return config.checkpoint.folder or os.path.join(workdir, "checkpoints")


def read_host(folder: str) -> tuple[int, dict] | None:
  """(step, host state) of the newest checkpoint, without its arrays; None if there is none."""
  if not os.path.isdir(folder):
    return None
  manager = ocp.CheckpointManager(os.path.abspath(folder))
  try:
    step = manager.latest_step()
    if step is None:
      return None
    found = manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))
    return step, found.host
  finally:
    manager.close()
