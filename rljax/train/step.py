"""The pure train step: gradients are summed over micro-batches and divided once by the weight."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rljax import nums, optim, types
from rljax.types import Batch, Mean, PyTree, TrainState


def init_state(params: PyTree, optimizer: optim.Optimizer) -> TrainState:
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.tx.init(params),
                    jnp.zeros((), jnp.int32))


def make(logp_fn: Callable, objective: Callable, optimizer: optim.Optimizer, *,
         accum: int = 1) -> Callable:
  """Builds `step(state, batch) -> (state, metrics)`, to be jitted with its state donated.

  A gradient whose norm is not finite, or a non-finite loss, changes nothing but `state.step` and
  `state.skipped`.

  Args:
    logp_fn: (params, batch) -> TokenStats.
    objective: (stats, batch) -> Loss.
    accum: number of micro-batches the rows are cut into; the result is that of one whole batch.

  Raises:
    ValueError: (when traced) the number of rows is not a multiple of `accum`.
  """
  def loss_fn(params, batch):
    stats = logp_fn(params, batch)
    loss = objective(stats, batch)
    metrics = {**loss.metrics, **_monitors(stats, batch)}
    return loss.total, (loss.weight, metrics)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def gradients(params, batch):
    if accum == 1:
      (total, (weight, metrics)), grads = grad_fn(params, batch)
      return total, weight, metrics, grads
    B = batch.actions_BT.shape[0]
    if B % accum:
      raise ValueError(f"{B} rows cannot be cut into accum={accum} micro-batches")
    micro = jax.tree.map(lambda x: x.reshape(accum, B // accum, *x.shape[1:]), batch)

    def add(carry, part):
      (total, (weight, metrics)), grads = grad_fn(params, part)
      return jax.tree.map(jnp.add, carry, (total, weight, grads)), metrics

    zero = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (total, weight, grads), stacked = jax.lax.scan(add, zero, micro)
    parts = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(accum)]
    metrics = parts[0]
    for part in parts[1:]:
      metrics = types.merge_metrics(metrics, part)
    return total, weight, metrics, grads

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
    total, weight, metrics, grads = gradients(state.params, batch)
    scale = 1.0 / jnp.where(weight > 0, weight, 1.0)
    loss = total * scale
    norm = optax.tree.norm(grads) * scale
    finite = jnp.isfinite(norm) & jnp.isfinite(loss)
    if optimizer.max_norm:
      scale = scale * jnp.minimum(1.0, optimizer.max_norm / jnp.maximum(norm, 1e-30))
    grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
    updates, opt_state = optimizer.tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)
    applied = state.step - state.skipped
    state = TrainState(state.step + 1, keep(params, state.params), keep(opt_state, state.opt_state),
                       state.skipped + jnp.where(finite, 0, 1))
    one = jnp.ones(())
    metrics = {**metrics, "loss/total": Mean(loss, one), "grad/norm": types.Max(norm),
               "update/lr": Mean(jnp.asarray(optimizer.schedule(applied), jnp.float32), one),
               "update/skipped": types.Sum(jnp.where(finite, 0.0, 1.0))}
    return state, metrics

  return step


def _monitors(stats, batch) -> dict[str, types.Metric]:
  """What every update logs: entropy, KL to the reference, sampler against trainer."""
  mask = batch.mask_BT
  out = {}
  if stats.entropy_BT is not None:
    out["policy/entropy"] = nums.mean_metric(stats.entropy_BT, mask)
  if batch.ref_logp_BT is not None:
    out["kl/ref"] = nums.mean_metric(nums.kl(stats.logp_BT, batch.ref_logp_BT, "k3"), mask)
  old_BT = batch.old_logp_BT if batch.old_logp_BT is not None else stats.logp_BT
  gap_BT = jax.lax.stop_gradient(old_BT - batch.behav_logp_BT)
  out["mismatch/max"] = types.Max(jnp.max(jnp.abs(gap_BT) * mask))
  out["mismatch/kl"] = nums.mean_metric(nums.kl(batch.behav_logp_BT, old_BT, "k3"), mask)
  return out


def make_prepare(logp_fn: Callable, ref_logp_fn: Callable | None, advantage: Callable | None, *,
                 old_logp: bool) -> Callable:
  """Builds `prepare(params, ref_params, batch) -> batch`: what is fixed before the first update.

  Fills old_logp_BT (several updates per batch), ref_logp_BT and adv_BT; to be jitted.
  """
  def prepare(params, ref_params, batch: Batch) -> Batch:
    if old_logp:
      stats = logp_fn(params, batch)
      batch = batch.replace(old_logp_BT=jax.lax.stop_gradient(stats.logp_BT))
    if ref_logp_fn is not None:
      stats = ref_logp_fn(ref_params, batch)
      batch = batch.replace(ref_logp_BT=jax.lax.stop_gradient(stats.logp_BT))
    return batch if advantage is None else advantage(batch)

  return prepare


def minibatch(batch: Batch, order_B: jax.Array, index: jax.Array, count: int) -> Batch:
  """The `index`-th of `count` equal parts of the rows, taken in the given order."""
  size = order_B.shape[0] // count
  rows = jax.lax.dynamic_slice_in_dim(order_B, index * size, size)
  return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), batch)
