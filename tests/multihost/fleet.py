"""Several hosts on one machine: processes that find each other on localhost (gloo)."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence

# One of them says when it enters a phase, so that a kill can fall into any; see tests/drills.
CHILD = """
import contextlib, sys
from rljax import main
from rljax.train import distributed
inner = distributed.Hosts.phase
@contextlib.contextmanager
def phase(self, name):
  print(name, flush=True)
  with inner(self, name):
    yield
distributed.Hosts.phase = phase
sys.exit(main.train(sys.argv[1:]))
"""


def free_port() -> int:
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


def environment(devices: int, cache: str = "") -> dict[str, str]:
  """Of a process with so many simulated devices; compiled programs are kept in `cache`."""
  env = {k: v for k, v in os.environ.items() if not k.startswith("RLJAX_")}
  env |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0 "
          f"--xla_force_host_platform_device_count={devices}"}
  cached = {"DIR": cache, "MAX_SIZE": "-1"}
  if cache:
    env |= {f"JAX_COMPILATION_CACHE_{k}": v for k, v in cached.items()}
    env |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
  return env


def start(count: int, args: Sequence[str], *, devices: int = 1, cache: str = "",
          deadline: float = 60.0, port: int = 0) -> list[subprocess.Popen]:
  """The same command on `count` hosts; what they say on stderr goes to a file, `log`."""
  port = port or free_port()
  out = []
  for index in range(count):
    env = environment(devices, cache)
    if count > 1:
      env |= {"RLJAX_COORDINATOR": f"localhost:{port}", "RLJAX_PROCESSES": str(count),
              "RLJAX_PROCESS": str(index), "RLJAX_DEADLINE": str(deadline),
              "RLJAX_START_DEADLINE": str(deadline)}
    log = tempfile.TemporaryFile("w+")
    child = subprocess.Popen([sys.executable, "-c", CHILD, *args], env=env, text=True,
                             stdout=subprocess.PIPE, stderr=log)
    child.log = log
    out.append(child)
  return out


def said(child) -> str:
  """The end of a child's stderr."""
  child.log.seek(0)
  return child.log.read()[-3000:]


def run(count: int, args: Sequence[str], **settings) -> str:
  """Runs to the end on all hosts; what the first one printed."""
  children = start(count, args, **settings)
  outs = [c.communicate(timeout=1200)[0] for c in children]
  for index, c in enumerate(children):
    assert c.returncode == 0, f"host {index} of {count}: {c.returncode}\n{said(c)}"
  return outs[0]
