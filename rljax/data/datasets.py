"""Readers: rows of a user's own file or folder, and a task set made of them.

  rows("train.jsonl")                      # also .jsonl.gz, .json, .json.gz, .parquet
  rows("folder", split="train")            # `datasets` save_to_disk, or tensorflow-datasets
                                           # prepared in array_record format (no TensorFlow needed)

A mistake in a file is a `ConfigError` of one sentence that names the file and, where there is one,
the line or row (counted from 1).
"""

import dataclasses
import gzip
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from rljax import config
from rljax.data import tasks
from rljax.types import Task

log = logging.getLogger(__name__)

_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet"}


class Rows(list):
  """Dicts; `numbers[i]` is the line or row (`unit`) of `path` that row i was, `skipped` counts bad
  ones."""

  def __init__(self, path: str, rows, numbers, skipped: int, unit: str):
    super().__init__(rows)
    self.path, self.numbers, self.skipped, self.unit = path, numbers, skipped, unit


def rows(path: str | None, *, on_bad_row: str = "error", fmt: str | None = None,
         split: str = "") -> Rows:
  """Reads all rows of a file or folder.

  Args:
    path: of the file or folder; "~" is the home folder.
    on_bad_row: "error", or "skip" to leave out lines that are no JSON object and count them.
    fmt: "jsonl", "json", "parquet", "hf" or "tfds"; by default told from the name and the contents.
    split: of a folder with several; a folder with one split, and a file, need none.

  Raises:
    ConfigError: no path, no file, a format or split that is not there, damage, or no rows at all.
  """
  path = _existing(path)
  if on_bad_row not in ("error", "skip"):
    raise config.ConfigError(f"on_bad_row must be 'error' or 'skip', found {on_bad_row!r}")
  fmt = fmt or _format(path)
  readers = {"jsonl": _jsonl, "json": _json, "parquet": _parquet, "hf": _hf, "tfds": _tfds}
  if fmt not in readers:
    raise config.ConfigError(f"fmt must be one of {', '.join(readers)}, found {fmt!r}")
  if split and fmt not in ("hf", "tfds"):
    raise config.ConfigError(f"{path} is one file and has no split {split!r}; leave split empty")
  good, numbers, skipped = [], [], 0
  for n, row in readers[fmt](path, split):
    if isinstance(row, dict):
      good.append(row)
      numbers.append(n)
    elif on_bad_row == "error":
      raise config.ConfigError(f"{path}, {_unit(fmt)} {n}: {row}")
    else:
      skipped += 1
  if skipped:
    log.warning("%s: skipped %d bad rows of %d", path, skipped, skipped + len(good))
  if not good:
    raise config.ConfigError(f"{path} has no rows" + (f" ({skipped} bad ones)" if skipped else ""))
  return Rows(path, good, numbers, skipped, _unit(fmt))


def _existing(path) -> str:
  if not path:
    raise config.ConfigError("no data: say where it is, e.g. --config.tasks.path=/data/train.jsonl")
  path = os.path.expanduser(path)
  if not os.path.exists(path):
    raise config.ConfigError(f"there is no file or folder {path}")
  return path


def _format(path: str) -> str:
  if os.path.isdir(path):
    names = set(os.listdir(path))
    if names & {"dataset_dict.json", "state.json"}:
      return "hf"
    if {"dataset_info.json", "features.json"} <= names:
      return "tfds"
    raise config.ConfigError(
        f"{path} is neither a folder of datasets.save_to_disk nor one version of a prepared "
        "tensorflow-datasets data set (dataset_info.json and features.json)")
  ending = os.path.splitext(path.removesuffix(".gz"))[1]
  if ending not in _ENDINGS:
    raise config.ConfigError(f"cannot tell the format of {path}; it should end in "
                             f"{', '.join(_ENDINGS)} (or set fmt)")
  return _ENDINGS[ending]


def _unit(fmt: str) -> str:
  return "line" if fmt == "jsonl" else "row"


# Each reader yields (number, row), or (number, what is wrong) for a bad row.


