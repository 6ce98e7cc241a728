"""Responses of several roles in one group, and pairs marked by an annotator."""

import jax
import numpy as np
import pytest

from rljax import types
from rljax.rollouts import single_turn
from tests.rollouts import fake

KEY = jax.random.key(0)
TASKS = [types.Task(name, f"{name}:") for name in "ab"]
SETTINGS = {"max_tokens": 9}


def test_sides_share_a_group_and_have_randomness_of_their_own():
  say = lambda who: fake.Sampler(lambda context, seed: f"{who}{seed[1]}")
  samplers = {"policy": say("p"), "ref": say("r")}
  out = single_turn.sides(samplers, TASKS, KEY, group_size=2, settings=SETTINGS)
  assert [(e.group, e.info["role"], e.response) for e in out] == [
      (0, "policy", "p0"), (0, "policy", "p1"), (1, "policy", "p0"), (1, "policy", "p1"),
      (0, "ref", "r0"), (0, "ref", "r1"), (1, "ref", "r0"), (1, "ref", "r1")]
  keys = [samplers[r].calls[0][2] for r in samplers]
  assert keys[0] != keys[1]
  again = single_turn.sides(samplers, TASKS, KEY, roles=("ref",), settings=SETTINGS)
  assert [e.response for e in again] == ["r0", "r0"] and samplers["ref"].calls[1][2] == keys[1]


def length(episodes, ctx):
  return np.array([len(e.response) if e.response != "?" else np.nan for e in episodes])


def compared(reply, tasks=TASKS, key=KEY, **knobs):
  sampler = fake.Sampler(reply)
  return single_turn.compared({"policy": sampler}, tasks, key, prefer=length, settings=SETTINGS,
                              **knobs), sampler


def test_the_annotator_marks_the_better_one_and_puts_it_first():
  out, sampler = compared(lambda c, s: "x" * (1 + s[1]))
  assert [(e.group, e.response, e.info["source"]) for e in out] == [
      (0, "xx", "chosen"), (0, "x", "rejected"), (1, "xx", "chosen"), (1, "x", "rejected")]
  assert [e.info["columns"]["label"] for e in out] == [1.0, 0.0, 1.0, 0.0]
  other = compared(lambda c, s: "x" * (1 + s[1]), key=jax.random.key(7))[1]
  assert other.calls[0][1:3] == sampler.calls[0][1:3]  # the same pair at every step


@pytest.mark.parametrize("replies", [("x", "y"), ("x", "?"), ("?", "?")])
def test_a_pair_without_a_preference_takes_no_part(replies):
  out, _ = compared(lambda c, s: replies[s[1]], tasks=TASKS[:1])
  assert [e.status for e in out] == [types.ERROR] * 2 and "annotator" in out[0].info["error"]


def test_noise_exchanges_the_marks_of_a_share():
  tasks = [types.Task(f"t{i}", "a") for i in range(300)]
  right = lambda noise: np.mean([len(e.response) == 2 for e in compared(
      lambda c, s: "x" * (1 + s[1]), tasks=tasks, noise=noise)[0][::2]])
  assert right(0.0) == 1.0 and right(1.0) == 0.0 and 0.78 < right(0.15) < 0.92
