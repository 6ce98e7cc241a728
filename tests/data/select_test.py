"""Whole groups are kept or dropped, order kept, NaN scores never count."""

import functools

from rljax import types
from rljax.data import select
from tests.objectives import cases

NAN = float("nan")


def episodes(groups, name="reward"):
  """One episode per score; the scores of a group stand next to each other."""
  return [types.Episode(types.Task(str(g), ""), (), group=g, scores={name: x})
          for g, scores in groups.items() for x in scores]


def kept(function, groups, name="reward", **h):
  chosen = function(episodes(groups, name), **h)
  counts = {g: sum(e.group == g for e in chosen) for g in groups}
  assert all(n in (0, len(groups[g])) for g, n in counts.items())  # never half a group
  assert [e.group for e in chosen] == sorted(e.group for e in chosen)
  return [g for g, n in counts.items() if n]


GROUPS = {0: [0, 0, 0], 1: [0, 1, 0], 2: [1, 1, 1], 3: [0.5, NAN, 0.5], 4: [0.2, NAN, 0.5],
          5: [NAN], 6: [0.3], 7: [0.3, 0.3 + 1e-9]}


def test_drop_zero_variance():
  assert kept(select.drop_zero_variance, GROUPS) == [1, 4]
  assert kept(select.drop_zero_variance, GROUPS, name="x") == []
  assert kept(select.drop_zero_variance, GROUPS, name="x", score="x") == [1, 4]


def test_dynamic_sampling():
  assert kept(select.dynamic_sampling, GROUPS) == [1, 3, 4, 6, 7]
  assert kept(select.dynamic_sampling, GROUPS, low=0.32, high=0.4) == [1, 4]
  assert kept(select.dynamic_sampling, GROUPS, name="x", score="x", low=-1.0) == [0, 1, 3, 4, 6, 7]


def test_top_variance():
  groups = {0: [0, 0], 1: [0, 1], 2: [0.4, 0.6], 3: [0, 0.5], 4: [NAN, NAN]}
  assert kept(select.top_variance, groups, fraction=0.4) == [1, 3]
  assert kept(select.top_variance, groups) == [0, 1, 2, 3]
  assert kept(select.top_variance, groups, fraction=1.0) == [0, 1, 2, 3, 4]
  assert kept(select.top_variance, groups, name="x", score="x", fraction=0.2) == [1]


def test_right_ones_are_kept_one_by_one():
  some = episodes({0: [0, 1, NAN], 1: [0.5, 0.4]}, "correct")
  assert select.right(some) == [some[1], some[3]]
  assert select.right(some, threshold=0.45) == [some[1], some[3]]
  assert select.right(some, threshold=0.4) == [some[1], some[3], some[4]]
  assert select.right(some, score="other") == []


def test_a_chain_goes_in_order():
  groups = {0: [0, 1], 1: [0, 0.5], 2: [0.4, 0.6]}
  hard = functools.partial(select.dynamic_sampling, high=0.45)
  most = functools.partial(select.top_variance, fraction=0.3)
  assert kept(select.chain, groups, steps=(hard, most)) == [1]
  assert kept(select.chain, groups, steps=(most, hard)) == []


def test_every_knob_is_in_a_test():
  for name in cases.public_functions(select):
    assert set(cases.hyperparameters(getattr(select, name))) <= {
        "score", "low", "high", "fraction", "steps", "threshold"}
