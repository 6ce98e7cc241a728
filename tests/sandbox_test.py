"""The sandbox: what programs may do, what they may not, and that nothing of them stays."""

import os
import pathlib
import socket
import time

import pytest

from rljax import config, sandbox, sandbox_session
from tests.rewards import attacks

needs_bubblewrap = pytest.mark.skipif(
    not sandbox.describe().startswith("bubblewrap"), reason=sandbox.describe())
MODES = ["rlimit", pytest.param("required", marks=needs_bubblewrap)]
QUICK = sandbox.Limits(seconds=4, cpu=2)


def processes(marker):
  """Ids of processes whose command line holds the marker."""
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
      if marker.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
        found.append(path.parent.name)
    except OSError:
      pass
  return found


@pytest.mark.parametrize("mode", MODES)
def test_a_program_runs(mode):
  code = "import sys, helper\nprint(helper.twice(int(input())))\nprint('no', file=sys.stderr)"
  out = sandbox.run_python(code, stdin="21", files={"helper.py": "def twice(x): return 2 * x"},
                           sandbox=mode)
  assert (out.status, out.stdout, out.stderr, out.returncode) == ("ok", "42\n", "no\n", 0)
  assert 0 < out.seconds < 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code, status, returncode", [
    ("1/0", "error", 1), ("import sys; sys.exit(7)", "error", 7),
    ("import os; os.kill(os.getpid(), 11)", "error", 139),
    ("import time; time.sleep(60)", "timeout", -1),
    ("while True: pass", "timeout", -1),
    ("while True: print('x' * 9999)", "output", -1)])
def test_how_a_program_ends(mode, code, status, returncode):
  limits = sandbox.Limits(seconds=1.5, cpu=1, output=10_000)
  out = sandbox.run_python(code, limits=limits, sandbox=mode)
  assert (out.status, out.returncode) == (status, returncode)
  assert len(out.stdout) <= 10_000 and out.seconds < 4


def test_a_traceback_shows_the_program_alone():
  out = sandbox.run_python("def f():\n  raise KeyError('k')\nf()")
  assert out.stderr.count("File ") == 2 and "main.py" in out.stderr and "KeyError" in out.stderr


@pytest.mark.parametrize("mode", MODES)
def test_commands_and_files(mode):
  out = sandbox.run(["sh", "-c", "cat a/b.txt - && pwd"], stdin="in", files={"a/b.txt": b"file "},
                    sandbox=mode)
  assert out.stdout.startswith("file in") and out.status == "ok"
  assert sandbox.run(["no-such-command"], sandbox=mode).status == "error"
  with pytest.raises(ValueError, match="leaves the folder"):
    sandbox.run(["true"], files={"../x": ""}, sandbox=mode)


@pytest.mark.parametrize("limit, code", [
    ("memory", "x = bytearray(400 << 20)"),
    ("file", "open('f', 'wb').write(b'x' * (8 << 20))"),
    ("processes", "import os, time\nfor _ in range(9):\n  if os.fork() == 0:\n    time.sleep(9)"),
    ("disk", "for i in range(9): open(f'f{i}', 'wb').write(b'x' * (1 << 20))"),
])
@needs_bubblewrap
def test_each_limit_binds(limit, code):
  small = {"memory": 100 << 20, "file": 1 << 20, "processes": 5, "disk": 4 << 20}[limit]
  run = lambda limits: sandbox.run_python(code, limits=limits, sandbox="required").status
  assert run(sandbox.Limits(seconds=8, **{limit: small})) == "error"
  assert run(sandbox.Limits(seconds=8)) == "ok"


def test_modes(monkeypatch, caplog):
  with pytest.raises(config.ConfigError, match="one of auto, required, rlimit"):
    sandbox.run_python("", sandbox="none")
  missing = sandbox._Bubblewrap("", (), "bubblewrap is not installed")
  monkeypatch.setattr(sandbox, "_bubblewrap", lambda: missing)
  with pytest.raises(config.ConfigError, match="'required': bubblewrap is not installed"):
    sandbox.run_python("print(1)", sandbox="required")
  sandbox._warn_once.cache_clear()
  assert [sandbox.run_python("print(1)").stdout for _ in range(2)] == ["1\n"] * 2
  assert caplog.text.count("WITHOUT isolation") == 1
  assert sandbox.describe() == "resource limits only: bubblewrap is not installed"


@pytest.mark.parametrize("mode", MODES)
def test_nothing_stays(mode):
  marker = f"marker-{os.getpid()}-{mode}"
  code = ("import os, subprocess, sys, time\n"
          f"code = 'import time; time.sleep(60)  # {marker}'\n"
          "subprocess.Popen([sys.executable, '-S', '-c', code], start_new_session=True)\n"
          "time.sleep(0.3)\nprint('done')")
  out = sandbox.run_python(code, limits=QUICK, sandbox=mode)
  assert out.stdout == "done\n" and out.seconds < 4
  deadline = time.monotonic() + 5
  while processes(marker) and time.monotonic() < deadline:
    time.sleep(0.05)
  assert not processes(marker)


@needs_bubblewrap
@pytest.mark.parametrize("name", attacks.ESCAPES)
def test_no_escape(name, monkeypatch):
  monkeypatch.setenv("RLJAX_SECRET", "1")
  with socket.socket() as server:
    server.bind(("127.0.0.1", 0))
    server.listen()
    head = f"REPOSITORY = {os.getcwd()!r}\nPORT = {server.getsockname()[1]}\n"
    out = sandbox.run_python(head + attacks.ESCAPES[name], limits=QUICK, sandbox="required")
  assert "ESCAPED" not in out.stdout


# --- sessions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_session_remembers(mode):
  with sandbox_session.Session(sandbox=mode, limits=QUICK) as s:
    assert s.run("x = 20").stdout == ""
    assert s.run("print('a')\nx + 1").stdout == "a\n21\n"
    bad = s.run("y = 1\n1 / 0")
    assert bad.status == "error" and bad.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert s.run("y").stdout == "1\n" and s.alive
    assert s.run("x" * 60_000).status == "error" and s.alive
    assert s.run("import os\nos._exit(0)").status == "error"
    assert s.run("x").status == "dead" and not s.alive


def test_a_session_that_hangs_is_over():
  with sandbox_session.Session(limits=sandbox.Limits(seconds=0.7)) as s:
    start = time.monotonic()
    assert s.run("while True: pass").status == "timeout"
    assert time.monotonic() - start < 3
    assert s.run("1").status == "dead"


def test_a_session_that_forges_its_replies_only_fools_itself():
  with sandbox_session.Session(limits=QUICK) as s:
    s.run("import os\nfor fd in range(3, 30):\n  try: os.write(fd, b'[1, 2]\\n')\n"
          "  except OSError: pass")
    assert s.run("1").status in ("ok", "error", "dead")
