"""The real TPU compiler accepts the steps of a run, for a named topology, with no TPU at hand."""

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from rljax import config as config_lib
from rljax import sharding, types
from rljax.train import build
from rljax.train import step as step_lib

pytest.importorskip("libtpu", reason="libtpu is the compiler")


@pytest.fixture(scope="module")
def quickstart():
  """The quickstart's run built over the devices of a v5e 2x2 slice that is not there."""
  topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
  mesh = sharding.mesh(topology.devices)
  run = build.build(config_lib.load("configs/quickstart.py"))
  shaped = lambda tree, place: jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place), tree)
  return run, mesh, shaped


def test_train_step(quickstart):
  run, mesh, shaped = quickstart
  update = run.updates["policy"]
  B, S, T = update.shapes.B, update.shapes.S, update.shapes.T
  f, i = np.zeros((B, T), np.float32), np.zeros((B, T), np.int32)
  batch = shaped(types.Batch(
      {"tokens_BS": np.zeros((B, S), np.int32), "action_pos_BT": i}, i, f, f, f, f, f, f[:, 0],
      i[:, 0]), sharding.rows(mesh))
  policy = run.roles.specs["policy"].policy
  params = shaped(jax.eval_shape(policy.init, jax.random.key(0)), sharding.replicated(mesh))
  optimizer = run.roles.optimizers["policy"]
  state = shaped(jax.eval_shape(lambda p: step_lib.init_state(p, optimizer), params),
                 sharding.replicated(mesh))
  batch = update.prepare.lower(params, params, batch).compile() and batch
  prepared = jax.eval_shape(update.prepare, params, params, batch)
  prepared = shaped(prepared, sharding.rows(mesh))
  step = update.step.lower(state, prepared).compile()
  memory = step.memory_analysis()
  assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 16 * 2**30  # a v5e's HBM


def test_sampler(quickstart):
  _, mesh, shaped = quickstart
  run = build.build(config_lib.load("configs/quickstart.py"), devices=mesh.devices)
  engine = run.samplers["policy"].engine
  params = shaped(jax.eval_shape(run.roles.specs["policy"].policy.init, jax.random.key(0)),
                  sharding.replicated(mesh))
  names = []
  for name, (call, args) in engine.programs(params).items():
    call.lower(*args).compile()
    names.append(name.split()[0])
  assert set(names) == {"prefill", "extend", "chunk"}
