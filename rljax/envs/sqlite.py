"""A database as a tool: read-only queries on sqlite, within limits of rows, time and size.

A task brings its database in `task.info["sql"]`: {"path": a file} or {"script": statements that
build one in memory}. Nothing that a query can say changes it: the connection is read-only, and an
authorizer lets through reading alone.
"""

import dataclasses
import sqlite3
import time
from collections.abc import Mapping

from rljax import config
from rljax.envs import base

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION,
            sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}
_STEPS = 1000  # of sqlite's virtual machine between two looks at the clock


@dataclasses.dataclass(frozen=True)
class Limits:
  """rows returned at most; seconds of one query; bytes of one value; cells (rows times columns)."""

  rows: int = 1000
  seconds: float = 2.0
  value: int = 1 << 20
  cells: int = 100_000


@dataclasses.dataclass(frozen=True)
class Answer:
  """Of a query: its rows (cut where `cut`), or the `error` in words; `columns` are their names."""

  columns: tuple[str, ...] = ()
  rows: tuple[tuple, ...] = ()
  error: str = ""
  cut: bool = False


def connect(database: Mapping, limits: Limits = Limits()) -> sqlite3.Connection:
  """A connection that can only read.

  Args:
    database: {"path": file} or {"script": SQL that builds it}.

  Raises:
    ConfigError: neither, no such file, or a script that fails: the task is at fault.
  """
  try:
    if "script" in database:
      connection = sqlite3.connect(":memory:", check_same_thread=False)
      connection.executescript(database["script"])
    else:
      connection = sqlite3.connect(f"file:{database['path']}?mode=ro", uri=True,
                                   check_same_thread=False)
      connection.execute("SELECT count(*) FROM sqlite_master")
  except (sqlite3.Error, KeyError, TypeError) as e:
    raise config.ConfigError(f"a task's database cannot be opened: {e}") from None
  connection.execute("PRAGMA query_only = ON")
  connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.value)
  connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
  connection.set_authorizer(_authorize)
  connection.text_factory = lambda data: data.decode("utf-8", "replace")
  return connection


def _authorize(action, first, second, database, source):
  del first, database, source
  if action == sqlite3.SQLITE_FUNCTION and str(second).lower() in _FORBIDDEN_FUNCTIONS:
    return sqlite3.SQLITE_DENY
  return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def query(connection: sqlite3.Connection, text: str, limits: Limits = Limits()) -> Answer:
  """Runs one statement; what goes wrong in it is in the answer, never raised."""
  until = time.monotonic() + limits.seconds
  connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
  try:
    cursor = connection.execute(text.strip().rstrip(";"))
    if cursor.description is None:
      return Answer(error="only queries are allowed")
    columns = tuple(d[0] for d in cursor.description)
    most = min(limits.rows, limits.cells // max(len(columns), 1))
    rows = cursor.fetchmany(most + 1)
    return Answer(columns, tuple(rows[:most]), cut=len(rows) > most)
  except sqlite3.Error as e:
    late = time.monotonic() > until
    return Answer(error=f"the query took more than {limits.seconds:g} s" if late else str(e))
  except (sqlite3.Warning, ValueError, OverflowError, MemoryError) as e:
    return Answer(error=str(e) or type(e).__name__)
  finally:
    connection.set_progress_handler(None, 0)


def schema(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
  """Table (or view) -> its columns, in lower case."""
  tables = [name for (name,) in connection.execute(
      "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') "
      "AND name NOT LIKE 'sqlite_%' ORDER BY name")]
  quoted = lambda name: '"' + name.replace('"', '""') + '"'
  return {name.lower(): tuple(d[0].lower() for d in connection.execute(
      f"SELECT * FROM {quoted(name)} LIMIT 0").description) for name in tables}


def as_text(answer: Answer, *, rows: int = 20, width: int = 60) -> str:
  """What a policy reads: names, then rows, cells cut to `width` characters."""
  if answer.error:
    return f"Error: {answer.error}"
  cell = lambda x: ("NULL" if x is None else str(x))[:width]
  lines = [" | ".join(answer.columns)]
  lines += [" | ".join(map(cell, row)) for row in answer.rows[:rows]]
  left = len(answer.rows) - rows
  if left > 0 or answer.cut:
    lines.append(f"... {left}{' or more' if answer.cut else ''} more rows")
  return "\n".join(lines)


class Database(base.Tool):
  """The state is the database's description: nothing that a query does is kept."""

  def __init__(self, limits: Limits, shown: int, output: str):
    self._limits, self._shown, self.output = limits, shown, output

  def start(self, task, seed):
    connect(task.info["sql"], self._limits).close()
    return dict(task.info["sql"])

  def call(self, state, text):
    connection = connect(state, self._limits)
    try:
      answer = query(connection, text, self._limits)
    finally:
      connection.close()
    return state, as_text(answer, rows=self._shown), bool(answer.error)


def database(*, rows: int = 1000, seconds: float = 2.0, shown: int = 20,
             output: str = "result") -> base.Tool:
  """Queries on the task's database; a tool of `rljax.envs.base.tools`.

  Args:
    rows: of a result, at most. seconds: of one query.
    shown: rows that the policy reads.
    output: the tag around them.
  """
  return Database(Limits(rows=rows, seconds=seconds), shown, output)
