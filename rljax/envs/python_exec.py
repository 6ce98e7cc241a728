"""A Python interpreter as a tool: every episode has a session of its own, in the sandbox."""

import ast
import collections
import re
import threading
import traceback

from rljax import sandbox, sandbox_session
from rljax.envs import base

_SIMPLE = 200  # characters; a longer cell is never worked out without an interpreter
_ARITHMETIC = (ast.BinOp, ast.UnaryOp, ast.Constant, ast.Add, ast.Sub, ast.Mult,
               ast.Div, ast.FloorDiv, ast.Mod, ast.UAdd, ast.USub)
_FENCE = re.compile(r"\s*```[a-zA-Z]*\n(.*?)(?:```\s*)?\Z", re.DOTALL)


class Python(base.Tool):
  """The state of an episode is the tuple of cells that it has run, so it can be pickled and forked.

  The interpreter that ran exactly these cells is kept alive for the next one; where there is none
  (a fork, another process, one that was put out), the cells are run again. As long as there are
  none, a cell that is only arithmetic on numbers, or no Python, is answered without an interpreter.
  """

  def __init__(self, limits: sandbox.Limits, mode: str, output: str, keep: int):
    self.output, self._limits, self._mode, self._keep = output, limits, mode, keep
    self._live: collections.OrderedDict[tuple, list] = collections.OrderedDict()
    self._lock = threading.Lock()
    sandbox.run_python("pass", sandbox=mode)  # a refusal comes now, and not in the first episode

  def start(self, task, seed):
    return (seed,)

  def call(self, state, text):
    fence = _FENCE.fullmatch(text)
    cell = fence[1] if fence else text
    said = _simple(cell) if len(state) == 1 else None
    if said is not None:
      return state, *said
    session, after = self._take(state), (*state, cell)
    result = session.run(cell)
    self._put(after, session)
    shown = result.stdout.rstrip("\n")
    if result.status == "ok":
      return after, shown, False
    return after, "\n".join(filter(None, (shown, _message(result)))), True

  def close(self, state):
    with self._lock:
      sessions = self._live.pop(state, [])
    for session in sessions:
      session.close()

  def _take(self, state):
    with self._lock:
      sessions = self._live.get(state, [])
      session = sessions.pop() if sessions else None
      if not sessions:
        self._live.pop(state, None)
    if session is not None:
      return session
    session = sandbox_session.Session(limits=self._limits, sandbox=self._mode)
    seed, *cells = state
    for cell in (f"import random as _r; _r.seed({seed}); del _r", *cells):
      session.run(cell)
    return session

  def _put(self, state, session):
    with self._lock:
      self._live.setdefault(state, []).append(session)
      self._live.move_to_end(state)
      late = self._live.popitem(last=False)[1] if len(self._live) > self._keep else []
    for old in late:
      old.close()


def _simple(cell: str) -> tuple[str, bool] | None:
  """(what an interpreter would say, whether in error), or None if it takes one to know."""
  if len(cell) > _SIMPLE:
    return None
  try:
    body = ast.parse(cell).body
    if len(body) != 1 or not isinstance(body[0], ast.Expr) or not all(
        isinstance(node, _ARITHMETIC) and type(getattr(node, "value", 0)) in (int, float)
        for node in ast.walk(body[0].value)):
      return None
    return repr(eval(compile(ast.Expression(body[0].value), "<cell>", "eval"))), False
  except (SyntaxError, ArithmeticError) as e:
    return traceback.format_exception_only(e)[-1].strip(), True
  except (ValueError, MemoryError, RecursionError):
    return None


def _message(result) -> str:
  """The last line of a traceback says what went wrong; where it did is rarely worth its tokens."""
  lines = result.stderr.strip().splitlines()
  return lines[-1] if lines else result.status


def python(*, seconds: float = 5.0, memory_mib: int = 512, output: str = "output",
           mode: str = "auto", keep: int = 128) -> base.Tool:
  """Runs code as the next cell of the episode's session; a tool of `rljax.envs.base.tools`.

  What it returns is what the cell printed and the value of a last bare expression; after an
  exception also its last line. A cell that passes its time ends the session: later calls say so.

  Args:
    seconds: wall clock of one cell, and processor time of a session.
    memory_mib: address space of the interpreter.
    output: the tag around what it returns.
    mode: `sandbox=` of `rljax.sandbox.run`; "required" refuses to start without isolation.
    keep: interpreters kept alive between turns; the least recently used goes first.
  """
  limits = sandbox.Limits(seconds=seconds, cpu=max(1, round(seconds)), memory=memory_mib << 20)
  return Python(limits, mode, output, keep)
