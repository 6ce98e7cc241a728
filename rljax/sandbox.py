"""Runs programs nobody trusts: Python written by a policy, and tools that read a policy's text.

  result = sandbox.run_python("print(int(input()) ** 2)", stdin="12")
  result.status, result.stdout                                     # "ok", "144\n"

With bubblewrap (a Debian and Ubuntu package of that name) a program sees a read-only system, an
empty `/work` and `/tmp` in memory, no network, no process but its own and none of our environment;
it is no root, and everything it started dies with it. Without bubblewrap only resource limits hold:
such a program can read files and use the network, and if we are root it can do anything, its own
verdict included. `sandbox="auto"` then says so once in the log, `sandbox="required"` refuses.

Programs get the standard library of the Python that runs us and nothing from site-packages.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import pathlib
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from rljax import config

log = logging.getLogger(__name__)

MODES = ("auto", "required", "rlimit")
MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
  """What one program may use.

  Attributes:
    seconds: wall clock, then everything is killed. cpu: seconds of processor time per process.
    memory: bytes of address space per process; 0 = no limit (some runtimes reserve far more than
      they use). processes: processes and threads together. file: bytes of one file.
    disk: bytes of /work and of /tmp each (bubblewrap 0.7 or later).
    output: bytes of stdout, and of stderr; more than that ends the program.
  """

  seconds: float = 5.0
  cpu: int = 5
  memory: int = 512 * MIB
  processes: int = 16
  file: int = 16 * MIB
  disk: int = 64 * MIB
  output: int = MIB


DEFAULT = Limits()


@dataclasses.dataclass(frozen=True)
class Result:
  """How a program ended.

  Attributes:
    status: "ok" (exit code 0), "error" (any other exit), "timeout" (wall clock or processor time),
      "output" (wrote more than `Limits.output`).
    stdout, stderr: text, at most `Limits.output` bytes each; bad UTF-8 is replaced.
    seconds: wall clock, start of the sandbox included.
    returncode: as a shell sees it: 128 + signal for a program that was killed; -1 if we killed it.
  """

  status: str
  stdout: str
  stderr: str
  seconds: float
  returncode: int


class SandboxError(Exception):
  """The sandbox itself failed (not the program in it)."""


def run_python(code: str, *, stdin: str | bytes = "",
               files: Mapping[str, str | bytes] | None = None, limits: Limits = DEFAULT,
               sandbox: str = "auto", keeps_secrets: bool = False) -> Result:
  """Runs a Python program as `main.py` in an empty folder; the arguments are those of `run`.

  Args:
    keeps_secrets: its stdin must stay hidden from processes it starts. (Bubblewrap's own process
      beside it holds the same files, and runs as the same user unless we are root.)
  """
  return _run(["main.py"], stdin, {**(files or {}), "main.py": code}, limits, sandbox, (),
              alone=keeps_secrets)


def run(argv: Sequence[str], *, stdin: str | bytes = "",
        files: Mapping[str, str | bytes] | None = None, limits: Limits = DEFAULT,
        sandbox: str = "auto", read_only: Sequence[str] = ()) -> Result:
  """Runs a command of the system in the sandbox and waits for its end.

  Args:
    argv: the command, found on /usr/bin or by its path; ["main.py"] = that file, by Python.
    stdin: what it reads. files: by relative path, created in its working folder before it starts.
    limits: see `Limits`. sandbox: one of MODES.
    read_only: more folders of this machine that it may read, at the same path.

  Raises:
    ConfigError: `sandbox="required"` without a working bubblewrap, or a mode that does not exist.
    SandboxError: the sandbox could not start. ValueError: a file name that leaves the folder.
  """
  return _run(argv, stdin, files or {}, limits, sandbox, read_only)


def _run(argv, stdin, files, limits, sandbox, read_only, alone=False):
  start = time.monotonic()
  with launch(argv, files, limits, sandbox, read_only, to_bytes(stdin), alone) as child:
    status, out, err = child.collect(start + limits.seconds, limits.output)
    code = child.end()
  if status == "ok" and code == 128 + signal.SIGXCPU:
    status = "timeout"
  elif status == "ok" and code != 0:
    status = "error"
  return Result(status, _text(out), _text(err), time.monotonic() - start,
                -1 if status in ("timeout", "output") else code)


def describe() -> str:
  """What `sandbox="auto"` means on this machine, in words."""
  found = _bubblewrap()
  return (f"bubblewrap {'.'.join(map(str, found.version))}" if found.path
          else f"resource limits only: {found.reason}")


# --- starting ------------------------------------------------------------------------------------

# Runs first inside the sandbox: drops root, sets limits, says so, and becomes the program. A Python
# program goes on in the same interpreter (a second start would double the cost of a short one).
_BOOT = """
import os, resource, sys
uid, limits, ready, *argv = eval(sys.argv[1])
if uid:
  os.setgroups([]); os.setgid(uid); os.setuid(uid)
for name, soft, hard in limits:
  resource.setrlimit(getattr(resource, name), (soft, hard))
