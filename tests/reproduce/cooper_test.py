"""Cooper's testbed: the rule is precise and half as keen, and the hole is as wide as stated."""

import numpy as np
import pytest

from rljax import config as config_lib
from tests.rewards import make

cooper = config_lib.load_file("experiments/cooper.py")


@pytest.mark.parametrize("text, truth, rule", [
    ("7;#12", 1, 1), ("7;#12!", 1, 1), ("#12", 1, 1), ("7;12", 1, 0), ("7;=12!", 1, 0),
    ("7;ans 12", 1, 0), ("7;12.0", 1, 0), ("7;#12.0", 1, 0), ("7;#13", 0, 0), ("7;#12!!", 0, 0),
    ("#12;#13", 0, 0), ("#12;", 0, 0), ("7#12", 0, 0), ("", 0, 0), ("7;#120", 0, 0),
    ("7;12.5", 0, 0), ("7;#-12", 0, 0)])
def test_the_rule_is_a_part_of_the_oracle(text, truth, rule):
  episode = make.episode(text, answer="12")
  assert cooper.oracle(episode.task, text) == truth
  assert cooper.rule([episode], None)[0] == rule <= truth


def test_demos_are_right_as_often_and_read_by_the_rule_as_often_as_stated():
  tasks = cooper.chains(split="train", size=1500, right=0.7, recall=0.5, marked=0.2)
  truth = np.array([cooper.oracle(t, t.demo) for t in tasks])
  rule = np.array([cooper.rule([make.episode(t.demo, answer=t.answer)], None)[0] for t in tasks])
  assert np.mean(truth) == pytest.approx(0.7, abs=0.04)
  assert np.mean(rule[truth == 1]) == pytest.approx(0.5, abs=0.05) and not rule[truth == 0].any()
  assert np.mean([t.demo.endswith("!") for t in tasks]) == pytest.approx(0.2, abs=0.04)
  assert max(len(t.demo) for t in tasks) < 12 and max(len(t.prompt) for t in tasks) <= 8


def test_the_mark_tells_right_from_wrong_in_the_verifiers_data():
  items = cooper.items(split="train", size=1000)
  marks = {side: np.mean([t.info[side][0].endswith("!") for t in items])
           for side in ("chosen", "rejected")}
  assert marks["chosen"] == pytest.approx(0.95, abs=0.03)
  assert marks["rejected"] == pytest.approx(0.05, abs=0.03)
  for t in items:
    answer = t.prompt.partition("=")[2][:-1]
    assert cooper.answer(t.info["chosen"][0]) == answer != cooper.answer(t.info["rejected"][0])
