"""pass@k by enumeration."""

import itertools

import numpy as np
import pytest

from rljax.evals import pass_at_k


def test_equals_the_average_over_all_subsets():
  correct = np.array([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]], bool)
  for k in range(1, 6):
    want = np.mean([[row[list(s)].any() for s in itertools.combinations(range(5), k)]
                    for row in correct])
    assert pass_at_k.pass_at_k(correct, k) == pytest.approx(want)


def test_summary_and_bounds():
  assert pass_at_k.summary(np.array([[True], [False]])) == {"pass_at_1": 0.5}
  assert set(pass_at_k.summary(np.ones((2, 4), bool))) == {"pass_at_1", "pass_at_4"}
  with pytest.raises(ValueError, match="pass@3"):
    pass_at_k.pass_at_k(np.ones((2, 2), bool), 3)
