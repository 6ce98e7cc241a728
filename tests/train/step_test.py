"""The train step: accumulation, the finite guard, clipping, what the jaxpr holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import advantages, optim, testing, types
from rljax.models import policy as policy_lib
from rljax.models import transformer
from rljax.objectives import pg
from rljax.train import step as step_lib

B, S, T, V = 8, 9, 5, 13
POLICY = policy_lib.Policy(
    transformer.TransformerConfig(vocab=V, width=16, layers=2, heads=2, kv_heads=2, mlp=24))
ADAM = optim.adamw(lr=1e-2)


def batch_of(seed=0, rows=B):
  rs = np.random.default_rng(seed)
  mask = (np.arange(T)[None] < rs.integers(1, T + 1, rows)[:, None]).astype(np.float32)
  f = lambda: rs.normal(size=(rows, T)).astype(np.float32) * mask
  return types.Batch(
      {"tokens_BS": rs.integers(0, V, (rows, S)).astype(np.int32),
       "action_pos_BT": np.tile(np.arange(T, dtype=np.int32) + 3, (rows, 1))},
      rs.integers(0, V, (rows, T)).astype(np.int32), mask, -np.abs(f()), f(), mask, f(),
      np.ones(rows, np.float32), np.repeat(np.arange(rows // 2), 2).astype(np.int32))


@pytest.fixture(scope="module")
def params():
  return POLICY.init(jax.random.key(0))


def run(params, batch, *, objective=pg.grpo, optimizer=ADAM, **kwargs):
  step = jax.jit(step_lib.make(POLICY.stats, objective, optimizer, **kwargs))
  return step(step_lib.init_state(params, optimizer), batch)


def distance(a, b):
  return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), a, b)))


def test_four_micro_batches_equal_one_batch(params):
  sgd = optim.sgd(lr=1.0)  # Adam would hide a wrong scale
  whole, m1 = run(params, batch_of(), optimizer=sgd)
  parts, m4 = run(params, batch_of(), optimizer=sgd, accum=4)
  assert distance(whole.params, params) > 1e-3
  assert distance(whole.params, parts.params) < 1e-5
  for k in m1:
    np.testing.assert_allclose(m1[k].compute(), m4[k].compute(), rtol=1e-4, atol=1e-5, err_msg=k)


def test_rows_must_divide(params):
  with pytest.raises(ValueError, match="accum=3"):
    run(params, batch_of(), accum=3)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_update_is_skipped_and_counted(params, poison):
  batch = batch_of()
  bad = batch.replace(adv_BT=np.where(batch.mask_BT > 0, poison, 0).astype(np.float32))
  state, metrics = run(params, bad)
  assert distance(state.params, params) == 0
  assert (int(state.step), int(state.skipped)) == (1, 1)
  assert float(metrics["update/skipped"].compute()) == 1
  start = step_lib.init_state(params, ADAM).opt_state
  assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state.opt_state),
                                                   jax.tree.leaves(start)))
  good, metrics = run(params, batch)
  assert int(good.skipped) == 0 and distance(good.params, params) > 0


def test_a_batch_in_which_no_row_counts_moves_nothing(params):
  """Weight decay and momentum would move the weights without a single sample."""
  decayed = optim.adamw(lr=1e-2, weight_decay=0.1)
  step = jax.jit(step_lib.make(POLICY.stats, pg.grpo, decayed))
  state, _ = step(step_lib.init_state(params, decayed), batch_of())
  none = batch_of().replace(valid_B=np.zeros(B, np.float32),
                            mask_BT=np.zeros((B, T), np.float32))
  after, metrics = step(state, none)
  assert distance(after.params, state.params) == 0
  assert distance(after.opt_state, state.opt_state) == 0
  assert (int(after.step), int(after.skipped)) == (2, 1)
  assert float(metrics["update/skipped"].compute()) == 1


def test_gradients_are_clipped_to_the_norm(params):
  big = optim.sgd(lr=1.0, max_norm=1e-3)
  state, metrics = run(params, batch_of(), optimizer=big)
  moved = np.sqrt(sum(float(jnp.sum((a - b) ** 2)) for a, b in
                      zip(jax.tree.leaves(state.params), jax.tree.leaves(params))))
  assert moved == pytest.approx(1e-3, rel=1e-2)
  assert float(metrics["grad/norm"].compute()) > 1e-2  # reported before clipping


def test_padding_rows_change_nothing(params):
  small = batch_of()
  padded = jax.tree.map(
      lambda x: np.concatenate([x, np.ones((4, *x.shape[1:]), x.dtype)]), small)
  padded = padded.replace(valid_B=np.r_[small.valid_B, np.zeros(4, np.float32)],
                          mask_BT=np.r_[small.mask_BT, np.zeros((4, T), np.float32)],
                          group_B=np.r_[small.group_B, np.full(4, -1, np.int32)])
  sgd = optim.sgd(lr=1.0)
  a, _ = run(params, small, optimizer=sgd)
  b, _ = run(params, padded, optimizer=sgd)
  assert distance(a.params, b.params) < 1e-6


def test_prepare_fills_old_ref_and_advantages(params):
  other = POLICY.init(jax.random.key(1))
  prepare = step_lib.make_prepare(POLICY.stats, POLICY.stats, advantages.group_norm, old_logp=True)
  batch = prepare(params, other, batch_of())
  np.testing.assert_allclose(batch.old_logp_BT, POLICY.stats(params, batch).logp_BT, rtol=1e-5)
  np.testing.assert_allclose(batch.ref_logp_BT, POLICY.stats(other, batch).logp_BT, rtol=1e-5)
  assert np.abs(batch.adv_BT - batch_of().adv_BT).max() > 0.1


def test_minibatches_partition_the_rows():
  batch = batch_of()
  order = np.random.default_rng(0).permutation(B)
  parts = [step_lib.minibatch(batch, jnp.asarray(order), jnp.int32(i), count=4) for i in range(4)]
  seen = np.concatenate([p.actions_BT for p in parts])
  np.testing.assert_array_equal(seen, batch.actions_BT[order])


def test_no_token_by_vocabulary_array_in_the_whole_step():
  policy = policy_lib.Policy(
      transformer.TransformerConfig(vocab=1009, width=16, layers=1, heads=2, kv_heads=2, mlp=24))
  rows, T_ = 64, 16
  batch = batch_of(rows=rows)
  wide = batch.replace(inputs={"tokens_BS": np.zeros((rows, 24), np.int32),
                               "action_pos_BT": np.zeros((rows, T_), np.int32)},
                       **{k: np.zeros((rows, T_), getattr(batch, k).dtype)
                          for k in ("actions_BT", "mask_BT", "behav_logp_BT", "reward_BT",
                                    "discount_BT", "adv_BT")})
  params = jax.eval_shape(policy.init, jax.random.key(0))
  state = jax.eval_shape(lambda p: step_lib.init_state(p, ADAM), params)
  step = step_lib.make(policy.stats, pg.grpo, ADAM)
  assert not testing.arrays_over(jax.make_jaxpr(step)(state, wide), rows * T_, 1009)


def test_optimizer_schedules():
  warm = optim.adamw(lr=1.0, warmup=4)
  assert [round(float(warm.schedule(i)), 3) for i in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]
  cos = optim.adamw(lr=1.0, decay="cosine", steps=10, end=0.1)
  assert float(cos.schedule(10)) == pytest.approx(0.1)
  lin = optim.adamw(lr=1.0, warmup=2, decay="linear", steps=12)
  assert float(lin.schedule(7)) == pytest.approx(0.5)
  with pytest.raises(ValueError, match="one of constant"):
    optim.adamw(decay="step")
  with pytest.raises(ValueError, match="needs steps"):
    optim.adamw(decay="linear")
