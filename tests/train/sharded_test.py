"""Rows split over four devices give the run of one device, to rounding."""

import os
import subprocess
import sys

import pytest

from rljax.train import loop
from tests.train import loop_test

PACKED = ("--config.updates.policy.minibatches=1", "--config.updates.policy.accum=2",
          "--config.updates.policy.pack=8", "--config.updates.policy.pack_length=14")


def run(workdir, devices, more=()):
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  args = ["--config", loop_test.TINY, "--workdir", str(workdir), "--config.steps=2", *more]
  done = subprocess.run([sys.executable, "-m", "rljax.main", *args], capture_output=True, text=True,
                        env={**os.environ, "XLA_FLAGS": flags}, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  assert loop.read_result(str(workdir))["faults"].get("not_packed", 0) == 0
  return loop_test.metrics(str(workdir))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), PACKED], ids=["rows", "packed"])
def test_four_devices_equal_one(tmp_path, more):
  one, four = run(tmp_path / "one", 1, more), run(tmp_path / "four", 4, more)
  assert len(one) == len(four) == 3
  for a, b in zip(one, four):
    assert a.keys() == b.keys()
    for name in a:
      assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-4), name
