"""A reward may fail in any way; the run sees a counted NaN or one clear sentence."""

import time

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.rewards import run

CTX = run.Context(step=3, seed=0, tokenizer=None)
EPISODES = [types.Episode(types.Task(str(i), "p"), ()) for i in range(4)]


def good(episodes, ctx):
  return np.arange(len(episodes), dtype=float)


def raising(episodes, ctx):
  raise KeyError("answer")


def hanging(episodes, ctx):
  time.sleep(5)


def half(episodes, ctx):
  return [1.0, float("nan"), float("inf"), 2.0]


def score(rewards, weights=None, **kwargs):
  return run.score_all(EPISODES, rewards, weights or {}, CTX, **kwargs)


def rewards_of(episodes):
  return [e.scores["reward"] for e in episodes]


def test_names_are_kept_apart_and_weights_apply():
  out, faults = score({"a": good, "b": good}, {"b": -0.5})
  assert rewards_of(out) == [0, 0.5, 1.0, 1.5] and out[2].scores["b"] == 2 and not faults


def test_nan_and_inf_keep_an_episode_out():
  out, faults = score({"a": good, "h": half})
  assert faults == {"unscored": 2}
  assert np.isnan(rewards_of(out)).tolist() == [False, True, True, False]


@pytest.mark.parametrize("bad, kind, message", [
    (raising, "reward_error", "reward 'bad' raised KeyError"),
    (hanging, "reward_timeout", "reward 'bad' was not back after 0.05 s")])
def test_nothing_scored_is_one_clear_error(bad, kind, message):
  with pytest.raises(ConfigError, match=message) as e:
    score({"good": good, "bad": bad}, deadline=0.05)
  assert "step 3: none of 4 episodes could be scored" in str(e.value)


def test_a_reward_that_is_always_nan_is_named():
  with pytest.raises(ConfigError, match="reward 'n' is NaN"):
    score({"n": lambda episodes, ctx: [float("nan")] * 4})


@pytest.mark.parametrize("value", [[1.0], np.zeros((4, 1)), 1.0])
def test_wrong_length(value):
  with pytest.raises(ConfigError, match="reward 'w' returned shape"):
    score({"w": lambda episodes, ctx: value})


def test_no_rewards_leave_episodes_alone():
  out, faults = score({})
  assert [e.scores for e in out] == [{}] * 4 and not faults
