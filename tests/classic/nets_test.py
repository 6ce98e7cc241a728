"""Small networks: convolutions as XLA's, shapes, and what the ViT must and must not notice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.classic import games, nets, pixels, worlds
from rljax.config import ConfigError

ENV = pixels.catch(size=8)


@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (4, 4), (8, 4), (2, 3)])
def test_patches_times_a_kernel_are_a_convolution(size, stride):
  x = jax.random.normal(jax.random.key(0), (11, 9, 2))
  params = nets.conv_init(jax.random.key(1), size, 2, 5)
  kernel = params["w"].reshape(size, size, 2, 5)
  wanted = jax.lax.conv_general_dilated(
      x[None], kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]
  np.testing.assert_allclose(nets.conv(params, x, size=size, stride=stride), wanted, atol=1e-4)


def test_shapes():
  assert nets.latent_shape(pixels.catch(), nets.convolution(pixels.catch())) == (4, 4, 32)
  assert nets.latent_shape(pixels.catch(), nets.vit(pixels.catch())) == (16, 64)
  assert nets.latent_shape(worlds.grid(), nets.flat(worlds.grid())) == (40,)
  assert nets.latent_size(games.signalling(), nets.flat(games.signalling())) == 7
  policy = nets.mlp(ENV, 3, encoder=functools.partial(nets.vit, patch=4, width=16, depth=1))
  params, obs = policy.init(jax.random.key(0)), ENV.observe(ENV.reset(jax.random.key(1)))
  np.testing.assert_array_equal(policy.apply(params, obs), np.zeros(3))  # the last layer is 0


def test_the_vit_knows_where_a_patch_is_only_by_its_position():
  vit = nets.vit(ENV, patch=4, width=16, depth=2, heads=2)
  params = vit.init(jax.random.key(0))
  image = jax.random.uniform(jax.random.key(1), (8, 8, 3))
  halves = jnp.concatenate([image[4:], image[:4]])
  blind = {**params, "position": jnp.zeros_like(params["position"])}
  np.testing.assert_allclose(vit.apply(blind, halves), jnp.roll(vit.apply(blind, image), 2, axis=0),
                             atol=1e-5)
  moved = vit.apply(params, halves) - jnp.roll(vit.apply(params, image), 2, axis=0)
  assert float(jnp.abs(moved).max()) > 1e-3
  other = image.at[0, 0, 0].add(0.5)  # every patch attends to every other
  assert (jnp.abs(vit.apply(params, other) - vit.apply(params, image)).max(axis=1) > 1e-6).all()


def test_bytes_are_read_as_shares():
  assert nets.unit(jnp.array([0, 255], jnp.uint8)).tolist() == [0.0, 1.0]
  assert nets.unit(jnp.array([0.0, 3.0])).tolist() == [0.0, 3.0]


def test_a_table_may_begin_anywhere():
  env = worlds.chain(right=2)
  start = np.arange(env.n_states * 2.0).reshape(-1, 2)
  table = nets.table(env, 2, start=lambda e: start)
  np.testing.assert_array_equal(table.apply(table.init(None), 3), start[3])


def test_refusals():
  for make in (functools.partial(nets.vit, patch=3), functools.partial(nets.vit, width=10)):
    with pytest.raises(ConfigError, match="vit needs images"):
      make(ENV)
  with pytest.raises(ConfigError, match="as many channels"):
    nets.convolution(ENV, channels=(1, 2, 3))
