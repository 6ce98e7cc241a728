"""The graded permutation reward, by hand."""

import itertools

import numpy as np
import pytest

from rljax import config
from rljax.data import ordering
from rljax.rewards import permutation
from tests.rewards import make

close = np.testing.assert_allclose


def graded(said, answer, **knobs):
  return permutation.graded([make.episode(s, answer=answer) for s in said], None, **knobs)


def test_the_inverse_and_not_the_permutation():
  assert ordering.inverse((2, 3, 1)) == (3, 1, 2)  # P2 P3 P1 are shown; P1 stands third
  assert ordering.inverse((1, 2, 3)) == (1, 2, 3)
  close(graded(["3,1,2", "2,3,1"], [3, 1, 2]), [1.2, 0.2])


def test_the_released_rule():
  six = [1, 2, 3, 4, 5, 6]
  close(graded(["1,2,3,4,5,6", "1, 2, 3, 4, 6, 5", "2,1,4,3,6,5", "", "1,2,3", "1,2,3,4,5,6,",
                "first 1", "1 2 3 4 5 6"], six),
        [1.2, 0.2 + 0.2 * 4 / 6, 0.2, 0, 0, 0, 0, 0])
  close(graded(["1,2,3,4,6,5"], six, partial=0.0), [0.2])
  close(graded(["1,2,4,3"], [1, 2, 3, 4]), [0.2])  # K <= 4: no partial credit, and it stays so
  close(graded(["1,2,4,3"], [1, 2, 3, 4], partial_from=2), [0.2 + 0.2 * 0.5])
  close(graded(["1,2,3,4,5", "1,2,3,5,4"], [1, 2, 3, 4, 5]), [1.2, 0.2 + 0.2 * 3 / 5])


def test_with_four_pieces_both_rules_are_one():
  said = [ordering.text_of(p) for k in (3, 4) for p in itertools.permutations(range(1, k + 1))]
  np.testing.assert_array_equal(graded(said, [3, 1, 4, 2]), graded(said, [3, 1, 4, 2], partial=0))
  assert set(graded(said, [3, 1, 4, 2])) == {1.2, 0.2, 0.0}


def test_partial_credit_asks_for_a_permutation():
  six = [1, 2, 3, 4, 5, 6]
  # Distinct, and five of six in place, but 9 is no piece; then a piece named twice.
  close(graded(["1,2,3,4,5,9", "1,2,3,4,5,5", "0,1,2,3,4,5"], six), [0.2, 0.2, 0.2])


def test_boxed_answers_need_a_thought_first():
  six = [2, 1, 3, 4, 5, 6]
  said = ["<think>hm</think> so \\boxed{2,1,3,4,5,6}", "\\boxed{2,1,3,4,5,6}",
          "<think>hm \\boxed{2,1,3,4,5,6}", "<think></think>\\boxed{?}",
          "<think>\\boxed{1}</think>\\boxed{2, 1, 3, 4, 6, 5} \n", "2,1,3,4,5,6"]
  close(graded(said, six, form="boxed"), [1.2, 0, 0, 0.2, 0.2 + 0.2 * 4 / 6, 0])
  close(permutation.placed([make.episode(s, answer=six) for s in said], None, form="boxed"),
        [1, 0, 0, 0, 4 / 6, 0])
  with pytest.raises(config.ConfigError, match="form must be one of"):
    graded(["1"], [1], form="box")
  with pytest.raises(config.ConfigError, match="form must be one of"):
    permutation.placed([make.episode("1", answer=[1])], None, form="box")


def test_a_line_that_repeats_itself_costs_half():
  line = "one two three four five six seven\n"
  for text, cost in ((line * 4, 0.5), (line * 3, 0), ("one two three\n" * 9, 0),
                     ((line + "x\n") * 4, 0)):
    close(graded([text], [1, 2]), [-cost])
  boxed = f"<think>{line * 4}</think>\\boxed{{1,2}}"
  close(graded([boxed], [1, 2], form="boxed"), [1.2])  # its first has a tag
  close(graded([f"<think>\n{line * 5}</think>\\boxed{{1,2}}"], [1, 2], form="boxed"), [0.7])


def test_positions_and_the_verifier():
  task = make.episode(answer=[3, 1, 2]).task
  assert [permutation.exact(task, t) for t in ("3,1,2", " 3, 1,2", "1,3,2", "", "3,1,2,4")] == [
      1, 1, 0, 0, 0]
  close(permutation.placed([make.episode(s, answer=[3, 1, 2]) for s in (
      "3,1,2", "3,2,1", "1,2,3", "3,1", "3,3,3", "")], None), [1, 1 / 3, 0, 0, 0, 0])
  with pytest.raises(config.ConfigError, match="no permutation"):
    permutation.exact(make.episode(answer=[1, 3]).task, "1,3")


def test_random_orders_are_paid_what_chance_pays():
  """Exact matches of random permutations of six: 1 / 720; places: 1 / 6."""
  draws = np.random.default_rng(0)
  said = [ordering.text_of(draws.permutation(6) + 1) for _ in range(4000)]
  episodes = [make.episode(s, answer=[4, 2, 6, 1, 3, 5]) for s in said]
  assert abs(permutation.placed(episodes, None).mean() - 1 / 6) < 0.01
  exact = permutation.graded(episodes, None, partial=0.0, form_bonus=0.0)
  assert exact.mean() < 0.005
