"""What is said aloud about the first batch."""

import dataclasses

import numpy as np
import pytest

from rljax import types
from rljax.train import preflight
from tests.rewards import make


def episodes(rewards, *, statuses=(), paid=()):
  """Groups of two; the responses are sampled ones of two tokens."""
  out = []
  for i, reward in enumerate(rewards):
    e = make.episode("ab", group=i // 2, status=(statuses or [types.STOP] * len(rewards))[i])
    said = dataclasses.replace(e.turns[1], logp=np.zeros(2, np.float32),
                               reward=paid[i] if paid else 0.0)
    out.append(dataclasses.replace(e, turns=(e.turns[0], said), scores={"reward": reward}))
  return out


def warnings(given, skipped=0):
  return preflight.check(given, response_limit=4, prompt_limit=3, skipped_prompts=skipped,
                         drawn_prompts=4)["warnings"]


def test_nothing_is_said_of_a_batch_that_teaches():
  report = preflight.check(episodes([0.0, 1.0, 1.0, 0.0]), response_limit=4, prompt_limit=3,
                           skipped_prompts=0, drawn_prompts=4)
  assert report["warnings"] == []
  assert report["numbers"]["reward_mean"] == 0.5 and report["numbers"]["all_equal_groups"] == 0


@pytest.mark.parametrize("given, message", [
    (episodes([1.0] * 4), "every reward is 1: nothing"),
    (episodes([0.0, 0.0, 1.0, 1.0]), "100% of the groups have all-equal rewards"),
    (episodes([0.0, 1000.0]), "rewards reach from 0 to 1000"),
    (episodes([0.0, float("nan"), 1.0, 0.0]), "25% of the episodes could not be scored"),
    (episodes([0.0, 1.0], statuses=[types.LENGTH] * 2), "the end token was never chosen in 2"),
    (episodes([0.0, 1.0], statuses=[types.STOP, types.LENGTH]), "50% of the responses were cut"),
])
def test_what_would_waste_a_run_is_said(given, message):
  (said,) = warnings(given)
  assert said.startswith(message)


def test_skipped_prompts_are_said():
  assert warnings(episodes([0.0, 1.0]), skipped=1) == [
      "25% of the prompts are longer than limits.prompt=3 and were skipped"]


def test_what_turns_were_paid_counts():
  """SCoRe pays its attempts one by one; the episode's own reward is 0."""
  assert warnings(episodes([0.0, 0.0], paid=[0.0, 1.0])) == []
