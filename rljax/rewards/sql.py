"""Rewards for queries: what they return, and which tables and columns they reach for.

A task has its database in `task.info["sql"]` (`rljax.envs.sqlite`) and the gold query as its
answer. Verifiers are `(task, text) -> float` in [0, 1]; `verify.verified_by` makes them rewards.
The query in a response is its last ```sql block, else its last <sql> or <answer> block, else all of
it.
"""

import collections
import functools
import json
import math
import re
from collections.abc import Mapping

from rljax.envs import sqlite
from rljax.types import Task

_BLOCKS = (re.compile(r"```sql\s*\n(.*?)```", re.DOTALL | re.IGNORECASE),
           re.compile(r"<(?:sql|answer)>(.*?)</(?:sql|answer)>", re.DOTALL))
MAX_CHARS = 10_000  # of a query


def query_in(text: str) -> str:
  """The query of a response, see the module; "" if it is longer than MAX_CHARS."""
  for block in _BLOCKS:
    found = block.findall(text)
    if found:
      text = found[-1]
      break
  text = text.strip()
  return text if len(text) <= MAX_CHARS else ""


def execution(task: Task, text: str) -> float:
  """1 if the query returns the gold query's rows: as a bag, in order if the gold query orders them.

  Numbers compare within 1e-6; names of columns do not count, their order does.

  Raises:
    ValueError: the gold query fails or is cut by the limits: the task cannot be judged.
  """
  database = _database(task)
  gold = _answer(database, str(task.answer))
  if gold.error or gold.cut:
    raise ValueError(f"task {task.id}: its own query fails: {gold.error or 'too many rows'}")
  query = query_in(text)
  found = _answer(database, query) if query else sqlite.Answer(error="no query")
  if found.error or found.cut or len(found.rows) != len(gold.rows):
    return 0.0
  a, b = ([tuple(map(_cell, row)) for row in x.rows] for x in (found, gold))
  if _ordered(str(task.answer)):
    return float(a == b)
  return float(collections.Counter(a) == collections.Counter(b))


def executable(task: Task, text: str) -> float:
  """1 if the query runs within the limits, whatever it returns."""
  query = query_in(text)
  return float(bool(query) and not _answer(_database(task), query).error)


def schema_linking(task: Task, text: str) -> float:
  """Jaccard overlap of the tables and columns that the query and the gold query name, by `sqlglot`.

  Columns are resolved through aliases to table.column as far as the schema allows. A query that
  does not parse scores 0. Reasoning-SQL's partial reward, https://arxiv.org/abs/2503.23157.

  Raises:
    ValueError: the gold query does not parse, or names nothing. ModuleNotFoundError: no sqlglot.
  """
  tables = _schema(_database(task))
  gold = linked(str(task.answer), tables)
  if not gold:
    raise ValueError(f"task {task.id}: its own query names no table that exists")
  found = linked(query_in(text), tables)
  return len(gold & found) / len(gold | found) if found else 0.0


def schema_recall(task: Task, text: str) -> float:
  """The share of the gold query's tables and columns that the query names; naming all pays too."""
  tables = _schema(_database(task))
  gold = linked(str(task.answer), tables)
  if not gold:
    raise ValueError(f"task {task.id}: its own query names no table that exists")
  return len(gold & linked(query_in(text), tables)) / len(gold)


def bigrams(task: Task, text: str) -> float:
  """Jaccard overlap of the bigrams of the two queries' tokens, lower case; 0 below two tokens."""
  import sqlglot
  sets = []
  for query in (str(task.answer), query_in(text)):
    try:
      tokens = [t.text.lower() for t in sqlglot.tokenize(query, read="sqlite")]
    except (sqlglot.errors.SqlglotError, RecursionError):
      tokens = []
    sets.append(set(zip(tokens, tokens[1:])))
  return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


def linked(query: str, tables: Mapping[str, tuple[str, ...]]) -> set[str]:
  """"table" and "table.column" for all that exist of what a query names; empty if unreadable."""
  import sqlglot
  from sqlglot import exp
  try:
    tree = sqlglot.parse_one(query, read="sqlite")
  except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
    return set()
  named = [t for t in tree.find_all(exp.Table) if t.name.lower() in tables]
  alias = {t.alias_or_name.lower(): t.name.lower() for t in named}
  out = set(alias.values())
  for column in tree.find_all(exp.Column):
    name, owner = column.name.lower(), column.table.lower()
    owners = [alias[owner]] if owner in alias else [] if owner else sorted(set(alias.values()))
    out.update(f"{t}.{name}" for t in [t for t in owners if name in tables[t]][:1])
  return out


def _ordered(query: str) -> bool:
  """Does the outermost query order its rows?"""
  import sqlglot
  try:
    return bool(sqlglot.parse_one(query, read="sqlite").args.get("order"))
  except sqlglot.errors.SqlglotError:
    return "order by" in query.lower()


def _cell(value):
  """A value to compare by: numbers to six significant decimals, 1 and 1.0 alike."""
  if isinstance(value, int | float) and math.isfinite(value):
    return float(f"{value:.6g}") if abs(value) < 1e15 else value
  return value


def _database(task) -> str:
  return json.dumps(dict(task.info["sql"]), sort_keys=True)


@functools.lru_cache(maxsize=4096)
def _answer(database: str, query: str) -> sqlite.Answer:
  connection = sqlite.connect(json.loads(database))
  try:
    return sqlite.query(connection, query)
  finally:
    connection.close()


@functools.lru_cache(maxsize=256)
def _schema(database: str) -> dict:
  connection = sqlite.connect(json.loads(database))
  try:
    return sqlite.schema(connection)
  finally:
    connection.close()
