"""The run folder: what a run leaves on disk, and how a resumed run continues it.

  config.json          {"config", "hash", "versions", "topology"}, written before anything else
  metrics.jsonl        one JSON object per call of `RunLog.metrics`: "step", then names in order
  tensorboard/         the same scalars as event files
  episodes/N.jsonl.gz  every rollout from step N on; one gzip member per call of `RunLog.episodes`
  result.json          written once, at the end

A run that was killed and resumed leaves the same config, metrics and episodes, byte for byte, as
one that was never killed, except for metrics named `time/*`. JSON has no NaN or infinity; they are
written as the strings "nan", "inf" and "-inf", which `float()` reads back.

Host only. Of several hosts the first writes; the others have a `NoLog`.
"""

import gzip
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import rljax
from rljax import config as config_lib
from rljax.data import images
from rljax.train import tensorboard as tensorboard_lib

if TYPE_CHECKING:
  from rljax import types

FILES = 64  # an episode file is closed at max_bytes / FILES, so that deleting one frees little


def open_workdir(workdir, config_dict: Mapping, digest: str, *, free: tuple[str, ...] = ("steps",),
                 topology: Mapping | None = None) -> dict:
  """Creates the folder, or checks that the run in it is this one, and writes config.json.

  Args:
    workdir: the run folder.
    config_dict: the resolved config as plain data (`config.to_dict`).
    digest: its hash (`config.digest`).
    free: dotted keys (with all below them) that may change when a run is continued, such as the
      number of steps or a logging cadence.
    topology: what the run computes on, JSON-like; None asks jax.

  Returns:
    The record written to config.json.

  Raises:
    ConfigError: the folder cannot be written, holds a run of another config, or its config.json
      cannot be read.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / "config.json"
  record = {
      "config": jsonable(config_dict),
      "hash": digest,
      "versions": {"jax": _version("jax"), "rljax": rljax.__version__,
                   "python": platform.python_version()},
      "topology": jsonable(topology if topology is not None else _topology()),
  }
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    if path.exists():
      _check_same_run(path, record, free)
    write_json(path, record)
  except OSError as e:
    raise config_lib.ConfigError(f"cannot write the workdir {workdir}: {e.strerror or e}") from None
  return record


def cache_folder() -> str:
  """Of what runs share (bases, compiled programs): $RLJAX_CACHE, or rljax in the user's cache."""
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.environ.get("RLJAX_CACHE") or os.path.join(home, "rljax")


def _check_same_run(path, record, free):
  try:
    stored = json.loads(path.read_bytes())
    old = dict(stored["config"])
  except (ValueError, KeyError, TypeError) as e:
    raise config_lib.ConfigError(
        f"{path} is damaged ({type(e).__name__}: {e}): choose another workdir, or delete that file "
        "if you know which config the run had") from None
  differing = [d for d in config_lib.differing(old, record["config"])
               if not any(f"{d.partition(': ')[0]}.".startswith(f"{key}.") for key in free)]
  if differing:
    shown = "; ".join(d if len(d) <= 160 else f"{d[:157]}..." for d in differing[:8])
    more = f"; and {len(differing) - 8} more" if len(differing) > 8 else ""
    raise config_lib.ConfigError(
        f"{path.parent} holds a run of another config ({shown}{more}): choose another workdir")


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _topology():
  import jax  # late: importing it takes a second, and a report needs none of it
  return {"platform": jax.default_backend(), "device": jax.devices()[0].device_kind,
          "devices": jax.device_count(), "processes": jax.process_count()}


# --- JSON -----------------------------------------------------------------------------------------


def jsonable(x: Any, depth: int = 0) -> Any:
  """A copy of anything that `json.dumps(..., allow_nan=False)` accepts; it never raises."""
  if x is None or isinstance(x, bool | int | str):
    return x
  if isinstance(x, float):
    return float(x) if math.isfinite(x) else str(float(x))
  if depth > 20:
    return "..."
  try:
    if hasattr(x, "items"):
      return {str(k): jsonable(v, depth + 1) for k, v in x.items()}
    if isinstance(x, list | tuple):
      return [jsonable(v, depth + 1) for v in x]
    if isinstance(x, set | frozenset):
      return sorted((jsonable(v, depth + 1) for v in x), key=repr)  # set order is not reproducible
    if hasattr(x, "tolist"):
      big = getattr(x, "size", 1) > 1024
      return f"<array {x.dtype}{list(x.shape)}>" if big else jsonable(x.tolist(), depth + 1)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(x))[:2000]  # addresses differ between processes
  except Exception:  # a repr of the user's own may do anything, and logging must not end a run
    return f"<{type(x).__name__}>"


