"""Claims of papers with an exact answer, on policies small enough to enumerate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import types
from rljax.objectives import pg
from rljax.rewards import spurious


def one_token(ratio, old, adv):
  """One row of one token whose probability is ratio * old."""
  one = np.ones((1, 1), np.float32)
  batch = types.Batch({}, one.astype(np.int32), one, one * 0, one * 0, one * 0,
                      one * adv, np.ones(1, np.float32), np.zeros(1, np.int32),
                      old_logp_BT=jnp.log(old) * one)
  return types.TokenStats(jnp.log(ratio * old) * one), batch


def expected_slope(ratio, old, clip):
  """E_A [- d loss / d ratio] with A = +1 or -1 equally likely."""
  def loss(r, adv):
    stats, batch = one_token(r, old, adv)
    return pg.grpo(stats, batch, clip_low=clip, clip_high=clip).total
  return -sum(float(jax.grad(loss)(ratio, a)) for a in (1.0, -1.0)) / 2


def test_clipping_pushes_likely_tokens_up():
  """RandomCalculation: +1/2 below 1 - e, 0 inside, -1/2 above 1 + e; at 0.85 the last is out."""
  for old, ratios in {0.5: (0.7, 0.9, 1.1, 1.3), 0.85: (0.7, 0.9, 1.1, 1.17)}.items():
    slopes = [expected_slope(r, old, 0.2) for r in ratios]
    last = -0.5 if old == 0.5 else 0.0
    np.testing.assert_allclose(slopes, [0.5, 0.0, 0.0, last], atol=1e-6)
  assert 1 / 0.85 < 1.2 < 1 / 0.5  # the largest ratio a probability allows
  for ratio in (0.7, 1.3):  # without the clip there is no bias
    assert expected_slope(ratio, 0.5, 1e9) == pytest.approx(0.0, abs=1e-6)


class Context:
  seed = 0

  def __init__(self, step):
    self.step = step


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4, 0.5, 0.6])
def test_question_flips_scale_the_gradient(rate):
  """Noisy rewards: <g_flipped, g_clean> / |g_clean|^2 = 1 - 2 rate within 3 standard errors.

  A softmax policy over 3 answers and the group-normalised REINFORCE gradient over its logits.
  """
  random = np.random.default_rng(0)
  p = np.array([0.5, 0.3, 0.2])
  products, clean = [], np.zeros(3)
  n, G = 3000, 4
  for step in range(n):
    said = random.choice(3, G, p=p)
    task = types.Task(id=f"q{step}", prompt="?", answer="0",
                      verifier="rljax.rewards.verify:exact")
    episodes = [types.Episode(task, (types.Turn("assistant", np.zeros(1, np.int32), text=str(a)),))
                for a in said]

    def gradient(rewards, said=said):
      spread = rewards.std()
      adv = (rewards - rewards.mean()) / spread if spread > 0 else 0 * rewards
      return ((np.eye(3)[said] - p) * adv[:, None]).mean(0)
    clean += gradient((said == 0).astype(float)) / n
    products.append(gradient(spurious.flipped(episodes, Context(0), rate=rate).astype(float)))
  along = np.array(products) @ clean / (clean @ clean)
  assert abs(along.mean() - (1 - 2 * rate)) < 3 * along.std() / np.sqrt(n)
  assert along.std() / np.sqrt(n) < 0.05


def test_all_responses_of_a_question_share_the_flip():
  """A group that is all right stays without a signal; a flip per response would mix it."""
  episodes = [types.Episode(
      types.Task(id="q", prompt="?", answer="0", verifier="rljax.rewards.verify:exact"),
      (types.Turn("assistant", np.zeros(1, np.int32), text="0"),)) for _ in range(8)]
  means = [spurious.flipped(episodes, Context(step), rate=0.5).mean() for step in range(20)]
  assert set(means) == {0.0, 1.0}
