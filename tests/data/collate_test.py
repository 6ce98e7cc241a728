"""The border: who spoke decides, padding does not, nothing sampled is changed."""

import dataclasses

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import collate, pairs

SHAPES = collate.Shapes(B=4, S=9, T=5)


def episode(*turns, group=0, reward=1.0):
  made = tuple(types.Turn(role, np.asarray(tokens, np.int32),
                          np.linspace(-1, -2, len(tokens)) if role == "assistant" else None)
               for role, tokens in turns)
  return types.Episode(types.Task("t", "p"), made, group=group, scores={"reward": reward})


def test_single_turn_by_hand():
  e = episode(("user", [7, 8]), ("assistant", [3, 0, 1]), group=42, reward=0.5)
  b = collate.collate([e], shapes=SHAPES, discount=0.9)
  assert b.inputs["tokens_BS"][0].tolist() == [7, 8, 3, 0, 0, 0, 0, 0, 0]
  assert b.actions_BT[0].tolist() == [3, 0, 1, 0, 0]  # a sampled 0 (the pad id) is an action
  assert b.inputs["action_pos_BT"][0].tolist() == [1, 2, 3, 0, 0]
  assert b.mask_BT[0].tolist() == [1, 1, 1, 0, 0]
  np.testing.assert_allclose(b.behav_logp_BT[0], [-1, -1.5, -2, 0, 0])
  assert b.reward_BT[0].tolist() == [0, 0, 0.5, 0, 0]
  np.testing.assert_allclose(b.discount_BT[0], [0.9, 0.9, 0, 0, 0])
  assert b.valid_B.tolist() == [1, 0, 0, 0] and b.group_B.tolist() == [0, -1, -1, -1]


def test_observations_are_read_and_never_trained_on():
  e = episode(("user", [7]), ("assistant", [3, 1]), ("tool", [5, 6]), ("assistant", [4]))
  b = collate.collate([e], shapes=SHAPES)
  assert b.actions_BT[0, :3].tolist() == [3, 1, 4] and b.mask_BT[0].sum() == 3
  assert b.inputs["action_pos_BT"][0, :3].tolist() == [0, 1, 4]  # 4 is predicted from the token 6
  assert b.inputs["tokens_BS"][0, :6].tolist() == [7, 3, 1, 5, 6, 0]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_an_unscored_episode_is_an_invalid_row(reward):
  good, bad = (episode(("user", [7]), ("assistant", [3]), reward=r) for r in (1.0, reward))
  b = collate.collate([good, bad], shapes=SHAPES)
  assert b.valid_B.tolist()[:2] == [1, 0] and b.mask_BT[1].sum() == 0
  assert np.isfinite(b.reward_BT).all()


def test_what_does_not_fit():
  with pytest.raises(ConfigError, match="task t: 7 tokens with 6 of them"):
    collate.collate([episode(("user", [7]), ("assistant", [2] * 6))], shapes=SHAPES)
  with pytest.raises(ConfigError, match="11 tokens"):
    collate.collate([episode(("user", [7] * 10), ("assistant", [2]))], shapes=SHAPES)
  with pytest.raises(ConfigError, match="5 episodes do not fit in the 4 rows"):
    collate.collate([episode(("user", [7]), ("assistant", [2]))] * 5, shapes=SHAPES)
  with pytest.raises(ValueError, match="start with an action"):
    collate.collate([episode(("assistant", [2]))], shapes=SHAPES)


def test_the_longest_episode_fits_exactly():
  e = episode(("user", [7] * 5), ("assistant", [2] * 5))
  assert collate.collate([e], shapes=SHAPES).mask_BT[0].sum() == 5


def test_columns_become_extras():
  e = pairs.with_columns(episode(("user", [7]), ("assistant", [3])), margin=0.5)
  b = collate.collate([e, e], shapes=SHAPES)
  assert b.extras["margin"].tolist() == [0.5, 0.5, 0, 0]


def test_segments_count_the_turns_of_the_policy():
  turns = [types.Turn(role, np.arange(n))
           for role, n in [("user", 3), ("assistant", 2), ("tool", 2), ("assistant", 1)]]
  task = types.Task("t", "")
  b = collate.collate([types.Episode(task, turns), types.Episode(task, turns, status=types.ERROR)],
                      shapes=collate.Shapes(2, 8, 4))
  assert b.extras["segment_BT"].tolist() == [[0, 0, 1, -1]] * 2
  assert b.inputs["action_pos_BT"][0, :3].tolist() == [2, 3, 6]
  assert b.valid_B.tolist() == [1, 0] and b.mask_BT[1].sum() == 0  # a failed episode trains nothing


def test_the_images_of_a_row_are_its_own():
  def read(media, tokens, rows):
    assert [t.tolist() for t in tokens] == [[7, 1], [7, 8, 3, 1]]
    return {"seen_B": np.array([sum(m) for m in media] + [0] * (rows - len(media)))}
  shown = types.Turn("user", np.array([7, 8], np.int32), media=(9,))
  said = types.Turn("assistant", np.array([3, 1], np.int32), np.zeros(2))
  e = types.Episode(types.Task("t", "p"), (shown, said), scores={"reward": 1.0})
  text = episode(("user", [7]), ("assistant", [1]), group=1)
  b = collate.collate([text, e], shapes=dataclasses.replace(SHAPES, media=read))
  assert b.inputs["seen_B"].tolist() == [0, 9, 0, 0]
  assert set(collate.collate([text, e], shapes=SHAPES).inputs) == {"tokens_BS", "action_pos_BT"}