_encoder = json.JSONEncoder(allow_nan=False, default=jsonable, sort_keys=True)


def _encode(record: dict) -> str:
  try:
    return _encoder.encode(record)
  except (ValueError, TypeError, RecursionError):  # NaN, keys of mixed types, a cycle: the slow way
    return _encoder.encode(jsonable(record))


def write_json(path, record: Mapping) -> None:
  """Writes atomically: a reader sees the old file or the new one, whole."""
  write_bytes(path, (json.dumps(jsonable(record), indent=2) + "\n").encode())


def write_bytes(path, data: bytes) -> None:
  path = pathlib.Path(path)
  tmp = path.with_name(f".{path.name}.tmp")
  with open(tmp, "wb") as f:
    f.write(data)
    f.flush()
    os.fsync(f.fileno())
  os.replace(tmp, path)


# --- reading --------------------------------------------------------------------------------------


def read_metrics(workdir) -> list[dict[str, float]]:
  """The rows of metrics.jsonl; "step" is an int, all else a float. Torn lines are left out."""
  rows = []
  for line in _lines(pathlib.Path(workdir) / "metrics.jsonl"):
    row = _parse(line)
    if row is not None:
      try:
        rows.append({k: v if k == "step" else float(v) for k, v in row.items()})
      except (TypeError, ValueError, OverflowError):
        continue  # not a line of ours
  return rows


def episode_files(workdir) -> list[pathlib.Path]:
  """The episode files, oldest first. A file's name is the first step in it."""
  files = pathlib.Path(workdir).glob("episodes/*.jsonl.gz")
  return sorted((f for f in files if _first_step(f) is not None), key=_first_step)


def read_episodes(path) -> Iterator[dict]:
  """The records of one episode file; a torn end is left out."""
  for text, _ in members(path):
    yield from map(json.loads, text.splitlines())


def members(path) -> Iterator[tuple[bytes, int]]:
  """Yields (text, offset of its end) of each whole gzip member; stops at a torn or damaged one."""
  data = memoryview(pathlib.Path(path).read_bytes())
  start = 0
  while start < len(data):
    inflate, end, parts = zlib.decompressobj(31), start, []
    try:
      while not inflate.eof and end < len(data):  # by chunks: unused_data is a copy of the rest
        parts.append(inflate.decompress(data[end:end + 65536]))
        end = min(end + 65536, len(data))
    except zlib.error:
      return
    if not inflate.eof:
      return
    start = end - len(inflate.unused_data)
    yield b"".join(parts), start


def _lines(path):
  return path.read_bytes().split(b"\n") if path.exists() else []


