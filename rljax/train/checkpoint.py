"""Checkpoints of a whole run: device arrays by orbax, host state as JSON, checked when read."""

import logging
import os
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from rljax import config as config_lib
from rljax.types import PyTree

log = logging.getLogger(__name__)


class Checkpoints:
  """The checkpoints of one run folder.

  A save is atomic (written aside, then renamed), and carries a checksum per array, so a kill leaves
  the one before, and a truncated or damaged one is passed over when restoring, aloud.
  """

  def __init__(self, folder: str, *, keep: int = 2):
    self.folder = os.path.abspath(folder)
    on_cpu = jax.default_backend() == "cpu"  # there, a copy to the host may alias a donated buffer
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=not on_cpu, cleanup_tmp_directories=True)
    self._manager = ocp.CheckpointManager(self.folder, options=options)

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps())

  def save(self, step: int, arrays: PyTree, host: dict) -> None:
    """Saves under this step; a step that is already there is left alone."""
    if step in self._manager.all_steps():
      return
    host = {**host, "checksums": _checksums(arrays)}
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
      try:
        found = self._read(step, like)
        for damaged in steps[:i]:
          self._manager.delete(damaged)  # the run will write these steps again
        return step, *found
      except Exception as e:  # whatever a damaged file makes the reader raise
        reason = str(e).split("\n")[0][:200] or type(e).__name__
        log.warning("checkpoint %d in %s cannot be read (%s); trying the one before", step,
                    self.folder, reason)
        if i == len(steps) - 1:
          raise config_lib.ConfigError(
              f"no checkpoint in {self.folder} can be read; the last error: {reason}") from None
    return None

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


def _checksums(arrays: PyTree) -> list[int] | None:
  """CRC-32 per leaf; None when this process does not hold all of every array."""
  leaves = jax.tree.leaves(arrays)
  if not all(x.is_fully_addressable for x in leaves):
    return None
  return [zlib.crc32(np.ascontiguousarray(x).tobytes()) for x in jax.device_get(leaves)]


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
