"""Replay of one stream of steps: a ring in jnp, uniform or prioritised, read in windows.

Letters: C capacity, B sampled windows, W steps of a window.
"""

import flax.struct
import jax
import jax.numpy as jnp

from rljax import ops
from rljax.types import Array, PyTree


@flax.struct.dataclass
class Replay:
  """`data` is a pytree of [C, ...]; `priority_C` is 0 where nothing was stored yet; `total` counts
  all that was ever stored; `top` is the largest priority so far, which new steps get."""

  data: PyTree
  priority_C: Array
  total: Array
  top: Array


def create(step: PyTree, capacity: int) -> Replay:
  """An empty ring for steps with the shapes and dtypes of this one."""
  data = jax.tree.map(lambda x: jnp.zeros((capacity, *jnp.shape(x)), jnp.result_type(x)), step)
  return Replay(data, jnp.zeros((capacity,)), jnp.zeros((), jnp.int32), jnp.ones(()))


def add(replay: Replay, step: PyTree) -> Replay:
  """Stores a step, in the place of the oldest when the ring is full."""
  at = replay.total % replay.priority_C.shape[0]
  data = jax.tree.map(lambda ring, x: ring.at[at].set(x), replay.data, step)
  return replay.replace(data=data, priority_C=replay.priority_C.at[at].set(replay.top),
                        total=replay.total + 1)


def startable(replay: Replay, window: int) -> Array:
  """bool [C]: where a window of so many steps can begin, all of them stored.

  Windows may cross the end of an episode (`alive` masks them), never the seam of the ring.
  """
  C = replay.priority_C.shape[0]
  age_C = (replay.total - 1 - jnp.arange(C)) % C  # 0 = the newest
  return (age_C >= window - 1) & (age_C < replay.total)


def sample(replay: Replay, key: Array, batch: int, *, window: int, alpha: float = 0.0,
           beta: float = 0.0) -> tuple[Array, Array]:
  """Draws starts of windows, with replacement, in proportion to priority^alpha.

  Prioritised replay, https://arxiv.org/abs/1511.05952 section 3.3.

  Args:
    replay: with at least `window` steps stored (before, the draw is of no use).
    batch: B. window: W.
    alpha: 0 = uniform. beta: of the importance weights (N P(i))^-beta, 0 = all 1.

  Returns:
    indices int32 [B] into the ring, and weights [B], the largest of them 1.
  """
  can_C = startable(replay, window)
  mass_C = jnp.where(can_C, replay.priority_C**alpha, 0.0)
  below_C = jnp.cumsum(mass_C)
  point_B = jax.random.uniform(key, (batch,)) * below_C[-1]
  index_B = jnp.searchsorted(below_C, point_B, side="right").astype(jnp.int32)
  last = jnp.argmax(jnp.where(can_C, jnp.arange(can_C.size), -1))  # rounding may pass the end
  index_B = jnp.minimum(index_B, last)
  share_B = mass_C[index_B] / jnp.maximum(below_C[-1], 1e-30)
  weight_B = (jnp.maximum(jnp.sum(can_C), 1) * jnp.maximum(share_B, 1e-30)) ** -beta
  return index_B, weight_B / jnp.max(weight_B)


def windows(replay: Replay, index_B: Array, length: int) -> PyTree:
  """The data of consecutive steps [B, length, ...] from each start on."""
  at_BW = (index_B[:, None] + jnp.arange(length)[None]) % replay.priority_C.shape[0]
  return jax.tree.map(lambda ring: ring[at_BW], replay.data)


def prioritise(replay: Replay, index_B: Array, priority_B: Array) -> Replay:
  """Sets the priorities of sampled windows (of one sampled twice: one of the two)."""
  return replay.replace(priority_C=replay.priority_C.at[index_B].set(priority_B),
                        top=jnp.maximum(replay.top, jnp.max(priority_B)))


def alive(done_BW: Array) -> Array:
  """float [B, W]: 1 up to and with the step that ends the episode, 0 from the next one on."""
  ended_BW = jnp.cumsum(done_BW.astype(jnp.int32), axis=1)
  return (ended_BW - done_BW.astype(jnp.int32) == 0).astype(jnp.float32)


def n_step(reward_BW: Array, done_BW: Array, gamma: float) -> tuple[Array, Array]:
  """(sum_k gamma^k r_k up to the first end [B], what to multiply the value after W steps by [B]).

  The second is gamma^W, or 0 where the episode ended inside of the window.
  """
  W = reward_BW.shape[1]
  alive_BW = alive(done_BW)
  power_1W = (gamma ** jnp.arange(W, dtype=jnp.float32))[None]
  ended_B = jnp.any(done_BW, axis=1)
  return (jnp.sum(power_1W * alive_BW * reward_BW, axis=1),
          jnp.where(ended_B, 0.0, jnp.float32(gamma) ** W))


def discounted(reward_BT: Array, gamma: float) -> Array:
  """sum_k gamma^k r_{t+k} at every t, [B, T]."""
  return ops.recurrence(jnp.full(reward_BT.shape, gamma), reward_BT)
