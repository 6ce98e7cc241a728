"""`group_advantages`: rewards against those of the same group, at every trained token."""

import dataclasses

import jax
import jax.numpy as jnp

from rljax_kernels import choose
from rljax_kernels.group_advantage import mosaic

Array = jax.Array

ZERO_STD = 1e-6  # a spread below this is rounding, not signal


@dataclasses.dataclass(frozen=True)
class Options:
  """Static: see `group_advantages`."""

  scale_by_std: bool
  leave_one_out: bool
  eps: float
  ddof: int

  def finish(self, centred: Array, squares: Array, count: Array) -> Array:
    """Advantage from x - mean, the group's sum of squared deviations, and its size."""
    if self.leave_one_out:
      return centred * count / jnp.maximum(count - 1.0, 1.0)
    if not self.scale_by_std:
      return centred
    std = jnp.sqrt(squares / jnp.maximum(count - self.ddof, 1.0))
    return jnp.where(std < ZERO_STD, 0.0, centred / (std + self.eps))


def group_advantages(reward_B: Array, group_B: Array, mask_BT: Array, *, valid_B: Array,
                     scale_by_std: bool = True, leave_one_out: bool = False, eps: float = 1e-6,
                     ddof: int = 1, implementation: str | None = None,
                     interpret: object = False) -> Array:
  """A_i = (r_i - mean_g r) / (std_g r + eps) where mask_BT is 1, else 0. No gradient.

  GRPO: https://arxiv.org/abs/2402.03300 section 4.1.2. Groups have any sizes, in any order of rows.
  All-equal groups, groups of one and invalid rows give exactly 0.

  Args:
    reward_B: float [B]. group_B: int [B], ids in [0, B).
    mask_BT: float 0/1 [B, T].
    valid_B: float 0/1 [B]; the others enter no statistic and may hold NaN.
    scale_by_std: False: r_i - mean (Dr. GRPO, https://arxiv.org/abs/2503.20783).
    leave_one_out: r_i - mean of the others, not scaled (https://arxiv.org/abs/2402.14740).
    eps, ddof: of the standard deviation; a spread below 1e-6 gives 0.
    implementation: "xla", "mosaic" (TPU, one device), or None.
    interpret: see `pl.pallas_call`.

  Returns:
    float [B, T] (float32 from the kernel).

  Raises:
    ValueError: an unknown implementation, or both scalings at once.
  """
  if leave_one_out and scale_by_std:
    raise ValueError("leave_one_out does not go together with scale_by_std")
  options = Options(scale_by_std, leave_one_out, eps, ddof)
  args = jax.lax.stop_gradient((reward_B, group_B, mask_BT, valid_B))
  if choose.check("group_advantages", implementation) == "mosaic":
    return mosaic.group_advantages(*args, finish=options.finish, interpret=interpret)
  return _reference(*args, options)


def _reference(reward_B, group_B, mask_BT, valid_B, options):
  B = reward_B.shape[0]
  ids_B = jnp.where(valid_B > 0, group_B, B)
  reward_B = jnp.where(valid_B > 0, reward_B, 0.0)
  over_group = lambda x_B: jax.ops.segment_sum(x_B, ids_B, B + 1)[ids_B]
  count_B = over_group(jnp.ones_like(reward_B))
  # Shifting by the minimum makes all-equal groups exactly 0 and helps rewards far from 0.
  shifted_B = reward_B - jax.ops.segment_min(reward_B, ids_B, B + 1)[ids_B]
  centred_B = shifted_B - over_group(shifted_B) / count_B
  adv_B = options.finish(centred_B, over_group(centred_B**2), count_B)
  return jnp.where((mask_BT > 0) & (valid_B[:, None] > 0), adv_B[:, None], 0.0)
