"""`gae`: advantages and returns by one reverse scan over trained tokens."""

import jax
import jax.numpy as jnp

from rljax_kernels import choose
from rljax_kernels.gae import mosaic

Array = jax.Array


def gae(value_BT: Array, reward_BT: Array, discount_BT: Array, mask_BT: Array, *, lam: float = 0.95,
        implementation: str | None = None, interpret: object = False) -> tuple[Array, Array]:
  """A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t, over trained tokens.

  https://arxiv.org/abs/1506.02438 equation 16. Untrained tokens are stepped over: t + 1 means the
  next trained token, and a reward paid in between belongs to the token before; an untrained token
  of discount 0 ends the episode. No gradient.

  Args:
    value_BT: float [B, T]; may be anything where the mask is 0.
    reward_BT: float [B, T], finite. discount_BT: gamma per token; 0 ends an episode.
    mask_BT: float 0/1 [B, T].
    lam: 1 for Monte-Carlo returns minus V.
    implementation: "xla", "mosaic" (TPU, one device), or None. interpret: see `pl.pallas_call`.

  Returns:
    adv_BT and return_BT = A + V, 0 where the mask is 0 (float32 from the kernel).

  Raises:
    ValueError: an unknown implementation.
  """
  name = choose.check("gae", implementation)
  value_BT = jnp.where(mask_BT > 0, value_BT, 0.0)
  args = jax.lax.stop_gradient((value_BT, reward_BT, discount_BT, mask_BT))
  adv_BT = (mosaic.gae(*args, lam=lam, interpret=interpret) if name == "mosaic"
            else _reference(*args, lam))
  return adv_BT, adv_BT + args[0]


def recurrence(a_BT: Array, b_BT: Array) -> Array:
  """x_t = b_t + a_t x_{t+1} with x_T = 0, for all rows at once, in log T steps."""
  def compose(later, earlier):  # the scan runs from the end: the first argument is later in time
    (a_l, b_l), (a_e, b_e) = later, earlier
    return a_e * a_l, b_e + a_e * b_l
  return jax.lax.associative_scan(compose, (a_BT, b_BT), axis=1, reverse=True)[1]


def _reference(value_BT, reward_BT, discount_BT, mask_BT, lam):
  hole_BT = (1.0 - mask_BT) * (discount_BT > 0)  # an untrained last action ends the episode
  following = lambda x_BT: jnp.pad(x_BT[:, 1:], ((0, 0), (0, 1)))  # x at t + 1
  next_value_BT = following(recurrence(hole_BT, mask_BT * value_BT))
  late_BT = following(recurrence(1.0 - mask_BT, (1.0 - mask_BT) * reward_BT))
  delta_BT = reward_BT + late_BT + discount_BT * next_value_BT - value_BT
  return mask_BT * recurrence(mask_BT * discount_BT * lam + hole_BT, mask_BT * delta_BT)
