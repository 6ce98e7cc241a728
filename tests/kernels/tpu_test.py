"""The real TPU compiler takes the kernels, for topologies that are not there."""

import os

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import dataclasses

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from rljax import optim, sharding, types
from rljax.models import policy as policy_lib
from rljax.objectives import pg
from rljax.train import step as step_lib
from rljax_kernels.bench import cases

pytest.importorskip("libtpu", reason="libtpu is the compiler")


CASE = cases.token_logprobs(8192, 4096, 151936, "bfloat16")
LOGITS = 4 * 8192 * 151936  # bytes of one float32 array of them


@pytest.mark.parametrize("topology", [
    "v5e:2x2", *[pytest.param(t, marks=pytest.mark.slow) for t in ("v5p:2x2x1", "v6e:2x2")]])
def test_memory_of_a_real_vocabulary(topology):
  """8192 tokens, width 4096, 151936 ids, bfloat16, forward and backward."""
  kernel = CASE.compile("mosaic", cases.topology_device(topology))
  assert "token_logprobs_forward" in kernel.text and "token_logprobs_backward" in kernel.text
  assert kernel.temporary_bytes <= 0.05 * LOGITS


def test_the_dense_version_needs_more_than_its_logits():
  dense = CASE.compile("dense", cases.topology_device("v5e:2x2"))
  assert "token_logprobs_forward" not in dense.text
  assert dense.temporary_bytes > LOGITS


def test_an_unknown_topology_is_named():
  with pytest.raises(ValueError, match="v5p:3x5"):
    cases.topology_device("v5p:3x5")


@pytest.mark.parametrize("layout, tensor", [("single", 1), ("fsdp_tp", 2)])
def test_the_train_step_of_four_chips_holds_the_kernel(layout, tensor):
  topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
  layout = sharding.Layout(sharding.mesh(topology.devices, tensor), layout)
  policy = dataclasses.replace(
      policy_lib.decoder(4096, width=128, layers=1, heads=2), layout=layout)
  optimizer = optim.adamw(lr=1e-3)
  state = jax.eval_shape(lambda p: step_lib.init_state(p, optimizer), policy.shapes())
  places = layout.follow(state, policy.shapes())
  shaped = lambda x, place: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=place)
  f, i = np.zeros((8, 16), np.float32), np.zeros((8, 16), np.int32)
  inputs = {"tokens_BS": np.zeros((8, 32), np.int32), "action_pos_BT": i}
  batch = types.Batch(inputs, i, f, f, f, f, f, f[:, 0], i[:, 0])
  batch = jax.tree.map(lambda x: shaped(x, sharding.rows(layout.mesh)), batch)
  step = jax.jit(step_lib.make(policy.stats, pg.grpo, optimizer), donate_argnums=0)
  lowered = step.lower(jax.tree.map(shaped, state, places), batch)
  text = lowered.as_text()
  assert text.count("token_logprobs_forward") and text.count("token_logprobs_backward")
  lowered.compile()
