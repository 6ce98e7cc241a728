"""Packing: fewer rows, the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.data import packing
from rljax.models import heads, policy

B, S, T = 8, 12, 4
LENGTHS = [5, 12, 3, 6, 4, 7, 2, 5]


def batch_of():
  rs = np.random.default_rng(0)
  length = np.array(LENGTHS)
  actions = np.minimum(length - 1, T)
  place = np.arange(T)[None]
  mask = (place < actions[:, None]).astype(np.float32)
  pos = np.where(mask > 0, (length - actions)[:, None] + place, 0).astype(np.int32)
  tokens = np.where(np.arange(S)[None] < length[:, None], rs.integers(1, 11, (B, S)), 0)
  zero = np.zeros((B, T), np.float32)
  return types.Batch({"tokens_BS": tokens.astype(np.int32), "action_pos_BT": pos},
                     rs.integers(0, 11, (B, T)).astype(np.int32), mask, zero, zero, zero, zero,
                     np.ones(B, np.float32), np.arange(B, dtype=np.int32))


@pytest.mark.parametrize("change", [{}, {"window": 3}, {"experts": 3, "experts_per_token": 2},
                                    {"query_chunk": 5}])
def test_packed_equals_unpacked(change):
  model = policy.decoder(11, width=16, layers=2, heads=2)
  model = dataclasses.replace(model, cfg=dataclasses.replace(model.cfg, **change),
                              head=heads.head(outputs=1, hidden=8))
  params = model.init(jax.random.key(0))
  params["value"]["out"] = jnp.ones_like(params["value"]["out"])
  batch = batch_of()
  packed = packing.pack(batch, rows=4)
  assert packed.inputs["tokens_BS"].shape == (4, S)
  a, b = model.stats(params, batch), model.stats(params, packed)
  for x, y in ((a.logp_BT, b.logp_BT), (a.entropy_BT, b.entropy_BT), (a.value_BT, b.value_BT)):
    np.testing.assert_allclose(x * batch.mask_BT, y * batch.mask_BT, atol=1e-5)
  alone = model.stats(params, packed.replace(
      inputs={**packed.inputs, "segments_BS": np.maximum(packed.inputs["segments_BS"], -1) * 0}))
  assert np.abs((alone.logp_BT - a.logp_BT) * batch.mask_BT).max() > 1e-3  # segments matter


def test_every_token_has_one_place_and_parts_stay_apart():
  batch = batch_of()
  packed = packing.pack(batch, rows=6, parts=2)
  segments, row_B = packed.inputs["segments_BS"], packed.inputs["row_B"]
  for b in range(B):
    first = 3 * (b >= 4)
    where = np.flatnonzero(segments[first + row_B[b]] == b)
    used = batch.inputs["action_pos_BT"][b].max() + 1
    np.testing.assert_array_equal(packed.inputs["tokens_BS"][first + row_B[b], where],
                                  batch.inputs["tokens_BS"][b, :used])
    assert (np.flatnonzero((segments == b).any(axis=1)) // 3 == b // 4).all()


def grouped():
  """The same episodes in groups of 4, 1 and 3; the first begins with one prompt of 2 tokens, the
  last with the same token."""
  batch = batch_of()
  tokens = batch.inputs["tokens_BS"].copy()
  tokens[:4, :2], tokens[:4, 2] = (3, 4), (5, 6, 7, 8)
  tokens[5:, 0], tokens[5:, 1] = 9, (1, 2, 3)
  return batch.replace(inputs={**batch.inputs, "tokens_BS": tokens},
                       group_B=np.array([0] * 4 + [1] + [2] * 3, np.int32))


@pytest.mark.parametrize("change", [{}, {"window": 3}, {"query_chunk": 5}])
def test_a_group_reads_its_prompt_once_and_learns_the_same(change):
  model = policy.decoder(11, width=16, layers=2, heads=2)
  model = dataclasses.replace(model, cfg=dataclasses.replace(model.cfg, **change))
  params, batch = model.init(jax.random.key(0)), grouped()
  packed = packing.pack(batch, rows=2, length=24)
  segments = packed.inputs["segments_BS"]
  assert [(segments == B + group).sum() for group in (0, 1, 2)] == [2, 0, 1]
  assert (segments >= 0).sum() == sum(LENGTHS) - 3 * 2 - 2 * 1

  def loss(params, batch):
    logp = model.stats(params, batch).logp_BT
    return jnp.sum(logp * batch.mask_BT * (1 + jnp.arange(B)[:, None])), logp
  (_, a), one = jax.value_and_grad(loss, has_aux=True)(params, batch)
  (_, b), two = jax.value_and_grad(loss, has_aux=True)(params, packed)
  np.testing.assert_allclose(a * batch.mask_BT, b * batch.mask_BT, atol=1e-5)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), one, two)


def test_a_group_that_needs_two_rows_reads_its_prompt_in_both():
  batch = grouped()
  packed = packing.pack(batch, rows=4, length=12)
  rows = np.flatnonzero((packed.inputs["segments_BS"] == B).any(axis=1))
  assert len(rows) == 2 and set(packed.inputs["row_B"][:4]) == set(rows)


def test_what_does_not_fit_is_told():
  assert packing.pack(batch_of(), rows=3) is None  # 44 tokens of which 12 + 7 + 6 + 5 ...
  assert packing.pack(batch_of(), rows=4) is not None
