"""Benches that the documentation names run, and say what they measured."""

import pytest

from rljax import bench_turns


@pytest.mark.slow
def test_turns_against_single_answers():
  found = bench_turns.measure(episodes=4, turns=2, turn_tokens=3, observation=2, slots=4, repeats=1)
  assert set(found) == {"single", "turns"} and min(found.values()) > 0
