"""The pixel world: what touches, what pays, what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.classic import env as env_lib
from rljax.classic import pixels
from rljax.config import ConfigError

STAY = 0


def scene(env, obstacle, target, agent, velocity=((0, 0), (0, 0))):
  at = jnp.array([obstacle, target, agent], jnp.int32)
  start = env.reset(jax.random.key(0))
  return start._replace(at=at, velocity=jnp.array(velocity, jnp.int32))


@pytest.mark.parametrize("obstacle, target, reward, done", [
    ((0, 0), (14, 19), 1.0, True),      # 5 half pixels apart: sprites of 6 overlap
    ((0, 0), (14, 20), 0.0, False),     # 6: they only touch
    ((9, 14), (0, 0), -1.0, True),
    ((14, 14), (14, 14), 0.0, True)])   # both at once
def test_contact_pays_and_ends(obstacle, target, reward, done):
  env = pixels.catch(noise=0.0)
  _, _, got, ended = env.step(scene(env, obstacle, target, (14, 14)), STAY, jax.random.key(0))
  assert float(got) == reward and bool(ended) == done


def test_contact_is_felt_across_the_border():
  env = pixels.catch(noise=0.0)
  _, _, reward, done = env.step(scene(env, (14, 14), (31, 30), (1, 2)), STAY, jax.random.key(0))
  assert float(reward) == 1.0 and bool(done)


def test_the_picture_has_the_agent_in_its_middle_and_frames_are_stacked():
  env = pixels.catch(noise=0.0)
  before = scene(env, (30, 13), (20, 3), (11, 13))
  after, stack, _, _ = env.step(before, 3, jax.random.key(0))  # down, by a pixel: up for the others
  newest = np.asarray(stack[:, :, -1])
  assert (newest[6:9, 6:9] == 255).all() and (newest > 0).sum() == 27
  assert (newest[[15, 0, 1], 6:9] == 90).all()  # it ends on the other side
  assert (newest[10:13, 1:4] == 170).all()
  np.testing.assert_array_equal(stack[:, :, :-1], before.frames[:, :, 1:])
  np.testing.assert_allclose(env.facts(after), np.array([30, 13, 20, 3]) / 32)


def test_a_tenth_of_the_pixels_is_noise():
  plain, noisy = (pixels.catch(noise=x) for x in (0.0, 0.1))
  keys = jax.random.split(jax.random.key(0), 200)
  at = scene(plain, (0, 0), (20, 20), (10, 10))
  frames = [jax.vmap(lambda k, env=env: env.step(at, STAY, k)[1][:, :, -1])(keys)
            for env in (plain, noisy)]
  assert float((frames[0] != frames[1]).mean()) == pytest.approx(0.1, abs=0.01)
  assert frames[1].dtype == jnp.uint8


def test_what_leaves_comes_back_on_the_other_side():
  env = pixels.catch(noise=0.0)
  new, *_ = env.step(scene(env, (0, 5), (31, 31), (1, 14), ((-1, 1), (1, -1))), 1,
                     jax.random.key(0))
  assert new.at.tolist() == [[31, 6], [0, 30], [31, 14]]


@pytest.mark.parametrize("size, nearest, farthest", [(16, 8, 23), (8, 6, 9), (6, 6, 6)])
def test_nothing_begins_near_the_agent(size, nearest, farthest):
  at = jax.vmap(pixels.catch(size=size).reset)(jax.random.split(jax.random.key(0), 500)).at
  rows = (at[:, :2, 0] - at[:, 2:, 0]) % (2 * size)
  assert rows.min() == nearest and rows.max() == farthest


def test_random_play_is_mostly_without_reward_but_not_always():
  env = pixels.catch()
  played = env_lib.play(env, env_lib.random_actions(env), jax.random.key(0), 300)
  reward = played.reward.sum(1)
  assert 0.1 < float((reward > 0).mean()) < 0.6 and 0.1 < float((reward < 0).mean()) < 0.6
  assert played.mask_NT.sum(1).max() == 40


def test_refusals():
  with pytest.raises(ConfigError, match="size >= 6"):
    pixels.catch(size=5)
  with pytest.raises(ConfigError, match="noise"):
    pixels.catch(noise=1.5)
