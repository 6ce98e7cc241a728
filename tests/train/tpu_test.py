"""The real TPU compiler accepts every step of the quickstart, on four chips that are not there."""

import pytest

from rljax import config as config_lib
from rljax import plan
from rljax.train import build

pytest.importorskip("libtpu", reason="libtpu is the compiler")


@pytest.fixture(scope="module")
def steps():
  config = config_lib.load("configs/quickstart.py")
  devices, _ = plan.tpu_devices("v5e:2x2")
  run = build.build(config, devices=devices)
  return plan.Steps(run, config, run.updates["policy"])


@pytest.mark.parametrize("name", ["score", "train"])
def test_train_step(steps, name):
  fn, args, _ = getattr(steps, name)(steps.update.shapes.B)
  memory = fn.lower(*args).compile().memory_analysis()
  assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 16 * 2**30  # a v5e's HBM


def test_sampler(steps):
  engine = steps.run.samplers["policy"].engine
  names = set()
  for name, (call, args) in engine.programs(steps.sampler.shapes()).items():
    call.lower(*args).compile()
    names.add(name.split()[0])
  assert names == {"prefill", "extend", "chunk"}
