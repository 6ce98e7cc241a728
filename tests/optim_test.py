"""Optimizers: what is frozen, and moments of fewer bits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rljax import optim


def train(opt, steps=300, seed=0):
  """Least squares with a badly scaled column; the final loss."""
  rs = np.random.default_rng(seed)
  x = jnp.asarray(rs.normal(size=(64, 8)) * np.array([10, 1, 1, 1, 1, 1, 0.3, 0.3]), jnp.float32)
  y = x @ jnp.asarray(rs.normal(size=(8, 4)), jnp.float32)
  params = {"w": jnp.zeros((8, 4)), "b": jnp.zeros(4), "s": jnp.zeros(())}
  loss = lambda p: jnp.mean((x @ p["w"] + p["b"][None] + p["s"] - y) ** 2)

  @jax.jit
  def step(params, state):
    updates, state = opt.tx.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, updates), state
  state = opt.tx.init(params)
  first = float(loss(params))
  for _ in range(steps):
    params, state = step(params, state)
  return float(loss(params)) / first, state


@pytest.mark.parametrize("moments, bytes_per", [("float32", 8), ("bfloat16", 4), ("int8", 2)])
def test_moments_of_every_width_learn(moments, bytes_per):
  ratio, state = train(optim.adamw(lr=0.03, moments=moments))
  assert ratio < 0.02, ratio
  mu = [x for x in jax.tree.leaves(state) if x.shape == (8, 4)]
  assert sum(x.dtype.itemsize for x in mu) == bytes_per


def test_small_moments_are_close_to_adam_at_first():
  g = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 64)), jnp.float32)}
  one = lambda m: optim.adamw(lr=1.0, moments=m)
  out = {}
  for m in optim.MOMENTS:
    tx = one(m).tx
    out[m] = tx.update(g, tx.init(g), g)[0]["w"]
  np.testing.assert_allclose(out["bfloat16"], out["float32"], atol=1e-5)
  np.testing.assert_allclose(out["int8"], out["float32"], atol=1e-5)


def test_a_slow_average_moves_in_few_bits():
  """b2 = 0.999 changes a bfloat16 by less than half a step: nearest rounding would stay at 0."""
  tx = optim.adamw(lr=1.0, b2=0.999, moments="bfloat16").tx
  g = {"w": jnp.ones((1, 4096))}
  state = tx.init(g)
  update = jax.jit(tx.update)
  for _ in range(300):
    _, state = update(g, state, g)
  got = float(jnp.mean(state[0].nu["w"].astype(jnp.float32) ** 2))
  assert got == pytest.approx(1 - 0.999**300, rel=0.1)


def test_partition_and_combine():
  params = {"embed": 1.0, "layers": {"q": 2.0, "norm": {"scale": 3.0}}}
  moved, fixed = optim.partition(params, ("embed", "*norm*"))
  assert jax.tree.leaves(moved) == [2.0] and sorted(jax.tree.leaves(fixed)) == [1.0, 3.0]
  assert optim.combine(moved, fixed) == params
  assert optim.combine(*optim.partition(params, ())) == params
  with pytest.raises(ValueError, match="'head' matches no parameter; there are: embed, layers/n"):
    optim.partition(params, ("head",))
  with pytest.raises(ValueError, match="nothing to train"):
    optim.partition(params, ("*",))


def test_refusals():
  with pytest.raises(ValueError, match="moments='fp4'; one of float32, bfloat16, int8"):
    optim.adamw(moments="fp4")
