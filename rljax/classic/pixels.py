"""A small world in pixels: catch one moving thing, avoid another, through noise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rljax import config as config_lib
from rljax.classic import env as env_lib
from rljax.types import Array

SPRITE = 3  # pixels, the side of everything drawn
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

  The world has no border: what leaves on one side comes back on the other. The picture is the whole
  of it, with the agent in the middle. The agent moves a pixel per step in one of four directions,
  or stays. Target and obstacle drift by half a pixel per step along each axis (or not at all along
  one). Each frame a share of all pixels is replaced by uniform noise; the observation is the last
  frames, the newest at the end, uint8. `facts` is where obstacle and target are in the picture, as
  shares of its side.

  Args:
    size: of the square, in pixels.
    frames: that an observation stacks.
    noise: share of pixels replaced.
    horizon: steps.

  Raises:
    ConfigError: too small a square, or a share outside of [0, 1].
  """
  if size < 2 * SPRITE or not 0 <= noise <= 1:
    raise config_lib.ConfigError(f"catch needs size >= {2 * SPRITE} and 0 <= noise <= 1, found "
                                 f"{size} and {noise}")
  around = 2 * size  # half pixels from a place to itself
  ways = jnp.array([w for w in MOVES if w != (0, 0)] + [(a, b) for a in (-1, 1) for b in (-1, 1)])
  middle, apart = size - SPRITE, max(around // 4, 2 * SPRITE)

  def seen(at):
    """Where things are in the picture, whose middle is the agent: half pixels [3, 2]."""
    return (at - at[2:] + middle) % around

  def frame(at, key):
    row, column = (jax.lax.broadcasted_iota(jnp.int32, (size, size), i) for i in (0, 1))
    image = jnp.zeros((size, size), jnp.uint8)
    for (y, x), value in zip(seen(at) // 2, BRIGHTNESS):
      inside = ((row - y) % size < SPRITE) & ((column - x) % size < SPRITE)
      image = jnp.where(inside, jnp.uint8(value), image)
    bits = jax.random.bits(key, (size, size), jnp.uint32)
    hit = (bits >> 8).astype(jnp.float32) * 2.0**-24 < noise
    return jnp.where(hit, (bits & 255).astype(jnp.uint8), image)

  def touches(at):
    """bool [2]: is the agent on the obstacle, on the target?"""
    return jnp.all(jnp.abs(seen(at)[:2] - middle) < 2 * SPRITE, axis=-1)

  def reset(key):
    for_at, for_way, for_frame = jax.random.split(key, 3)
    at = jax.random.randint(for_at, (3, 2), 0, around)
    # Along the rows nothing begins nearer to the agent than a quarter of the way around, nor at it.
    drawn = apart + at[:2, 0] * (around - 2 * apart) // around
    at = at.at[:2, 0].set((at[2, 0] + drawn) % around)
    velocity = ways[jax.random.randint(for_way, (2,), 0, len(ways))]
    first = frame(at, for_frame)
    return Scene(at, velocity, jnp.repeat(first[:, :, None], frames, axis=2),
                 jnp.zeros((), jnp.int32))

  def step(state, action, key):
    moves = jnp.concatenate([state.velocity, 2 * jnp.asarray(MOVES)[action][None]])
    at = (state.at + moves) % around
    stack = jnp.concatenate([state.frames[:, :, 1:], frame(at, key)[:, :, None]], axis=2)
    new = Scene(at, state.velocity, stack, state.t + 1)
    bad, good = touches(at)
    reward = good.astype(jnp.float32) - bad.astype(jnp.float32)
    return new, stack, reward, good | bad | (new.t >= horizon)

  return env_lib.Env(
      reset, step, lambda state: state.frames, len(MOVES), horizon, shape=(size, size, frames),
      facts=lambda state: seen(state.at)[:2].reshape(-1).astype(jnp.float32) / around)
