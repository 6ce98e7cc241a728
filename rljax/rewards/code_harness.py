"""Judges one program inside the sandbox: the program and its tests never share a process.

This file runs there as a script, so it imports the standard library only. Two processes:

  the judge   reads the tests from stdin, runs them, writes one verdict per line. Nothing of it can
              be read or written by the other process (not even through /proc).
  the nursery was forked before the judge read anything. It runs the program, and hands back plain
              data: numbers, text, lists ... It has no access to the verdicts; if it ends, lies,
              hangs, or patches its own interpreter, tests fail.

stdin: JSON {"program", "entry": [names], "setup", "tests": [code], "cases": [[stdin, stdout]],
"seconds": per test, "tokens": one per test}. stdout: per test, JSON [status, detail], the status
"fail", "error", "timeout", or the test's token if it passed: a word that nobody else can know.
"""

import builtins  # little is imported: this starts once per program
import json
import os
import select
import sys
import time

MOST = 64 << 20  # bytes of one message


class Gone(BaseException):
  """The nursery does not answer: no test can go on, and none may catch this as an `Exception`."""


# --- plain data on the wire ----------------------------------------------------------------------


def encode(x):
  """JSON of plain data; subclasses become what they derive from.

  Raises:
    TypeError: anything that is not None, bool, number, text, bytes, list, tuple, set or dict.
  """
  if x is None or x is True or x is False:
    return x
  if isinstance(x, int):
    return {"i": hex(x)}
  if isinstance(x, float):
    return float(x)
  if isinstance(x, str):
    return "".join(x)
  if isinstance(x, bytes | bytearray):
    return {"b": bytes(x).hex()}
  if isinstance(x, complex):
    return {"c": [x.real, x.imag]}
  for key, kind in (("l", list), ("t", tuple), ("s", set), ("f", frozenset)):
    if isinstance(x, kind):
      return {key: [encode(y) for y in x]}
  if isinstance(x, dict):
    return {"d": [[encode(k), encode(v)] for k, v in x.items()]}
  raise TypeError(f"a {type(x).__name__} is no plain data")


def decode(x):
  """The inverse of `encode`; raises ValueError or TypeError for anything else."""
  if not isinstance(x, dict):
    if isinstance(x, list):
      raise ValueError("a bare list")
    return x
  (key, value), = x.items()
  if key == "d":
    return {decode(k): decode(v) for k, v in value}
  if key in "ltsf":
    return {"l": list, "t": tuple, "s": set, "f": frozenset}[key](map(decode, value))
  return {"i": lambda v: int(v, 16), "b": bytes.fromhex, "c": lambda v: complex(*v)}[key](value)


def send(wire, message):
  data = json.dumps(message).encode()
  data = len(data).to_bytes(4, "big") + data
  while data:
    data = data[os.write(wire[1], data):]


def receive(wire, deadline=float("inf")):
  """One message. Raises Gone: the other side ended, sent rubbish, or is late."""
  def exactly(n):
    data = b""
    while len(data) < n:
      left = deadline - time.monotonic()
      ready = select.select(wire[:1], [], [], None if left > 1e9 else max(left, 0))[0]
      part = os.read(wire[0], min(n - len(data), 1 << 16)) if ready else None
      if not part:
        raise Gone("timeout" if part is None else "the program ended the interpreter")
      data += part
    return data
  try:
    size = int.from_bytes(exactly(4), "big")
    if size > MOST:
      raise Gone("the program sent too much")
    return json.loads(exactly(size))
  except (OSError, ValueError, RecursionError) as e:
    raise Gone(f"the program sent no answer: {e}") from None


# --- the nursery ---------------------------------------------------------------------------------


def nursery(wire):
  """Runs programs for the judge until it hangs up; never returns."""
  os.setsid()
  null = os.open(os.devnull, os.O_RDWR)
  for fd in (0, 1, 2):
    os.dup2(null, fd)
  request = receive(wire)
  if "stdin" in request:
    while True:
      send(wire, run_case(request))
      request = receive(wire)
  space, failed = {"__name__": "solution"}, None
  try:
    exec(compile(request["program"], "solution.py", "exec"), space)
  except BaseException as e:
    failed = reason(e)
  while True:
    request = receive(wire)
    send(wire, {"raise": failed} if failed else call(space, request))


def call(space, request):
  try:
    head, _, method = request["name"].partition(".")
    function = space[head]
    if method:
      function = getattr(function(), method)
    return {"value": encode(function(*map(decode, request["args"]),
                                     **{k: decode(v) for k, v in request["kwargs"].items()}))}
  except BaseException as e:
    return {"raise": reason(e)}


def reason(e):
  return [type(e).__name__, str(e)[:500]]


