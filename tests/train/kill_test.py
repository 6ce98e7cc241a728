"""Kill -9 at random moments; the run that is continued each time equals the one never killed.

Bit for bit: weights (checksums of the last checkpoint), metrics and episodes, all but wall-clock
times. `make soak` kills 20 times; the test suite a few.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from rljax.train import checkpoint
from tests.train import loop_test

# The child says when it starts its loop and when it enters a phase; a kill may fall into any.
CHILD = """
import sys, time
from rljax import main
from rljax.train import checkpoint, loop, rollouts
def told(cls, name):
  inner = getattr(cls, name)
  def outer(*args, **kwargs):
    print(name, flush=True)
    return inner(*args, **kwargs)
  setattr(cls, name, outer)
told(rollouts.Rollouts, "take")
told(loop.Loop, "_update")
told(checkpoint.Checkpoints, "save")
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
sys.exit(main.train(sys.argv[2:]))
"""


def start(workdir, cache):
  return subprocess.Popen(
      [sys.executable, "-c", CHILD, cache, "--config", loop_test.TINY + ":long",
       "--workdir", workdir],
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(workdir, cache):
  child = start(workdir, cache)
  out, err = child.communicate(timeout=600)
  assert child.returncode == 0, err[-3000:]
  return out


def last_checksums(workdir):
  step, host = checkpoint.read_host(os.path.join(workdir, "checkpoints"))
  assert step == 60
  return host["checksums"], host["curriculum"], host["tokens"]


def kill_after(child, seconds):
  """Kills the child that long after its second update began; returns the phase it was in."""
  said = []
  updating = threading.Event()

  def read():
    for line in child.stdout:
      said.append(line.strip())
      if said.count("_update") == 2:  # the first one compiles
        updating.set()

  reader = threading.Thread(target=read, daemon=True)
  reader.start()
  while not updating.wait(0.1) and child.poll() is None:
    pass
  time.sleep(seconds)
  child.send_signal(signal.SIGKILL)
  child.wait()
  reader.join()
  child.stderr.close()
  return said[-1] if said else ""


@pytest.fixture
def kills(request):
  return request.config.getoption("--kills")


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path, kills):
  cache, whole, broken = (str(tmp_path / n) for n in ("cache", "whole", "broken"))
  finish(whole, cache)
  rs = random.Random(0)
  phases, first_steps = [], []
  for _ in range(kills):
    phases.append(kill_after(start(broken, cache), rs.uniform(0.0, 1.0)))
    newest = checkpoint.read_host(os.path.join(broken, "checkpoints"))
    first_steps.append(newest[0] if newest else None)
  print(f"\nkilled in {phases} with the newest checkpoint at {first_steps}")
  finish(broken, cache)
  assert last_checksums(whole) == last_checksums(broken)
  assert loop_test.metrics(whole) == loop_test.metrics(broken)
  assert loop_test.episodes(whole) == loop_test.episodes(broken)
  assert any(s for s in first_steps), "no kill fell after a checkpoint: the test showed nothing"
