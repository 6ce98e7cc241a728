"""Rows split over four devices give the run of one device, to rounding."""

import os
import subprocess
import sys

import pytest

from tests.train import loop_test


def run(workdir, devices):
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  args = ["--config", loop_test.TINY, "--workdir", str(workdir), "--config.steps=2"]
  done = subprocess.run([sys.executable, "-m", "rljax.main", *args], capture_output=True, text=True,
                        env={**os.environ, "XLA_FLAGS": flags}, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  return loop_test.metrics(str(workdir))


@pytest.mark.slow
def test_four_devices_equal_one(tmp_path):
  one, four = run(tmp_path / "one", 1), run(tmp_path / "four", 4)
  assert len(one) == len(four) == 3
  for a, b in zip(one, four):
    assert a.keys() == b.keys()
    for name in a:
      assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-4), name
