"""Token logprobs over eight devices: those of one, without moving weights or logits."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

B, T, D, V = 8, 6, 128, 1024
PLACEMENTS = {  # name: (mesh shape, token axes, vocabulary axis)
    "tokens": ((8, 1), ("data",), None), "vocabulary": ((1, 8), (), "tensor"),
    "both": ((2, 4), ("data",), "tensor")}

PROGRAM = f"""
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh
from rljax_kernels.token_logprob import op
from tests.kernels import token_logprob_test as lib

h, w, y, g = lib.case({B}, {T}, {D}, {V})
out = {{}}

def run(name, kind, placement):
  def f(h, w, t):
    found = op.token_logprobs(h, w, y, temperature=t, softcap=4.0, return_entropy=True, top_k=4,
                              implementation=kind, placement=placement, interpret=True)
    return jnp.vdot(found[0], g[0]) + jnp.vdot(found[1], g[1]), found
  step = jax.jit(jax.value_and_grad(f, (0, 1, 2), has_aux=True)).lower(h, w, jnp.float32(0.8))
  (_, found), grads = step.compile()(h, w, jnp.float32(0.8))
  for i, x in enumerate((*found, *grads)):
    out[f"{{name}}/{{i}}"] = np.asarray(x)
  out[f"{{name}}/text"] = step.as_text()

mesh = lambda shape: Mesh(np.array(jax.devices()).reshape(shape), ("data", "tensor"))
assert jax.device_count() == 8
run("one", "xla", op.Placement(Mesh(np.array(jax.devices()[:1]), ("data",))))
for name, (shape, tokens, vocabulary) in {PLACEMENTS!r}.items():
  run(name, "xla", op.Placement(mesh(shape), tokens, vocabulary))
run("kernel", "mosaic", op.Placement(mesh((2, 4)), ("data",), "tensor"))
fault = op.Placement(mesh((2, 4)), ("data",), "tensor").fault
out["faults"] = np.array([fault(3, 8), fault(4, 10), fault(4, 8)])
try:
  op.token_logprobs(h, w, y, implementation="mosaic")
except ValueError as e:
  out["alone"] = str(e)
np.savez(sys.argv[1], **out)
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
  path = tmp_path_factory.mktemp("sharded") / "out.npz"
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
  done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True,
                        env={**os.environ, "XLA_FLAGS": flags}, timeout=600)
  assert done.returncode == 0, done.stderr[-3000:]
  return dict(np.load(path))


@pytest.mark.parametrize("name", [*PLACEMENTS, "kernel"])
def test_equals_one_device(found, name):
  for i in range(6):  # logp, entropy, ids, and the gradients to hidden, unembed, temperature
    a, b = found[f"{name}/{i}"], found[f"one/{i}"]
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def collectives(text):
  """(operation, number of elements of its result) of every collective in a lowered program."""
  out = []
  for m in re.finditer(r'"?stablehlo\.(all_reduce|all_gather|all_to_all|reduce_scatter|'
                       r'collective_permute)"?.*?-> tensor<([0-9x]*)x?[a-z]+[0-9]+>', text, re.S):
    out.append((m[1], int(np.prod([int(n) for n in m[2].split("x") if n] or [1]))))
  return out


def test_a_split_vocabulary_moves_numbers_per_token_only(found):
  tokens = B * T
  ops = collectives(str(found["vocabulary/text"]))
  # The forward: a maximum and a stack of four sums per token; ids and logits of 8 x 4 candidates.
  # The backward: the partial sums of the gradient to hidden.
  assert sorted(ops) == sorted([
      ("all_reduce", tokens), ("all_reduce", 4 * tokens), ("all_gather", 32 * tokens),
      ("all_gather", 32 * tokens), ("all_reduce", tokens * D)])


def test_split_tokens_move_the_gradient_of_the_weights_only(found):
  assert collectives(str(found["tokens/text"])) == [("all_reduce", V * D)]


def test_sizes_that_do_not_split_are_named(found):
  rows, vocab, fine = found["faults"]
  assert "3 rows do not split over 2 devices (data)" in rows
  assert "vocabulary of 10 does not split over 4 devices (tensor)" in vocab and not fine
  assert "8 devices and no placement" in str(found["alone"])
