"""A Python interpreter in the sandbox that keeps its variables: the tool of an agent."""

import contextlib
import json
import time
from collections.abc import Mapping

from rljax import sandbox as sandbox_lib

_DRIVER = """
import ast, contextlib, io, json, os, sys, traceback
requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
  os.dup2(null, fd)
sys.stdin = io.StringIO()
space = {"__name__": "__main__", "__builtins__": __builtins__}
dump, flush, Text = json.dumps, replies.flush, io.StringIO
def cell(code):
  tree = ast.parse(code)
  last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
  if last:
    tree.body.pop()
  exec(compile(tree, "<cell>", "exec"), space)
  if last:
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), space)
    if value is not None:
      print(repr(value))
while True:
  size = requests.readline()
  if not size:
    break
  code, out, err = requests.read(int(size)).decode("utf-8", "replace"), Text(), ""
  try:
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
      cell(code)
  except BaseException as e:
    kept = traceback.extract_tb(e.__traceback__)
    kept = [f for f in kept if f.filename == "<cell>"]
    err = "".join(traceback.format_list(kept) + traceback.format_exception_only(e))
  replies.write(dump({"out": out.getvalue(), "err": err}) + chr(10))
  flush()
"""


class Session:
  """A Python interpreter that keeps its variables from one call to the next.

  `run(code)` executes code as a notebook cell does: what it prints is the result's stdout, the
  value of a last bare expression is shown too, and an exception leaves the session usable (status
  "error", traceback in stderr). A cell that passes `limits.seconds` kills the session: status
  "timeout", and every later call gives status "dead". `limits.cpu` counts over the whole session.
  """

  MAX_CODE = 50_000  # bytes of one cell; fits the pipe, so that writing never blocks

  def __init__(self, *, files: Mapping[str, str | bytes] | None = None,
               limits: sandbox_lib.Limits = sandbox_lib.DEFAULT, sandbox: str = "auto"):
    self._limits = limits
    files = {**(files or {}), "main.py": _DRIVER}
    self._stack = contextlib.ExitStack()
    self._child = self._stack.enter_context(
        sandbox_lib.launch(["main.py"], files, limits, sandbox, (), stdin=None))
    self.alive = True

  def run(self, code: str) -> sandbox_lib.Result:
    """One cell; never raises for what the code does."""
    start = time.monotonic()
    took = lambda: time.monotonic() - start
    data = sandbox_lib.to_bytes(code)
    if not self.alive:
      return sandbox_lib.Result("dead", "", "the session has ended", 0.0, -1)
    if len(data) > self.MAX_CODE:
      return sandbox_lib.Result("error", "", f"more than {self.MAX_CODE} bytes of code", 0.0, 1)
    try:
      self._child.process.stdin.write(b"%d\n" % len(data) + data)
      self._child.process.stdin.flush()
      line = self._child.read_line(start + self._limits.seconds, 8 * self._limits.output)
      reply = json.loads(line)
      out, err = (str(reply[k])[:self._limits.output] for k in ("out", "err"))
    except TimeoutError:
      self.close()
      reason = f"no end after {self._limits.seconds:g} s"
      return sandbox_lib.Result("timeout", "", reason, took(), -1)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      self.close()
      return sandbox_lib.Result("error", "", "the interpreter ended", took(), -1)
    return sandbox_lib.Result("error" if err else "ok", out, err, took(), int(bool(err)))

  def close(self) -> None:
    """Ends the interpreter and all it started."""
    self.alive = False
    self._stack.close()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def __del__(self):
    if hasattr(self, "_stack"):
      self._stack.close()
