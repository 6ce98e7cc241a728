"""Puzzles: the answer puts the shown tiles back, splits share no picture."""

import numpy as np
import pytest

from rljax.data import images, ordering
from rljax.rewards import permutation


def test_the_answer_puts_the_picture_together():
  for rows, columns in ((2, 2), (3, 2)):
    for task in ordering.jigsaw(rows=rows, columns=columns, count=5):
      tiles = [task.media[i - 1] for i in task.answer]
      whole = np.vstack([np.hstack(tiles[r * columns:(r + 1) * columns]) for r in range(rows)])
      assert whole.shape == (24, 24, 3)
      seams = np.abs(np.diff(whole[:, :, 2].astype(int), axis=1)).mean()
      shuffled = np.vstack([np.hstack(task.media[r * columns:(r + 1) * columns])
                            for r in range(rows)])
      if list(task.answer) != list(range(1, rows * columns + 1)):
        assert (shuffled != whole).any()
      assert seams < 30 and permutation.exact(task, task.demo) == 1.0
      assert task.prompt == "#" * rows * columns + ":"


def test_demonstrations_know_as_much_as_they_are_told():
  tasks = list(ordering.jigsaw(right=0.0, count=150))
  right = np.mean([permutation.exact(t, t.demo) for t in tasks])
  assert right < 0.1  # 1 / 24 by chance
  assert {sorted(t.demo) == sorted("1,2,3,4") for t in tasks} == {True}
  half = ordering.jigsaw(right=0.5, count=150)
  assert 0.4 < np.mean([permutation.exact(t, t.demo) for t in half]) < 0.64


def test_tiles_may_be_sorted_by_what_they_look_like():
  for by, value in (("light", lambda t: t.mean()),
                    ("red", lambda t: t[..., 2].mean() - t[..., 0].mean())):
    for task in ordering.jigsaw(rows=3, by=by, count=5, template="{pieces}^"):
      values = [value(task.media[i - 1].astype(float)) for i in task.answer]
      assert values == sorted(values) and len(set(values)) == 6 and task.prompt == "######^"
  with pytest.raises(ValueError, match="by='size'"):
    ordering.jigsaw(by="size")


def test_pictures_with_equal_tiles_are_drawn_again_and_none_is_an_error():
  assert not any(images.alike(t.media, 6.0) for t in ordering.jigsaw(count=40))
  with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="no problems"):
    patch.setattr(ordering.tasks_lib, "MAX_DRAWS", 50)
    ordering.jigsaw(tolerance=255.0)
  with pytest.raises(ValueError, match="at least 2"):
    ordering.jigsaw(rows=1, columns=1)


def test_train_and_test_share_no_picture():
  whole = lambda t: np.concatenate([t.media[i - 1].ravel() for i in t.answer]).tobytes()
  train = {whole(t) for t in ordering.jigsaw(count=60)}
  test = {whole(t) for t in ordering.jigsaw(count=60, split="test", seed=3)}
  assert len(train) == 60 and not train & test
  again = ordering.jigsaw(count=60)[7]
  np.testing.assert_array_equal(again.media[0], ordering.jigsaw(count=60)[7].media[0])


def test_questions_about_positions_are_balanced():
  tasks = list(ordering.positions(count=200))
  assert 0.4 < np.mean([t.answer == "y" for t in tasks]) < 0.6
  assert all(len(t.media) == 4 and t.prompt[:4] == "####" and t.prompt[4] != t.prompt[6]
             for t in tasks)
