"""Attempts that are paid one by one: SCoRe's table, its credit, what STaR keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import advantages, types
from rljax.data import collate
from rljax.rewards import turns
from rljax.types import Episode, Task, Turn


def said(text, logp=0.0):
  return Turn("assistant", np.arange(2, 2 + len(text), dtype=np.int32),
              np.full(len(text), logp, np.float32), text)


def episode(r1, r2, attempts=("ab", "cde"), group=0):
  own = [said(t) for t in attempts]
  middle = [Turn("tool", np.array([9], np.int32), text="?")] if len(own) > 1 else []
  return Episode(Task("t", "p"), (Turn("user", np.array([1], np.int32)), own[0], *middle, *own[1:]),
                 group=group, scores={"first": r1, "last": r2, "reward": 0.0})


def rewards(e):
  return [t.reward for t in e.turns if t.role == "assistant"]


@pytest.mark.parametrize("r1, r2, wanted", [(0, 1, 11), (1, 1, 1), (1, 0, -10), (0, 0, 0)])
def test_what_scores_table_pays(r1, r2, wanted):
  """alpha = 10, https://arxiv.org/abs/2409.12917."""
  e, = turns.paid([episode(r1, r2)], bonus=10.0)
  assert rewards(e) == [r1 + r2, wanted]
  assert rewards(turns.paid([episode(r1, r2)], first=0.0, later=0.0)[0]) == [0, r2]


def test_what_was_paid_before_stays_and_what_was_not_scored_is_not_paid():
  once, = turns.paid([episode(1, 1)])
  assert rewards(turns.paid([once])[0]) == [4, 2]
  broken, = turns.paid([episode(float("nan"), 1)])
  assert rewards(broken) == [0, 0] and np.isnan(broken.scores["reward"])
  alone, = turns.paid([episode(1, 0, attempts=("ab",))], bonus=10.0)
  assert rewards(alone) == [1]


def test_each_attempt_is_graded_alone_and_a_missing_one_is_wrong():
  asked = []

  def grade(episodes, ctx):
    asked.append([e.response for e in episodes])
    return np.ones(len(episodes))
  both = [episode(0, 0), episode(0, 0, attempts=("ab",))]
  assert list(turns.attempt(both, None, grade=grade, number=1)) == [1, 0]
  assert list(turns.attempt(both, None, grade=grade, number=0)) == [1, 1]
  assert list(turns.attempt(both, None, grade=grade, number=-1)) == [1, 1]
  assert asked == [["cde"], ["ab", "ab"], ["cde", "ab"]]
  assert list(turns.attempt(both[1:], None, grade=grade, number=1)) == [0] and len(asked) == 3


def test_star_keeps_what_was_corrected():
  table = [episode(a, b) for a in (0, 1) for b in (0, 1)]
  assert turns.corrected(table) == [table[1]]


def test_weights_and_rewards_lie_on_their_turns():
  e, = turns.paid([episode(1, 0)], bonus=10.0, kl=(5.0, 2.0))
  batch = collate.collate([e], shapes=collate.Shapes(2, 8, 6))
  assert batch.extras["kl_weight_BT"].tolist() == [[5, 5, 2, 2, 2, 0], [0] * 6]
  assert batch.reward_BT[0].tolist() == [0, 1, 0, 0, -10, 0]


def test_a_column_that_is_missing_shows():
  paid, = turns.paid([episode(1, 0)])
  batch = collate.collate([paid, episode(0, 0)], shapes=collate.Shapes(2, 8, 6))
  assert np.isnan(batch.extras["kl_weight_BT"][1, :5]).all()


def test_being_wrong_first_is_never_paid():
  """A bandit of two turns: the second attempt is right or wrong by its own probability alone. With
  alpha = 10 the probability of a right first attempt rises; paid to the first attempt, the bonus
  would make it fall."""
  sigmoid = lambda x: 1 / (1 + np.exp(-x))

  def final(bonus_to_first):
    p = np.zeros((1, 2))  # logits of being right
    key = jax.random.key(0)
    for step in range(60):
      draws = jax.random.uniform(jax.random.fold_in(key, step), (2, 64))
      right = np.asarray(draws < sigmoid(p).T)
      some = turns.paid([episode(float(a), float(b), ("a", "b")) for a, b in right.T], bonus=10.0)
      if bonus_to_first:
        some = [types.Episode(e.task, (e.turns[0], Turn("assistant", e.turns[1].tokens, reward=sum(
            rewards(e))), *e.turns[2:]), group=0, scores=e.scores) for e in some]
      batch = collate.collate(some, shapes=collate.Shapes(64, 4, 2))
      adv_BT = advantages.segment_norm(
          jax.tree.map(jnp.asarray, batch), key="segment_BT", scale_by_std=False).adv_BT
      p += 0.02 * np.mean(adv_BT * (right.T - sigmoid(p)), axis=0, keepdims=True)
    return sigmoid(p)[0]
  fair, unfair = final(False), final(True)
  assert fair[0] > 0.55 and fair[1] > 0.7
  assert unfair[0] < 0.45