def _jsonl(path: str, split: str) -> Iterator[tuple[int, dict | str]]:
  del split
  n = 0
  try:
    with _open(path) as f:
      for n, line in enumerate(f, 1):
        if line.strip():
          yield n, _object(line)
  except (OSError, EOFError, zlib.error) as e:  # BadGzipFile is an OSError
    raise config.ConfigError(f"{path} cannot be read after line {n}: {e}") from None


def _open(path: str):
  return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")


def _object(line: bytes) -> dict | str:
  try:
    row = json.loads(line.decode("utf-8-sig"))
  except (ValueError, RecursionError) as e:  # UnicodeDecodeError is a ValueError
    return f"not JSON ({e})"
  return row if isinstance(row, dict) else f"expected a JSON object, found {type(row).__name__}"


def _json(path: str, split: str) -> Iterator[tuple[int, dict | str]]:
  del split
  try:
    with _open(path) as f:
      found = json.loads(f.read().decode("utf-8-sig"))
  except (OSError, EOFError, zlib.error, ValueError, RecursionError) as e:
    raise config.ConfigError(f"{path} is not JSON: {e}") from None
  if not isinstance(found, list):
    raise config.ConfigError(f"{path}: expected a list of objects, found {type(found).__name__}")
  for n, row in enumerate(found, 1):
    yield n, row if isinstance(row, dict) else f"expected an object, found {type(row).__name__}"


def _parquet(path: str, split: str) -> Iterator[tuple[int, dict]]:
  del split
  pyarrow = _package("pyarrow", "to read parquet files")
  from pyarrow import parquet
  try:
    found = parquet.ParquetFile(path).read().to_pylist()
  except (pyarrow.ArrowException, OSError) as e:
    raise config.ConfigError(f"{path} is not a readable parquet file: {_line(e)}") from None
  yield from enumerate(found, 1)


def _hf(path: str, split: str) -> Iterator[tuple[int, dict]]:
  package = _package("datasets", "to read folders of save_to_disk")
  try:
    found = package.load_from_disk(path)
  except Exception as e:  # the package raises a type of its own for each kind of damage
    raise config.ConfigError(f"{path} cannot be loaded by datasets: {_line(e)}") from None
  if isinstance(found, dict):
    found = found[_split(path, split, list(found))]
  elif split and str(found.split) != split:
    raise config.ConfigError(f"{path} holds split {str(found.split)!r}, not {split!r}")
  yield from enumerate(found, 1)


def _tfds(path: str, split: str) -> Iterator[tuple[int, dict]]:
  package = _package("tensorflow_datasets", "to read prepared tensorflow-datasets folders")
  try:
    builder = package.builder_from_directory(path)
  except Exception as e:
    raise config.ConfigError(
        f"{path} cannot be loaded by tensorflow_datasets: {_line(e)}") from None
  split = _split(path, split, list(builder.info.splits))
  try:
    source = builder.as_data_source(split)
    for n in range(len(source)):
      yield n + 1, _plain(source[n])
  except Exception as e:
    raise config.ConfigError(
        f"{path}, split {split!r} cannot be read without TensorFlow (prepare it with "
        f"file_format='array_record'): {_line(e)}") from None


def _plain(x):
  """Bytes that are text become text, numpy values become Python's."""
  if isinstance(x, dict):
    return {k: _plain(v) for k, v in x.items()}
  if isinstance(x, np.ndarray):
    return _plain(x.tolist())
  if isinstance(x, list | tuple):
    return [_plain(v) for v in x]
  if isinstance(x, np.generic):
    return _plain(x.item())
  if isinstance(x, bytes):
    try:
      return x.decode()
    except UnicodeDecodeError:
      return x
  return x


def _split(path: str, split: str, known: list[str]) -> str:
  if not split and len(known) == 1:
    return known[0]
  if split not in known:
    wanted = f"no split {split!r}" if split else "several splits, set one with split"
    raise config.ConfigError(f"{path} has {wanted} (it has: {', '.join(known)})")
  return split


