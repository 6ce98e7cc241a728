"""Scalars as TensorBoard event files."""

import math
import os
import sys
from collections.abc import Mapping


class Writer:
  """Event files in a folder; a run that goes on hides what was written from its step on.

  Nothing is imported or written before the first step: a report or a test needs none of it.
  """

  def __init__(self, folder: str, *, resume_step: int = 0):
    self._folder, self._resume_step, self._writer, self._proto = folder, resume_step, None, None

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """The finite ones, as one event: an event per scalar (add_scalar) costs about 0.2 ms each."""
    if self._writer is None:
      self._open()
    finite = [self._proto.Summary.Value(tag=k, simple_value=v)
              for k, v in values.items() if math.isfinite(v)]
    self._writer.file_writer.add_summary(self._proto.Summary(value=finite), step)

  def close(self) -> None:
    if self._writer is not None:
      self._writer.close()

  def _open(self):
    # tensorboardX imports torch if it finds it, three seconds of every start, for tensors that are
    # never written here; an entry that is None makes that import fail.
    absent = "torch" not in sys.modules
    if absent:
      sys.modules["torch"] = None
    try:
      import tensorboardX
      from tensorboardX.proto import summary_pb2
    finally:
      if absent:
        del sys.modules["torch"]
    self._proto = summary_pb2
    # The suffix keeps a quick restart from overwriting a file named after the same second.
    self._writer = tensorboardX.SummaryWriter(
        self._folder, purge_step=self._resume_step or None, flush_secs=10,
        filename_suffix=f".{self._resume_step}.{os.getpid()}")
