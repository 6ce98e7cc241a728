"""Adapters: nothing at the start, the same as merged, and refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.models import lora, policy, transformer, tree

PLAIN = policy.decoder(11, width=16, layers=2, heads=4, kv_heads=2)
ALL = ("q", "k", "v", "o", "gate", "up", "down")


def adapted(targets=ALL, **kwargs):
  return dataclasses.replace(PLAIN.cfg, lora=lora.lora(rank=3, targets=targets, **kwargs))


def start(cfg):
  return policy.Policy(cfg).init(jax.random.key(0))


def moved(params, seed=1):
  """With a B that is not zero."""
  flat = tree.flatten(params)
  return tree.nest({
      p: jax.random.normal(jax.random.key(seed), x.shape) * 0.2 if p.endswith("_lora_b") else x
      for p, x in flat.items()})


def hidden(cfg, params):
  x = jax.random.randint(jax.random.key(3), (2, 7), 0, 11)
  return transformer.forward(cfg, params, x).hidden


def test_the_start_is_bitwise_the_base():
  cfg = adapted()
  params = start(cfg)
  base, adapters = lora.split(params)
  np.testing.assert_array_equal(hidden(cfg, params), hidden(PLAIN.cfg, base))
  np.testing.assert_array_equal(base["layers"]["q"], start(PLAIN.cfg)["layers"]["q"])
  assert len(tree.flatten(adapters)) == 2 * len(ALL)


def test_merged_equals_unmerged():
  cfg = adapted()
  params = moved(start(cfg))
  base, _ = lora.split(params)
  merged = lora.merge(cfg, params)
  assert jax.tree.structure(merged) == jax.tree.structure(base)
  np.testing.assert_allclose(hidden(PLAIN.cfg, merged), hidden(cfg, params), atol=2e-5)
  assert jnp.abs(hidden(PLAIN.cfg, merged) - hidden(PLAIN.cfg, base)).max() > 1e-2


def test_join_is_the_inverse_of_split_and_copies_nothing():
  params = start(adapted())
  joined = lora.join(*lora.split(params))
  assert jax.tree.structure(joined) == jax.tree.structure(params)
  assert all(a is b for a, b in zip(jax.tree.leaves(joined), jax.tree.leaves(params)))


def test_alpha_and_targets_matter():
  small, large = adapted(alpha=1.0), adapted(alpha=8.0)
  params = moved(start(small))
  assert jnp.abs(hidden(small, params) - hidden(large, params)).max() > 1e-2
  names = {p.split("/")[-1] for p in tree.flatten(lora.split(start(adapted(("q", "d*"))))[1])}
  assert names == {"q_lora_a", "q_lora_b", "down_lora_a", "down_lora_b"}


def test_refusals():
  with pytest.raises(ValueError, match="'w' matches none of q, k, v, o, gate, up, down"):
    transformer.specs(adapted(("w",)))
  with pytest.raises(ValueError, match="rank=0"):
    lora.lora(rank=0)
  experts = dataclasses.replace(PLAIN.cfg, experts=4, experts_per_token=2, lora=lora.lora(rank=2))
  with pytest.raises(ValueError, match="matrices of experts have no adapters"):
    transformer.specs(experts)
