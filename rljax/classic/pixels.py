"""A small world in pixels: catch one moving thing, avoid another, through noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import config as config_lib
from rljax.classic import env as env_lib
from rljax.types import Array

SPRITE = 2  # pixels, the side of everything drawn
MOVES = ((0, 0), (-1, 0), (0, 1), (1, 0), (0, -1))  # stay, up, right, down, left
BRIGHTNESS = (90, 170, 255)  # obstacle, target, agent


class Scene(NamedTuple):
  """Positions in half pixels, obstacle, target, agent: int32 [3, 2]; velocities of the first two
  in half pixels per step, int32 [2, 2]; the stack of frames uint8 [size, size, frames]; steps."""

  at: Array
  velocity: Array
  frames: Array
  t: Array


def catch(*, size: int = 16, frames: int = 3, noise: float = 0.1,
          horizon: int = 40) -> env_lib.Env:
  """Touching the target pays 1, the obstacle -1, and either ends the episode.

  The agent moves a pixel per step in one of four directions, or stays. Target and obstacle drift
  by half a pixel per step along each axis (or not at all along one) and are thrown back by the
  walls. Each frame a share of all pixels is replaced by uniform noise; the observation is the last
  frames, the newest at the end, uint8. `facts` is the target's position and the agent's, as shares
  of the side.

  Args:
    size: of the square, in pixels.
    frames: that an observation stacks.
    noise: share of pixels replaced.
    horizon: steps.

  Raises:
    ConfigError: too small a square, or a share outside of [0, 1].
  """
  if size < 4 * SPRITE or not 0 <= noise <= 1:
    raise config_lib.ConfigError(f"catch needs size >= {4 * SPRITE} and 0 <= noise <= 1, found "
                                 f"{size} and {noise}")
  top = 2 * (size - SPRITE)  # the largest position, in half pixels
  ways = jnp.array([w for w in MOVES if w != (0, 0)] + [(a, b) for a in (-1, 1) for b in (-1, 1)])

  def frame(at, key):
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), i) for i in (0, 1))
    image = jnp.zeros((size, size), jnp.uint8)
    for (y, x), value in zip(at // 2, BRIGHTNESS):
      inside = (row >= y) & (row < y + SPRITE) & (column >= x) & (column < x + SPRITE)
      image = jnp.where(inside, jnp.uint8(value), image)
    bits = jax.random.bits(key, (size, size), jnp.uint32)
    hit = (bits >> 8).astype(jnp.float32) * 2.0**-24 < noise
    return jnp.where(hit, (bits & 255).astype(jnp.uint8), image)

  def touches(at):
    """bool [2]: is the agent on the obstacle, on the target?"""
    return jnp.all(jnp.abs(at[:2] - at[2:]) < 2 * SPRITE, axis=-1)

  def reset(key):
    for_agent, for_at, for_way, for_frame = jax.random.split(key, 4)
    agent = jax.random.randint(for_agent, (2,), top // 4, 3 * top // 4 + 1)
    # Objects start in the half of the square that is far from the agent, along the rows.
    rows, columns = jax.random.randint(for_at, (2, 2), 0, top + 1)
    rows = jnp.where(agent[0] >= top // 2, rows % (top // 4), top - rows % (top // 4))
    at = jnp.concatenate([jnp.stack([rows, columns], axis=-1), agent[None]])
    velocity = ways[jax.random.randint(for_way, (2,), 0, len(ways))]
    first = frame(at, for_frame)
    return Scene(at, velocity, jnp.repeat(first[:, :, None], frames, axis=2),
                 jnp.zeros((), jnp.int32))

  def step(state, action, key):
    moved = state.at[:2] + state.velocity
    velocity = jnp.where((moved < 0) | (moved > top), -state.velocity, state.velocity)
    agent = state.at[2:] + 2 * jnp.asarray(MOVES)[action][None]
    at = jnp.clip(jnp.concatenate([state.at[:2] + velocity, agent]), 0, top)
    stack = jnp.concatenate([state.frames[:, :, 1:], frame(at, key)[:, :, None]], axis=2)
    new = Scene(at, velocity, stack, state.t + 1)
    bad, good = touches(at)
    reward = good.astype(jnp.float32) - bad.astype(jnp.float32)
    return new, stack, reward, good | bad | (new.t >= horizon)

  return env_lib.Env(
      reset, step, lambda state: state.frames, len(MOVES), horizon, shape=(size, size, frames),
      facts=lambda state: state.at[1:].reshape(-1).astype(jnp.float32) / top)