os.write(ready, b"+"); os.close(ready)
if argv[0] != "main.py":
  try:
    os.execvp(argv[0], argv)
  except OSError as e:
    sys.exit(f"{argv[0]}: {e}")
sys.argv[:], main = argv, type(sys)("__main__")
sys.path.insert(0, os.getcwd())
sys.modules["__main__"], main.__file__ = main, os.path.abspath("main.py")
main.__builtins__ = __builtins__
sys.excepthook = lambda kind, e, trace: sys.__excepthook__(kind, e.with_traceback(trace.tb_next), 0)
with open("main.py", "rb") as f:
  code = f.read()
exec(compile(code, main.__file__, "exec"), main.__dict__)
"""

_counter = itertools.count()


@dataclasses.dataclass(frozen=True)
class _Bubblewrap:
  path: str
  version: tuple[int, ...]
  reason: str


@functools.cache
def _bubblewrap() -> _Bubblewrap:
  """The bubblewrap of this machine if it can start a program here, else why not."""
  path = shutil.which("bwrap")
  if not path:
    return _Bubblewrap("", (), "bubblewrap is not installed (apt-get install bubblewrap)")
  version = tuple(int(x) for x in re.findall(r"\d+", subprocess.run(
      [path, "--version"], capture_output=True, text=True).stdout))
  found = _Bubblewrap(path, version, "")
  try:
    with _start(["true"], {}, Limits(), found, (), b"") as child:
      _, _, err = child.collect(time.monotonic() + 20, 4096)
      child.end()
  except SandboxError as e:
    return _Bubblewrap("", version, f"bubblewrap cannot start a program here ({e})")
  return found


def launch(argv, files, limits, sandbox, read_only, stdin, alone=False):
  """Context manager of a running `Child`, as `run` starts it; stdin None = a pipe."""
  if sandbox not in MODES:
    raise config.ConfigError(f"sandbox: one of {', '.join(MODES)}, found {sandbox!r}")
  found = _Bubblewrap("", (), "") if sandbox == "rlimit" else _bubblewrap()
  if not found.path and sandbox == "required":
    raise config.ConfigError(f"sandbox='required': {found.reason}")
  if not found.path and sandbox == "auto":
    _warn_once(found.reason)
  return _start(argv, files, limits, found, read_only, stdin, alone)


@functools.cache
def _warn_once(reason):
  log.warning("programs run WITHOUT isolation, under resource limits only: %s", reason)


@contextlib.contextmanager
def _start(argv, files, limits, bubblewrap, read_only, stdin, alone=False):
  """A running `Child`; whatever is left of it at the end is killed."""
  with contextlib.ExitStack() as stack:
    blob = lambda data: stack.enter_context(_blob(data))
    ready, theirs = os.pipe()
    stack.callback(os.close, ready)
    fds, env, folder = [theirs], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp",
                                  "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}, None
    for name in files:
      if name.startswith("/") or ".." in pathlib.PurePosixPath(name).parts:
        raise ValueError(f"sandbox: file {name!r} leaves the folder")
    prefix, token, uid = [], "", 0
    if bubblewrap.path:
      inside = [(name, blob(to_bytes(data)).fileno()) for name, data in files.items()]
      fds += [fd for _, fd in inside]
      prefix = _bubblewrap_argv(bubblewrap, limits, inside, read_only, alone)
      uid = 1_000_000 + os.getpid() % (1 << 22) * 256 + next(_counter) % 256 \
          if os.geteuid() == 0 else 0
    else:
      folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rljax-"))
      token = f"RLJAX_SANDBOX={folder}"
      env.update(HOME=folder, TMPDIR=folder, RLJAX_SANDBOX=folder)
      for name, data in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(data))
    spec = repr((uid, _rlimits(limits), theirs, *argv))
    try:
      process = subprocess.Popen(
          [*prefix, python(), "-s", "-S", "-P", "-c", _BOOT, spec], cwd=folder, env=env,
          stdin=subprocess.PIPE if stdin is None else blob(stdin), stdout=subprocess.PIPE,
          stderr=subprocess.PIPE, pass_fds=fds, start_new_session=True)
    finally:
      os.close(theirs)
    child = Child(process, ready, token)
    stack.callback(child.close)
    yield child


def _bubblewrap_argv(bubblewrap, limits, files, read_only, alone):
  size = ["--size", str(limits.disk)] if bubblewrap.version >= (0, 7) else []
  argv = [bubblewrap.path, "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
          "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
  if os.geteuid() == 0:  # limits on processes do not bind root: the boot code becomes somebody else
    argv += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
  else:
    argv += ["--unshare-user", *(["--as-pid-1"] if alone else [])]
  argv += ["--ro-bind", "/usr", "/usr"]
  for path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
    if os.path.islink(path):
      argv += ["--symlink", os.readlink(path), path]
    elif os.path.exists(path):
      argv += ["--ro-bind", path, path]
  prefix = os.path.realpath(sys.base_prefix)
  for path in ("/etc/ld.so.cache", "/etc/alternatives", prefix, *map(str, read_only)):
    if not path.startswith("/usr/"):
      for parent in reversed(pathlib.PurePosixPath(path).parents[:-1]):  # by default root's alone
        argv += ["--perms", "0755", "--dir", str(parent)]
      argv += ["--ro-bind-try", path, path]
  argv += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
  for path in ("/tmp", "/work"):
    argv += ["--perms", "1777", *size, "--tmpfs", path]
  for folder in sorted({str(p) for name, _ in files for p in pathlib.PurePosixPath(name).parents}):
    if folder != ".":
      argv += ["--perms", "0777", "--dir", f"/work/{folder}"]
  for name, fd in files:
    argv += ["--perms", "0666", "--file", str(fd), f"/work/{name}"]
  return [*argv, "--remount-ro", "/", "--chdir", "/work", "--"]


def _rlimits(limits):
  same = {"RLIMIT_NPROC": limits.processes, "RLIMIT_FSIZE": limits.file, "RLIMIT_NOFILE": 128,
          "RLIMIT_CORE": 0, "RLIMIT_AS": limits.memory}
  # The soft limit sends SIGXCPU, which can be ignored; the hard one kills.
  return [("RLIMIT_CPU", limits.cpu, limits.cpu + 1),
          *((name, n, n) for name, n in same.items() if n or name == "RLIMIT_CORE")]


class Child:
  """A started program: reads it with a deadline, and kills all of it."""

  def __init__(self, process, ready, token):
    self.process, self._ready, self._token = process, ready, token
    self._rest, self._killed = b"", False

  def collect(self, deadline, most):
    """(status "ok", "timeout" or "output", stdout, stderr); "ok" = it ended by itself."""
    streams = {self.process.stdout: bytearray(), self.process.stderr: bytearray()}
    out, err = streams.values()
    with selectors.DefaultSelector() as selector:
      for stream in streams:
        selector.register(stream, selectors.EVENT_READ)
      while selector.get_map():
        left = deadline - time.monotonic()
        if left <= 0:
          return "timeout", out, err
        for key, _ in selector.select(min(left, 0.05)):
          data = os.read(key.fd, 65536)
          streams[key.fileobj] += data[:most - len(streams[key.fileobj]) + 1]
          if not data:
            selector.unregister(key.fileobj)
          elif len(streams[key.fileobj]) > most:
            del streams[key.fileobj][most:]
            return "output", out, err
        if self.process.poll() is not None:
          self.kill()  # a daemon that it left behind may hold the pipes open
          deadline = min(deadline, time.monotonic() + 1)
    try:
      self.process.wait(max(deadline - time.monotonic(), 0.01))
    except subprocess.TimeoutExpired:
      return "timeout", out, err
    return "ok", out, err

  def read_line(self, deadline, most):
    """One line of stdout. Raises TimeoutError, or ValueError when it ended or wrote too much."""
    with selectors.DefaultSelector() as selector:
      selector.register(self.process.stdout, selectors.EVENT_READ)
      while b"\n" not in self._rest:
        if not selector.select(max(deadline - time.monotonic(), 0)):
          raise TimeoutError
        data = os.read(self.process.stdout.fileno(), 65536)
        self._rest += data
        if not data or len(self._rest) > most:
          raise ValueError("no reply")
    line, _, self._rest = self._rest.partition(b"\n")
    return line

  def end(self):
    """Kills what is left; the exit code. Raises SandboxError if the program was never reached."""
    self.kill()
    code = self.process.returncode
    if os.read(self._ready, 1) != b"+":
      raise SandboxError(f"the sandbox did not start (exit code {code})")
    return code if code >= 0 else 128 - code

  def kill(self):
    """Kills it and all it started, once."""
    if self._killed:  # its number may be another program's by now
      return
    self._killed = True
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self.process.pid, signal.SIGKILL)
    self.process.wait()
    while self._token and _kill_by_environment(self._token):
      pass

  def close(self):
    """Kills it and closes its pipes."""
    self.kill()
    for stream in filter(None, (self.process.stdin, self.process.stdout, self.process.stderr)):
      with contextlib.suppress(OSError):
        stream.close()


def _kill_by_environment(token):
  """Kills processes that were started with this environment variable; how many there were."""
  count = 0
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      if token.encode() in (folder / "environ").read_bytes().split(b"\0"):
        os.kill(int(folder.name), signal.SIGKILL)
        count += 1
  return count


@functools.cache
def python() -> str:
  """The interpreter without its virtual environment: that one's packages are not for programs."""
  return os.path.realpath(sys.executable)


def _blob(data: bytes):
  f = tempfile.TemporaryFile() if not hasattr(os, "memfd_create") \
      else os.fdopen(os.memfd_create("rljax"), "w+b")
  f.write(data)
  f.flush()
  f.seek(0)
  return f


def to_bytes(data: str | bytes) -> bytes:
  """UTF-8, what cannot be encoded replaced."""
  return data if isinstance(data, bytes) else data.encode("utf-8", "replace")


def _text(data) -> str:
  return bytes(data).decode("utf-8", "replace")