def run_case(request):
  """Runs the program as a script in a process of its own: {"stdout", "status"}."""
  with os.fdopen(os.memfd_create("stdin") if hasattr(os, "memfd_create") else
                 os.open("stdin", os.O_RDWR | os.O_CREAT | os.O_TRUNC), "w+b") as stdin:
    stdin.write(request["stdin"].encode())
    stdin.seek(0)
    out, theirs = os.pipe()
    pid = os.fork()
    if not pid:
      script(request["program"], stdin.fileno(), theirs)
    os.close(theirs)
  deadline, data, status = time.monotonic() + request["seconds"], b"", "ok"
  while True:
    ready = select.select([out], [], [], max(deadline - time.monotonic(), 0))[0]
    part = os.read(out, 1 << 16) if ready else None
    if part is None or len(data) > request["most"]:
      status = "error" if part else "timeout"
      break
    if not part:
      break
    data += part
  ended = 0
  while status == "ok" and not ended and time.monotonic() < deadline:
    ended, code = os.waitpid(pid, os.WNOHANG)
    time.sleep(0 if ended else 0.001)
  if not ended:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    status = "timeout" if status == "ok" else status
  elif code:
    status = "error"
  os.close(out)
  return {"stdout": data.decode("utf-8", "replace"), "status": status}


def script(program, stdin, stdout):
  """Becomes the program: never returns."""
  code = 1
  try:
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    os.closerange(3, 256)
    sys.stdin, sys.stdout = open(0), open(1, "w")
    exec(compile(program, "solution.py", "exec"), {"__name__": "__main__"})
    code = 0
  except SystemExit as e:
    code = e.code if isinstance(e.code, int) else int(e.code is not None)
  except BaseException:
    pass
  try:
    sys.stdout.flush()
  finally:
    os._exit(code & 255)


# --- the judge -----------------------------------------------------------------------------------


def hide():
  """Keeps every other process of this user out of our memory and file descriptors."""
  if sys.platform == "linux":
    import ctypes
    if ctypes.CDLL(None, use_errno=True).prctl(4, 0, 0, 0, 0):  # PR_SET_DUMPABLE
      raise OSError("prctl(PR_SET_DUMPABLE) failed")


def main():
  sys.path[:] = [p for p in sys.path if p.startswith("/") and not p.startswith(os.getcwd())]
  requests, answers = os.pipe(), os.pipe()
  pid = os.fork()
  if not pid:
    os.close(requests[1])
    os.close(answers[0])
    try:
      nursery((requests[0], answers[1]))
    finally:
      os._exit(1)
  os.close(requests[0])
  os.close(answers[1])
  hide()
  verdicts = os.fdopen(os.dup(1), "w")
  payload = json.loads(sys.stdin.buffer.read())
  null = os.open(os.devnull, os.O_RDWR)
  os.dup2(null, 0)
  os.dup2(null, 1)
  judge = run_scripts if payload["cases"] else run_tests
  for token, (status, detail) in zip(payload["tokens"], judge((answers[0], requests[1]), payload)):
    verdicts.write(json.dumps([token if status == "pass" else status, detail]) + "\n")
    verdicts.flush()
  os.kill(pid, 9)


def run_scripts(wire, payload):
  for stdin, expected in payload["cases"]:
    request = {"program": payload["program"], "stdin": stdin, "seconds": payload["seconds"],
               "most": 4 * len(expected) + 65536}
    try:
      send(wire, request)
      answer = receive(wire, time.monotonic() + payload["seconds"] + 1)
    except (Gone, OSError) as e:
      answer = {"status": "timeout" if str(e) == "timeout" else "error", "stdout": ""}
    if answer["status"] != "ok":
      yield [answer["status"], "the program failed"]
    else:
      same = words(answer["stdout"]) == words(expected)
      yield ["pass" if same else "fail", "" if same else f"printed {answer['stdout'][:200]!r}"]


def words(text):
  return [line.split() for line in text.strip().splitlines()]


def run_tests(wire, payload):
  gone = []

  def stub(name):
    def function(*args, **kwargs):
      try:
        if gone:
          raise Gone(gone[0])
        send(wire, {"name": name, "args": [encode(a) for a in args],
                    "kwargs": {k: encode(v) for k, v in kwargs.items()}})
        answer = receive(wire, time.monotonic() + payload["seconds"])
        if "raise" not in answer:
          return decode(answer["value"])
        kind, text = map(str, answer["raise"])
      except (OSError, ValueError, TypeError, KeyError, RecursionError, Gone) as e:
        gone.append(str(e))
        raise Gone(str(e)) from None
      kind = getattr(builtins, kind, None)
      if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
      try:
        error = kind(text)
      except TypeError:  # UnicodeDecodeError wants five arguments
        error = RuntimeError(text)
      raise error
    return function

  try:
    send(wire, {"program": payload["program"]})
  except OSError:
    gone.append("the program ended the interpreter")
  for test in payload["tests"]:
    space = {"__name__": "tests"}
    exec(compile(payload["setup"], "setup.py", "exec"), space)
    for name in reversed(payload["entry"]):
      space[name.rpartition(".")[2]] = space["candidate"] = stub(name)
    try:
      exec(compile(test, "test.py", "exec"), space)
      yield ["fail", gone[0]] if gone else ["pass", ""]
    except Gone as e:
      yield ["timeout" if str(e) == "timeout" else "error", str(e)[:300]]
    except BaseException as e:
      yield ["fail", f"{type(e).__name__}: {e}"[:300]]


if __name__ == "__main__":
  main()
