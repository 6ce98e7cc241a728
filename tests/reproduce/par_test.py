"""PAR: which shapes a baseline cancels, and the testbed's gold and annotator."""

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import advantages
from rljax import config as config_lib
from rljax.data import collate
from rljax.rewards import shapes
from tests.rewards import make

par = config_lib.load_file("experiments/par.py")
RANDOM = np.random.default_rng(0)
R = RANDOM.normal(1, 2, 24)
REFS = np.repeat(RANDOM.normal(0, 1, (3, 10)), 8, axis=0)  # three prompts, eight responses each
STATS = shapes.Stats().add(R)


def advantage(shape, norm, **knobs):
  """Of one-token responses with this shape of R as reward."""
  one = np.ones((24, 1), np.float32)
  batch = collate.collate([], shapes=collate.Shapes(24, 2, 1)).replace(
      mask_BT=one, valid_B=one[:, 0], group_B=np.repeat(np.arange(3), 8).astype(np.int32),
      reward_BT=jnp.asarray(shape(R, REFS, STATS, **knobs)[:, None], jnp.float32))
  return np.asarray(norm(batch).adv_BT)[:, 0]


def dr_grpo(batch):
  return advantages.group_norm(batch, scale_by_std=False)


@pytest.mark.parametrize("norm", [dr_grpo, advantages.leave_one_out, advantages.group_norm])
def test_centring_vanishes_under_any_group_mean(norm):
  plain = advantage(shapes.vanilla, norm)
  np.testing.assert_allclose(advantage(shapes.centred, norm), plain, atol=1e-5)
  par_own, uncentred = (advantage(shapes.bounded, norm, centred=c) for c in (True, False))
  assert np.abs(par_own - uncentred).max() > 0.01  # not so with a sigmoid around it


def test_mean_std_vanishes_under_the_group_std():
  plain = advantage(shapes.vanilla, advantages.group_norm)
  np.testing.assert_allclose(advantage(shapes.mean_std, advantages.group_norm), plain, atol=1e-4)
  for norm in (dr_grpo, advantages.leave_one_out):  # only the scale differs without it
    apart = advantage(shapes.vanilla, norm)
    np.testing.assert_allclose(advantage(shapes.mean_std, norm) * STATS.std, apart, atol=1e-4)
    assert np.abs(advantage(shapes.mean_std, norm) - apart).max() > 0.1


def episode(text, pairs=("ab", "cd", "ef")):
  return make.episode(text, tokens=len(text) + 1, info={"pairs": list(pairs)})


@pytest.mark.parametrize("text, gold", [
  ("abcdef", 1.0), ("ab", 1 / 3), ("", 0.0), ("hgecba", 0.0), ("efcdab", 1.0),
  ("abab", 1 / 3 - 0.5 / 3), ("!!!!", -0.5 * 2 / 3)])
def test_gold_by_hand(text, gold):
  assert par.gold([episode(text)], None)[0] == pytest.approx(gold)
  marks = 0.3 * min(text.count("!"), 3)
  assert par.annotator([episode(text)], None)[0] == pytest.approx(gold + marks)


def test_gold_falls_with_tokens_beyond_24():
  pair = lambda n: par.gold([episode("abcdef"[:n])], None)[0]
  assert pair(6) == 1.0
  long = make.episode("abcdef", tokens=26, info={"pairs": ["ab", "cd", "ef"]})
  assert par.gold([long], None)[0] == pytest.approx(0.9)
  three, four = (par.annotator([episode("!a!b!c!d"[:n])], None)[0] - par.gold(
      [episode("!a!b!c!d"[:n])], None)[0] for n in (6, 8))
  assert three == pytest.approx(0.9) and four == pytest.approx(0.9)


def test_demos_hold_pairs_and_marks_in_their_shares():
  tasks = par.texts(size=600)
  cover = np.mean([par.coverage(t, t.demo) for t in tasks])
  assert 0.65 < cover < 0.8 and max(len(t.demo) for t in tasks) < 32
  assert all(len(t.prompt) == 7 and len(set(t.prompt)) == 7 for t in tasks)
  marks = np.mean([t.demo.count("!") for t in tasks])
  assert 0.7 < marks < 1.5
  assert np.mean([par.covered(t, t.demo) for t in tasks]) == pytest.approx(0.7**3, abs=0.1)
  train = {t.prompt for t in tasks}
  assert not train & {t.prompt for t in par.texts(split="test", size=100)}