def _parse(line: bytes) -> dict | None:
  """A line with a step, or None. A proper prefix of a JSON object never parses."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _first_step(path):
  name = path.name.partition(".")[0]
  return int(name) if name.isdigit() else None


# --- writing --------------------------------------------------------------------------------------


class RunLog:
  """Appends to a run folder that `open_workdir` made.

  Whatever the folder holds of steps >= `resume_step`, and any torn end, is dropped first: those
  steps are about to be run again. `resume_step` is 0 for a new run, else the step of the
  checkpoint that the run continues from. Steps must be logged in ascending order.

  Episodes are kept within about `max_bytes`: above it, the oldest file but the first is deleted,
  so that the first steps and the latest ones stay. A step is never split over two files.
  """

  def __init__(self, workdir, *, resume_step: int = 0, max_bytes: int = 200_000_000,
               tensorboard: bool = True):
    self.workdir = pathlib.Path(workdir)
    self._resume_step = resume_step
    self._max_bytes = max_bytes
    self._tensorboard = tensorboard_lib.Writer(
        str(self.workdir / "tensorboard"), resume_step=resume_step) if tensorboard else None
    self._last_step = None
    self._stale_result = True
    (self.workdir / "episodes").mkdir(parents=True, exist_ok=True)
    self._truncate_metrics()
    self._sizes = self._truncate_episodes()  # path -> bytes, oldest first
    self._metrics = open(self.workdir / "metrics.jsonl", "ab", buffering=0)

  def metrics(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one line, and the finite scalars to TensorBoard. Once per step.

    Values may be anything that `float` takes. The result.json of an earlier, shorter run in the
    folder is deleted with the first line, since it no longer tells how the run ended.
    """
    if self._stale_result:
      (self.workdir / "result.json").unlink(missing_ok=True)
      self._stale_result = False
    values = {name: float(scalars[name]) for name in sorted(scalars)}
    row = {"step": int(step), **{k: jsonable(v) for k, v in values.items()}}
    self._metrics.write((json.dumps(row, allow_nan=False) + "\n").encode())
    if self._tensorboard:
      self._tensorboard.write(int(step), values)

  def episodes(self, step: int, episodes: "list[types.Episode]") -> None:
    """Appends every episode; what JSON cannot hold becomes text, so this never fails on content."""
    if not episodes:
      return
    text = "".join(f"{_encode(_record(int(step), e))}\n" for e in episodes)
    data = gzip.compress(text.encode(), 1, mtime=0)  # no time inside: the same bytes every run
    path = next(reversed(self._sizes), None)
    full = path is not None and self._sizes[path] >= self._max_bytes // FILES
    if path is None or (full and step != self._last_step):
      path = self.workdir / "episodes" / f"{int(step):06d}.jsonl.gz"
    with open(path, "ab", buffering=0) as f:
      f.write(data)
    self._sizes[path] = self._sizes.get(path, 0) + len(data)
    self._last_step = step
    while sum(self._sizes.values()) > self._max_bytes and len(self._sizes) > 2:
      oldest = list(self._sizes)[1]
      oldest.unlink(missing_ok=True)
      del self._sizes[oldest]

  def result(self, fields: Mapping[str, Any]) -> None:
    """Writes result.json; fields of the contract that are missing become null or empty."""
    record = {"status": None, "steps": None, "seconds": None, "tokens_per_second": None,
              "config_hash": self._config_hash(), **fields}
    record["eval"] = {"before": {}, "after": {}, **(fields.get("eval") or {})}
    write_json(self.workdir / "result.json", record)
    self._stale_result = False

  def close(self) -> None:
    self._metrics.close()
    if self._tensorboard:
      self._tensorboard.close()

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    self.close()

  def _config_hash(self):
    try:
      return json.loads((self.workdir / "config.json").read_bytes())["hash"]
    except (OSError, ValueError, KeyError, TypeError):
      return None

  def _truncate_metrics(self):
    path = self.workdir / "metrics.jsonl"
    lines = _lines(path)
    kept = [line for line in lines if (r := _parse(line)) and r["step"] < self._resume_step]
    data = b"".join(line + b"\n" for line in kept)
    if path.exists() and data != b"\n".join(lines):
      write_bytes(path, data)

  def _truncate_episodes(self):
    """Steps ascend, so that only the last file before `resume_step` can need cutting."""
    files = episode_files(self.workdir)
    for path in [f for f in files if _first_step(f) >= self._resume_step]:
      path.unlink()
    files = [f for f in files if _first_step(f) < self._resume_step]
    if files:
      size = 0
      for text, end in members(files[-1]):
        row = _parse(text.partition(b"\n")[0])
        if row is None or row["step"] >= self._resume_step:
          break
        size = end
      if size == 0:
        files.pop().unlink()
      elif size < files[-1].stat().st_size:
        os.truncate(files[-1], size)
    return {f: f.stat().st_size for f in files}


class NoLog:
  """Of a host that does not write the run folder."""

  metrics = episodes = result = close = lambda self, *args: None


def _record(step, episode):
  task = episode.task
  record = {
      "step": step,
      "task": task.id,
      "group": episode.group,
      "prompt": prompt_text(task.prompt),
      "response": episode.response,
      "turns": [_turn(t) for t in episode.turns],
      "scores": {k: jsonable(float(v)) for k, v in episode.scores.items()},
      "status": episode.status,
      "answer": task.answer,
      "info": episode.info,
  }
  if task.info:
    record["task_info"] = task.info
  if media := [image for t in episode.turns for image in t.media]:
    record["media"] = [images.png(image) for image in media]  # gzip keeps one copy per group
  return record


def _turn(turn):
  record = {"role": turn.role, "text": turn.text, "tokens": len(turn.tokens)}
  if turn.reward:
    record["reward"] = turn.reward
  return record


def prompt_text(prompt: str | list) -> str:
  """A prompt as text: itself, or chat messages as "role: content" lines."""
  if isinstance(prompt, str):
    return prompt
  lines = []
  for m in prompt:
    content = m.get("content", "") if isinstance(m, Mapping) else m
    role = m.get("role", "") if isinstance(m, Mapping) else ""
    content = content if isinstance(content, str) else _encode(content)
    lines.append(f"{role}: {content}" if role else content)
  return "\n".join(lines)
