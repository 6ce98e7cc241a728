"""Several processes give the run of one: samples, losses, checkpoints; and none waits for ever.

They are slow ones: `make test-slow`, or `pytest tests/multihost`.
"""

import json
import os
import signal
import time

import pytest

from rljax.train import checkpoint, distributed
from tests.multihost import fleet
from tests.train import loop_test


def args(workdir, steps=3, **changes):
  given = {"steps": steps, "eval.every": 2, "checkpoint.every": 1, **changes}
  return ["--config", loop_test.TINY, "--workdir", str(workdir),
          *[f"--config.{k}={v}" for k, v in given.items()]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def one(tmp_path_factory, cache):
  workdir = tmp_path_factory.mktemp("one")
  fleet.run(1, args(workdir, 4), cache=cache)
  return workdir


def same_run(a, b, steps):
  """Equal samples; equal numbers to 1e-5, up to this many steps."""
  at = lambda rows: [r for r in rows if r["step"] < steps]
  for x, y in zip(at(loop_test.episodes(str(a))), at(loop_test.episodes(str(b))), strict=True):
    assert x == y
  for x, y in zip(at(loop_test.metrics(str(a))), at(loop_test.metrics(str(b))), strict=True):
    assert x.keys() == y.keys()
    for name in x:
      assert x[name] == pytest.approx(y[name], rel=1e-5, abs=1e-5), (x["step"], name)


@pytest.mark.slow
def test_two_hosts_equal_one_and_one_goes_on_with_their_checkpoint(tmp_path, one, cache):
  fleet.run(2, args(tmp_path, 2), cache=cache)
  record = json.load(open(tmp_path / "config.json"))
  assert record["topology"]["processes"] == 2 and record["topology"]["devices"] == 2
  assert json.load(open(tmp_path / "result.json"))["steps"] == 2
  same_run(one, tmp_path, 2)
  fleet.run(1, args(tmp_path, 3), cache=cache)
  same_run(one, tmp_path, 3)


@pytest.mark.slow
def test_four_hosts_equal_one(tmp_path, one, cache):
  """No host holds all weights; the checkpoint is restored by one, two and four."""
  for count, steps in ((4, 1), (1, 2), (2, 3), (4, 4)):
    fleet.run(count, args(tmp_path, steps, **{"layout.train": "fsdp"}), cache=cache)
    same_run(one, tmp_path, steps)


@pytest.mark.slow
def test_several_devices_per_host(tmp_path, one, cache):
  fleet.run(2, args(tmp_path, 2, **{"layout.train": "fsdp_tp", "layout.tensor": 2}),
            devices=2, cache=cache)
  same_run(one, tmp_path, 2)


def ended(children, within):
  """Exit codes; none may take longer than `within` seconds."""
  until = time.monotonic() + within
  while time.monotonic() < until and any(c.poll() is None for c in children):
    time.sleep(0.1)
  codes = [c.poll() for c in children]
  for c in children:
    c.kill()
  assert None not in codes, (codes, [fleet.said(c) for c in children])
  return codes


def wait_for(child, words, times=1):
  for line in child.stdout:
    times -= line.strip() == words
    if not times:
      return


@pytest.mark.slow
def test_the_watchdog_names_the_host_that_stalls(tmp_path, cache):
  """Host 1 is stopped in a rollout: host 0 does not wait for ever."""
  children = fleet.start(2, args(tmp_path, 60), cache=cache, deadline=25)
  wait_for(children[1], "rollout", 3)
  os.kill(children[1].pid, signal.SIGSTOP)
  assert ended(children[:1], 120)[0] == distributed.RESUMABLE
  text = fleet.said(children[0])
  assert "no progress for 25 s in phase" in text and "behind all others: host 1 in " in text, text
  children[1].kill()
  assert checkpoint.read_host(str(tmp_path / "checkpoints"))[0] >= 1


@pytest.mark.slow
def test_told_to_leave_on_one_host_all_leave_with_a_checkpoint(tmp_path, cache):
  children = fleet.start(2, args(tmp_path, 60, **{"checkpoint.every": 100}), cache=cache)
  wait_for(children[1], "update policy", 2)
  children[1].send_signal(signal.SIGTERM)
  assert ended(children, 60) == [143, 143]
  assert checkpoint.read_host(str(tmp_path / "checkpoints"))[0] >= 2
  assert "SIGTERM: the run ended with a checkpoint of step" in fleet.said(children[0])


@pytest.mark.slow
def test_a_host_that_does_not_come(tmp_path, cache):
  children = fleet.start(2, args(tmp_path), cache=cache, deadline=5)
  children[1].kill()
  code = ended(children[:1], 60)[0]
  assert code not in (0, 2), code
