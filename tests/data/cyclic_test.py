"""CYC: its preferences, its tasks, and known exploitabilities."""

import dataclasses

import numpy as np
import pytest

from rljax.data import cyclic, pairs
from tests.rewards import make

P = np.array(cyclic.P)


def test_preferences_are_the_stated_cycle():
  np.testing.assert_allclose(P + P.T, 1.0)
  assert P[0, 1] == P[1, 2] == P[2, 0] == 0.9
  assert P[0, 3] == P[0, 4] == 0.95 and set(P[1:3, 3:].flat) == {0.6} and P[3, 4] == 0.5


def test_a_group_is_compared_by_what_it_says():
  said = [make.episode(x) for x in ("0", "x", "1", "", "00", "3")]
  p = cyclic.preferences(said)
  known = [0, 2, 5]
  np.testing.assert_array_equal(p[np.ix_(known, known)], P[np.ix_([0, 1, 3], [0, 1, 3])])
  assert np.isnan(p[[1, 3, 4]]).all() and np.isnan(p[:, [1, 3, 4]]).all()


def test_win_rates_by_preferences_leave_out_what_cannot_be_compared():
  said = [dataclasses.replace(make.episode(x), scores={"reward": 0.0}) for x in ("0", "x", "1")]
  rates = [e.scores.get("win_rate") for e in pairs.win_rates(said, prefer=cyclic.preferences)]
  assert rates == [pytest.approx((0.9 + 0.5) / 2), None, pytest.approx((0.1 + 0.5) / 2)]


def test_demos_come_by_weight():
  tasks = cyclic.choices(weights=(1, 0, 0, 0, 3), size=400)
  share = np.mean([t.demo == "4" for t in tasks])
  assert {t.demo for t in tasks} == {"0", "4"} and 0.68 < share < 0.82
  assert len({t.id for t in tasks}) == 400 and {t.prompt for t in tasks} == {"?"}
  assert tasks[0].info["options"] == list("01234")
