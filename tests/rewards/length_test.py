"""Soft overlong shaping counts tokens."""

import numpy as np
import pytest

from rljax import types
from rljax.rewards import length


def of_lengths(*lengths):
  """Episodes whose assistant says that many tokens, in two turns after a long prompt."""
  def turn(role, n):
    return types.Turn(role, np.zeros(n, np.int32))
  return [types.Episode(types.Task("a", ""), (
      turn("user", 99), turn("assistant", n // 2), turn("assistant", n - n // 2)))
      for n in lengths]


def test_soft_overlong_counts_the_policy_s_own_tokens():
  r = length.soft_overlong(of_lengths(0, 80, 81, 90, 100, 130), max_tokens=100, buffer=20)
  np.testing.assert_allclose(r, [0, 0, -0.05, -0.5, -1, -1], rtol=1e-6)
  assert r.dtype == np.float32 and not np.signbit(r[0])
  r = length.soft_overlong(of_lengths(90), None, max_tokens=100, buffer=40, factor=0.5)
  np.testing.assert_allclose(r, [-0.375])
  assert length.soft_overlong([], max_tokens=5, buffer=5).shape == (0,)


@pytest.mark.parametrize("buffer", [0, -1, 11])
def test_soft_overlong_errors(buffer):
  with pytest.raises(ValueError, match="buffer"):
    length.soft_overlong([], max_tokens=10, buffer=buffer)
