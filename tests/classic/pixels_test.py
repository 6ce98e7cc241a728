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
    ((0, 0), (14, 17), 1.0, True),      # 3 half pixels apart: sprites of 4 overlap
    ((0, 0), (14, 18), 0.0, False),     # 4: they only touch
    ((11, 14), (0, 0), -1.0, True),
    ((14, 14), (14, 14), 0.0, True)])   # both at once
def test_contact_pays_and_ends(obstacle, target, reward, done):
  env = pixels.catch(noise=0.0)
  _, _, got, ended = env.step(scene(env, obstacle, target, (14, 14)), STAY, jax.random.key(0))
  assert float(got) == reward and bool(ended) == done


def test_the_frame_shows_the_three_sprites_and_frames_are_stacked():
  env = pixels.catch(noise=0.0)
  before = scene(env, (0, 0), (20, 10), (6, 28))
  after, stack, _, _ = env.step(before, 3, jax.random.key(0))  # down, by a pixel
  newest = np.asarray(stack[:, :, -1])
  assert (newest[0:2, 0:2] == 90).all() and (newest[10:12, 5:7] == 170).all()
  assert (newest[4:6, 14:16] == 255).all() and (newest > 0).sum() == 12
  np.testing.assert_array_equal(stack[:, :, :-1], before.frames[:, :, 1:])
  np.testing.assert_allclose(env.facts(after), np.array([20, 10, 8, 28]) / 28)


def test_a_tenth_of_the_pixels_is_noise():
  plain, noisy = (pixels.catch(noise=x) for x in (0.0, 0.1))
  keys = jax.random.split(jax.random.key(0), 200)
  at = scene(plain, (0, 0), (20, 20), (10, 10))
  frames = [jax.vmap(lambda k, env=env: env.step(at, STAY, k)[1][:, :, -1])(keys)
            for env in (plain, noisy)]
  assert float((frames[0] != frames[1]).mean()) == pytest.approx(0.1, abs=0.01)
  assert frames[1].dtype == jnp.uint8


def test_walls_throw_objects_back_and_stop_the_agent():
  env = pixels.catch(noise=0.0)
  new, *_ = env.step(scene(env, (0, 5), (28, 28), (0, 14), ((-1, 1), (1, -1))), 1,
                     jax.random.key(0))
  assert new.at.tolist() == [[1, 6], [27, 27], [0, 14]]
  assert new.velocity.tolist() == [[1, 1], [-1, -1]]


def test_random_play_is_mostly_without_reward_but_not_always():
  env = pixels.catch()
  played = env_lib.play(env, env_lib.random_actions(env), jax.random.key(0), 300)
  reward = played.reward.sum(1)
  assert 0.1 < float((reward > 0).mean()) < 0.6 and 0.1 < float((reward < 0).mean()) < 0.6
  assert played.mask_NT.sum(1).max() == 40 and played.mask_NT.sum(1).min() >= 2


def test_refusals():
  with pytest.raises(ConfigError, match="size >= 8"):
    pixels.catch(size=6)
  with pytest.raises(ConfigError, match="noise"):
    pixels.catch(noise=1.5)
