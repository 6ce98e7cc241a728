"""Eight simulated devices under every layout equal one; the table of rules says what it refuses."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from rljax import sharding


@pytest.fixture(scope="module")
def gaps():
  env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
         "--xla_backend_optimization_level=0", "JAX_PLATFORMS": "cpu"}
  done = subprocess.run([sys.executable, "-m", "tests.models.sharded_worker"], env=env,
                        capture_output=True, text=True, timeout=1800)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["dense", "experts"])
@pytest.mark.parametrize("layout, part", [
    ("fsdp 1", 1 / 8), ("fsdp_tp 2", 1 / 8), ("fsdp_tp 4", 1 / 8), ("sampler 4", 1 / 4)])
def test_loss_gradients_and_decoding_equal_one_device(gaps, model, layout, part):
  found = gaps[f"{model} {layout}"]
  assert found["part"] == part  # it is really split
  for what in ("loss", "gradients", "decode"):
    assert found[what] < 1e-5, (what, found)


@pytest.mark.slow
def test_packed_rows_lie_where_their_episodes_are(gaps):
  """The same loss and gradients, and no device reads another one's hidden states."""
  assert gaps["packed"]["loss"] < 1e-5 and gaps["packed"]["gradients"] < 1e-5
  assert gaps["packed"]["gathers"] == 0


@pytest.mark.slow
def test_an_axis_that_does_not_divide_is_whole_and_listed(gaps):
  assert gaps["dense fsdp_tp 4"]["whole"] == ["kv_heads=2 over tensor=4"]
  assert gaps["dense fsdp_tp 2"]["whole"] == []


def layout(rules):
  out = sharding.Layout.__new__(sharding.Layout)
  out.mesh, out.whole = AbstractMesh((4, 2), ("data", "tensor")), set()
  out.rules = sharding.LAYOUTS[rules] if isinstance(rules, str) else rules
  return out


def test_rules():
  q = (("layers", "embed", "heads", "head_dim"), (3, 16, 4, 8))
  assert layout("single").spec(*q) == PartitionSpec(None, None, None, None)
  assert layout("fsdp").spec(*q) == PartitionSpec(None, "data", None, None)
  assert layout("fsdp_tp").spec(*q) == PartitionSpec(None, "data", "tensor", None)
  assert layout("sampler").spec(*q) == PartitionSpec(None, None, "tensor", None)


def test_a_collision_names_the_axes():
  with pytest.raises(ValueError, match="axes 'embed' and 'mlp' .* mesh axis 'data'"):
    layout({"embed": "data", "mlp": "data"}).spec(("embed", "mlp"), (16, 32))


def test_refusals():
  with pytest.raises(ValueError, match="layout 'tp'; one of single, fsdp, fsdp_tp, sampler"):
    sharding.Layout(sharding.mesh(), "tp")
  with pytest.raises(ValueError, match="rule embed -> model: the mesh has axes data, tensor"):
    sharding.Layout(sharding.mesh(), {"embed": "model"})
  with pytest.raises(ValueError, match="cannot be split by tensor=3"):
    sharding.mesh(tensor=3)


def test_an_optimizer_state_follows_its_parameters():
  m = sharding.mesh()
  spec = jax.sharding.NamedSharding(m, PartitionSpec("data", None))
  params = {"a": {"w": jax.ShapeDtypeStruct((4, 6), "float32", sharding=spec)}}
  state = ({"mu": {"a": {"w": np.zeros((4, 6))}}, "scale": {"a": {"w": np.zeros((4, 1))}}},
           np.zeros(()))
  got = sharding.Layout(m).follow(state, params)
  assert got[0]["mu"]["a"]["w"].spec == PartitionSpec("data", None)
  assert got[0]["scale"]["a"]["w"].spec == PartitionSpec("data", None)
  assert got[1].spec == PartitionSpec()


@pytest.mark.slow
@pytest.mark.parametrize("tensor", [1, 2])
def test_the_sampler_on_eight_devices_equals_one(gaps, tensor):
  """Slots over "data", heads over "tensor", weights split as the sampler holds them."""
  got = gaps[f"dense engine {tensor}"]
  assert got["tokens"] and got["logp"] < 1e-5
  assert got["split"] == [1, 8 // tensor, tensor, 1, 1]
  assert got["compiled"] == 0  # after warm-up, whatever the calls


@pytest.mark.parametrize("given, devices", [
    ({}, min(2, len(os.sched_getaffinity(0)))), ({"JAX_NUM_CPU_DEVICES": "1"}, 1),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3), ({"JAX_DISABLE_JIT": "1"}, 1)])
def test_a_cpu_is_two_devices_unless_the_environment_says_otherwise(given, devices):
  env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
  code = "from rljax import sharding as s; s.split_cpu(); print(s.mesh().size); s.split_cpu()"
  done = subprocess.run([sys.executable, "-c", code], env={**env, "JAX_PLATFORMS": "cpu", **given},
                        capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr[-2000:]
  assert int(done.stdout) == devices
