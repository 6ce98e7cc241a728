"""The pure train step: gradients are summed over micro-batches and divided once by the weight."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from rljax import nums, optim, packed, types
from rljax.models import lora
from rljax.types import Batch, Mean, PyTree, TrainState


def init_state(params: PyTree, optimizer: optim.Optimizer) -> TrainState:
  moved, _ = optim.partition(params, optimizer.freeze)
  return TrainState(jnp.zeros((), jnp.int32), params, optimizer.tx.init(moved),
                    jnp.zeros((), jnp.int32))


def make(logp_fn: Callable, objective: Callable, optimizer: optim.Optimizer, *,
         accum: int = 1, router: float = 0.0, monitors: bool = True) -> Callable:
  """Builds `step(state, batch, base) -> (state, metrics)`, to be jitted with its state donated.

  A gradient whose norm is not finite, a non-finite loss, or a batch without a row that counts (no
  weight and no gradient; momentum and weight decay would move the weights all the same) changes
  nothing but `state.step` and `state.skipped`.

  Args:
    logp_fn: (params, batch) -> TokenStats.
    objective: (stats, batch) -> Loss.
    accum: number of micro-batches the rows are cut into; the result is that of one whole batch.
    router: weight of the balance loss of a mixture of experts, where the model has one.
    monitors: log what is said of a policy (entropy, KL, sampler mismatch); not for a critic.

  `step`'s third argument is None, or the weights that those of the state adapt (`lora.join`).

  Raises:
    ValueError: (when traced) the number of rows is not a multiple of `accum`.
  """
  def loss_fn(moved, fixed, base, batch):
    params = optim.combine(moved, fixed)
    stats = logp_fn(params if base is None else lora.join(base, params), batch)
    loss = objective(stats, batch)
    metrics = {**loss.metrics, **(_monitors(stats, batch) if monitors else {})}
    total = loss.total
    if router and "router_B" in stats.extras:
      balance = nums.masked_mean(stats.extras["router_B"], batch.valid_B)
      metrics["router/balance"] = nums.mean_metric(stats.extras["router_B"], batch.valid_B)
      total += router * balance * jnp.where(loss.weight > 0, loss.weight, 1.0 / accum)
    return total, (loss.weight, metrics)

  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

  def gradients(params, base, batch):
    moved, fixed = optim.partition(params, optimizer.freeze)
    if accum == 1:
      (total, (weight, metrics)), grads = grad_fn(moved, fixed, base, batch)
      return total, weight, metrics, grads
    micro = _micro(batch, accum)

    def add(carry, part):
      (total, (weight, metrics)), grads = grad_fn(moved, fixed, base, part)
      return jax.tree.map(jnp.add, carry, (total, weight, grads)), metrics

    zero = (jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, moved))
    (total, weight, grads), stacked = jax.lax.scan(add, zero, micro)
    parts = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(accum)]
    metrics = parts[0]
    for part in parts[1:]:
      metrics = types.merge_metrics(metrics, part)
    return total, weight, metrics, grads

  def step(state: TrainState, batch: Batch, base: PyTree | None = None
           ) -> tuple[TrainState, dict]:
    total, weight, metrics, grads = gradients(state.params, base, batch)
    scale = 1.0 / jnp.where(weight > 0, weight, 1.0)
    loss = total * scale
    norm = optax.tree.norm(grads) * scale
    applies = jnp.isfinite(norm) & jnp.isfinite(loss) & ((weight > 0) | (norm > 0))
    if optimizer.max_norm:
      scale = scale * jnp.minimum(1.0, optimizer.max_norm / jnp.maximum(norm, 1e-30))
    grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
    moved, fixed = optim.partition(state.params, optimizer.freeze)
    updates, opt_state = optimizer.tx.update(grads, state.opt_state, moved)
    params = optim.combine(optax.apply_updates(moved, updates), fixed)
    keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(applies, n, o), new, old)
    applied = state.step - state.skipped
    state = TrainState(state.step + 1, keep(params, state.params), keep(opt_state, state.opt_state),
                       state.skipped + jnp.where(applies, 0, 1))
    one = jnp.ones(())
    metrics = {**metrics, "loss/total": Mean(loss, one), "grad/norm": types.Max(norm),
               "update/lr": Mean(jnp.asarray(optimizer.schedule(applied), jnp.float32), one),
               "update/skipped": types.Sum(jnp.where(applies, 0.0, 1.0))}
    return state, metrics

  return step


def packed_metrics(step: Callable) -> Callable:
  """`step` with its metrics as few arrays (`rljax.packed`), to be fetched."""
  def run(*args):
    state, metrics = step(*args)
    return state, packed.pack(metrics)
  return run


def _micro(batch: Batch, accum: int) -> Batch:
  """The batch with a leading axis of `accum` micro-batches."""
  B = batch.actions_BT.shape[0]
  if B % accum:
    raise ValueError(f"{B} rows cannot be cut into accum={accum} micro-batches")
  return jax.tree.map(lambda x: x.reshape(accum, x.shape[0] // accum, *x.shape[1:]), batch)


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
                 old_logp: bool, value_fn: Callable | None = None, own_value: bool = False,
                 accum: int = 1) -> Callable:
  """Builds `prepare(params, ref_params, batch, value_params) -> batch`, to be jitted.

  What is fixed before the first update: old_logp_BT (of several updates per batch), ref_logp_BT,
  value_BT and adv_BT.

  Args:
    value_fn: a critic: its stats at `value_params` hold the values; None = no critic.
    own_value: the updated model holds the values itself.
    accum: number of micro-batches in which the rows are scored, one after the other.
  """
  def scored(fn, params, batch):
    """(log-probabilities, values or None); what else the model says is not computed."""
    def pick(part):
      stats = fn(params, part)
      return stats.logp_BT, stats.value_BT

    if accum == 1:
      return jax.lax.stop_gradient(pick(batch))
    join = lambda x: x.reshape(-1, *x.shape[2:])
    return jax.lax.stop_gradient(jax.tree.map(join, jax.lax.map(pick, _micro(batch, accum))))

  def prepare(params, ref_params, batch: Batch, value_params=None) -> Batch:
    if old_logp or own_value:
      logp_BT, value_BT = scored(logp_fn, params, batch)
    if old_logp:
      batch = batch.replace(old_logp_BT=logp_BT)
    if value_fn is not None:
      value_BT = scored(value_fn, value_params, batch)[1]
    if value_fn is not None or own_value:
      batch = batch.replace(value_BT=value_BT)
    if ref_logp_fn is not None:
      batch = batch.replace(ref_logp_BT=scored(ref_logp_fn, ref_params, batch)[0])
    return batch if advantage is None else advantage(batch)

  return prepare


def minibatch(batch: Batch, order_B: jax.Array, index: jax.Array, count: int) -> Batch:
  """The `index`-th of `count` equal parts of the rows, taken in the given order."""
  size = order_B.shape[0] // count
  rows = jax.lax.dynamic_slice_in_dim(order_B, index * size, size)
  return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), batch)
