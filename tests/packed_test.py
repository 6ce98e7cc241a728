"""Few arrays for many: the same tree comes back, on the host and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import packed, types


def tree(xp):
  return {"a": xp.arange(6, dtype=xp.int32).reshape(2, 3), "b": (xp.ones((2, 3), xp.int32), None),
          "c": types.Mean(xp.full((), 2, xp.float32), xp.full((), 4, xp.float32)),
          "d": xp.zeros((2, 3), bool), "e": xp.zeros((3, 0), xp.float32)}


@pytest.mark.parametrize("xp, pack", [(np, packed.pack), (jnp, jax.jit(packed.pack))],
                         ids=["host", "jit"])
def test_it_comes_back(xp, pack):
  found = pack(tree(xp))
  assert sorted(x.shape for x in found.stacks) == [(1, 2, 3), (1, 3, 0), (2,), (2, 2, 3)]
  back = packed.unpack(jax.device_get(found))
  jax.tree.map(np.testing.assert_array_equal, back, tree(np))
  assert [x.dtype for x in jax.tree.leaves(back)] == [x.dtype for x in jax.tree.leaves(tree(np))]
  assert isinstance(back["c"].compute(), np.generic | np.ndarray)  # no device is asked
  assert back["c"].compute() == 0.5


def test_it_is_unpacked_under_jit():
  total = jax.jit(lambda p: jax.tree.reduce(lambda s, x: s + x.sum(), packed.unpack(p), 0.0))
  assert total(packed.pack(tree(np))) == 15 + 6 + 2 + 4