def _package(name: str, why: str):
  try:
    return __import__(name)
  except ModuleNotFoundError as e:
    raise config.ConfigError(f"the package {e.name!r} is needed {why}: pip install "
                             f"{name.replace('_', '-')}") from None


def _line(e: Exception) -> str:
  return (str(e).strip() or type(e).__name__).splitlines()[0][:300]


# --- tasks made of rows ---------------------------------------------------------------------------


def records(*, path: str | None = None, prompt_field: str = "prompt", answer_field: str = "answer",
            demo_field: str = "", hint_field: str = "", template: str = "{prompt}",
            verifier: str = "rljax.rewards.verify:exact", on_bad_row: str = "error",
            fmt: str | None = None, split: str = "", limit: int | None = None) -> tasks.TaskSet:
  """One task per row of any file or folder that `rows` reads.

  Args:
    prompt_field: text, or a list of chat messages `{"role", "content"}`.
    answer_field: what the verifier compares with; "" when the tasks have no answer.
    demo_field: a correct response, for supervised training; "" for none.
    hint_field: a prepared hint, into `info["hint"]` (`rljax.data.hints`); "" for none.
    template: wraps a text prompt at "{prompt}".
    verifier: "module:function"; "" when the rewards need none.
    limit: keep the first `limit` tasks.

  Raises:
    ConfigError: as `rows`; a row without one of the fields (file, row and field are named; with
      `on_bad_row="skip"` it is counted instead); a verifier that does not exist.
  """
  if verifier:
    config.resolve(verifier)
  check_template(template, "prompt")

  def make(row):
    prompt = field(row, prompt_field)
    if not isinstance(prompt, list):
      prompt = tasks.fill(template, {"prompt": prompt})
    elif template != "{prompt}":
      raise BadRow(f"{prompt_field!r} is a list of messages, which a template cannot wrap")
    return Task(id="", prompt=prompt, verifier=verifier,
                answer=field(row, answer_field) if answer_field else None,
                demo=str(field(row, demo_field)) if demo_field else "",
                info={"hint": str(field(row, hint_field))} if hint_field else {})

  return from_rows("records", rows(path, on_bad_row=on_bad_row, fmt=fmt, split=split), make,
                   on_bad_row=on_bad_row, limit=limit)


class BadRow(Exception):
  """What is wrong with a row, for the message of `from_rows`."""


def field(row: dict, name: str):
  """`row[name]`; raises BadRow where it is missing or null."""
  if row.get(name) is None:
    raise BadRow(f"has no field {name!r} (it has: {', '.join(map(str, row)) or 'nothing'})")
  return row[name]


def from_rows(name: str, found: Rows, make: Callable[[dict], Task], *, on_bad_row: str = "error",
              limit: int | None = None) -> tasks.TaskSet:
  """`make(row)` for every row, with ids `name/file/row`; `BadRow` is told or counted.

  The `counts` of the result: "skipped", bad lines and bad rows together.
  """
  if limit is not None and limit < 1:
    raise config.ConfigError(f"{name}: limit must be at least 1, found {limit}")
  stem = os.path.basename(found.path.rstrip("/")).split(".")[0]
  result, bad = [], 0
  for n, row in zip(found.numbers, found, strict=True):
    if limit is not None and len(result) == limit:
      break
    try:
      result.append(dataclasses.replace(make(row), id=f"{name}/{stem}/{n}"))
    except BadRow as e:
      if on_bad_row == "error":
        raise config.ConfigError(f"{found.path}, {found.unit} {n} {e}") from None
      bad += 1
  if bad:
    log.warning("%s: skipped %d rows that make no task", found.path, bad)
  if not result:
    raise config.ConfigError(f"{found.path}: none of its {len(found)} rows makes a task")
  return tasks.TaskSet(result, counts={"skipped": found.skipped + bad})


def check_template(template: str, name: str) -> None:
  if "{" + name + "}" not in template:
    raise config.ConfigError(f"the template {template!r} lacks {{{name}}}")
