"""The real TPU compiler accepts every step of the quickstart, on four chips that are not there."""

import dataclasses

import jax
import pytest

from rljax import config as config_lib
from rljax import plan, sharding
from rljax.models import policy
from rljax.sampling import engine
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


@pytest.mark.parametrize("scan", [True, False])
def test_tokens_are_written_in_place(scan):
  """Decoding needs far less than a second cache beside the first."""
  devices, _ = plan.tpu_devices("v5e:2x2")
  mesh = sharding.mesh(devices[:1])
  model = dataclasses.replace(
      policy.decoder(64, width=512, layers=2, heads=4, kv_heads=2, head_dim=128, mlp=512, scan=scan,
                     dtype="bfloat16"), layout=sharding.Layout(mesh, "single"))
  made = engine.Engine(model, stop_ids=(1,), slots=64, prompt_buckets=(1024,), max_tokens=1024,
                       mesh=mesh)
  programs = made.programs(model.shapes())
  call, args = programs[[n for n in programs if n.startswith("chunk")][-1]]
  cache = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(args[1].cache))
  memory = call.lower(*args).compile().memory_analysis()
  assert memory.alias_size_in_bytes >= cache
  assert memory.temp_size_in_bytes < 0.3 * cache
