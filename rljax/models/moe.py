"""A mixture of experts: each token goes to its k best MLPs, as ragged matrix products."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rljax import sharding
from rljax.types import Array


def mlp(x_BSD: Array, w: dict, act: Callable, *, per_token: int, norm_routes: bool,
        counted_BS: Array | None = None) -> tuple[Array, Array]:
  """sum over the k best experts e of p_e down_e(act(gate_e x) * up_e x), p = softmax(router x).

  Tokens are sorted by expert and multiplied in one ragged product: no capacity, nothing dropped.
  On several devices each sorts its own rows (experts' widths are split over the tensor axis).

  Args:
    w: router [D, E]; gate, up [E, D, M]; down [E, M, D].
    per_token: k. norm_routes: the k weights are scaled to sum to 1.
    counted_BS: float 0/1, tokens that count in the balance loss; None = all.

  Returns:
    y_BSD, and the balance loss per row, `balance_loss`.
  """
  weights = [w[n].astype(x_BSD.dtype) for n in ("router", "gate", "up", "down")]
  counted_BS = jnp.ones(x_BSD.shape[:2], jnp.float32) if counted_BS is None else counted_BS

  def local(x_BSD, counted_BS, router, gate, up, down):
    B, S, D = x_BSD.shape
    x_ND, E = x_BSD.reshape(B * S, D), gate.shape[0]
    p_NE = jax.nn.softmax((x_ND @ router).astype(jnp.float32), axis=-1)
    top_NK, expert_NK = jax.lax.top_k(p_NE, per_token)
    loss_B = balance_loss(p_NE.reshape(B, S, E), expert_NK.reshape(B, S, per_token), counted_BS)
    if norm_routes:
      top_NK = top_NK / jnp.sum(top_NK, axis=-1, keepdims=True)
    order = jnp.argsort(expert_NK.reshape(-1))
    token = order // per_token
    sizes = jnp.bincount(expert_NK.reshape(-1), length=E).astype(jnp.int32)
    sorted_x = x_ND[token]
    h = act(jax.lax.ragged_dot(sorted_x, gate, sizes)) * jax.lax.ragged_dot(sorted_x, up, sizes)
    y = jax.lax.ragged_dot(h, down, sizes)
    y = y * top_NK.reshape(-1)[order].astype(y.dtype)[:, None]
    y_ND = jnp.zeros_like(x_ND).at[token].add(y)
    return sharding.sum_over(y_ND.reshape(B, S, D), "mlp"), loss_B

  rows, whole = ("batch", None, None), (None, None)
  return sharding.per_device(
      local, ins=(rows, ("batch", None), whole, (None, None, "mlp"), (None, None, "mlp"),
                  (None, "mlp", None)), outs=(rows, ("batch",)))(x_BSD, counted_BS, *weights)


def balance_loss(p_BSE: Array, expert_BSK: Array, counted_BS: Array) -> Array:
  """E sum_e f_e P_e per row: f_e the choices of e per token, P_e its mean probability.

  Switch Transformer (https://arxiv.org/abs/2101.03961) equations 4 to 6, for k choices as
  transformers counts them (balanced: k), but within each row, so that the sum over micro-batches
  and devices is that of the whole batch.
  """
  E = p_BSE.shape[-1]
  count_B1 = jnp.maximum(jnp.sum(counted_BS, axis=1), 1.0)[:, None]
  chosen_BSE = jnp.sum(jax.nn.one_hot(expert_BSK, E), axis=2)
  f_BE = jnp.einsum("bse,bs->be", chosen_BSE, counted_BS) / count_B1
  P_BE = jnp.einsum("bse,bs->be", p_BSE, counted_BS) / count_B1
  return E * jnp.sum(f_BE * P_BE, axis=-1)
