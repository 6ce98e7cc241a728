"""Memories: the mixture of iterates, and rewards shaped beside reference responses."""

import json
import math

import numpy as np
import pytest

from rljax import rng, types
from rljax.config import ConfigError
from rljax.data import memory, text
from rljax.rewards import run, shapes

TOKENIZER = text.char(alphabet="ab?")


def episode(name="t", response="a", prompt="?", group=0, reward=0.0, options=("a", "b")):
  task = types.Task(name, prompt, info={"options": list(options)})
  turns = (types.Turn("user", TOKENIZER.encode(prompt), text=prompt),
           types.Turn("assistant", TOKENIZER.response(response), text=response))
  return types.Episode(task, turns, group=group, scores={"reward": reward})


# --- the mixture ----------------------------------------------------------------------------------


def policies(*p):
  """A context whose policy says "a" with the next probability of `p`, "b" with half of the rest."""
  left = list(p)

  def score(role, prefixes, continuations):
    assert role == "ref" and all(len(x) == 1 for x in prefixes)
    a = left.pop(0)
    value = {"a": a, "b": (1 - a) / 2}
    return [(np.log([value[TOKENIZER.decode(c)], 1.0]), None) for c in continuations]
  return run.Context(0, 0, TOKENIZER, score=score)


def test_the_mixture_is_the_mean_of_distributions():
  m = memory.mixture(role="ref", measure=lambda p: {"a": p[0], "square": p[0] ** 2})
  state, same = m.init(), [episode(), episode(response="b")]
  assert m.metrics(state) == {}
  ctx = policies(0.5, 0.2)  # among a and b: 2/3, then 1/3
  for _ in range(2):
    state, out = m.update(json.loads(json.dumps(state)), same, ctx)
    assert out is same
  found = m.metrics(state)
  assert found["a"] == pytest.approx(1 / 2) and found["last_a"] == pytest.approx(1 / 3)
  assert found["square"] == pytest.approx(1 / 4)  # of the mixture, not the mean of squares
  assert found["last_square"] == pytest.approx(1 / 9) and found["outside"] == pytest.approx(0.4)


def test_the_mixture_of_several_prompts_is_measured_for_each():
  m = memory.mixture(role="ref", measure=lambda p: {"high": p.max()})
  state, _ = m.update(m.init(), [episode(prompt="?"), episode(prompt="a")], policies(0.5))
  assert set(state) == {"?", "a"} and m.metrics(state)["high"] == pytest.approx(2 / 3)


# --- shaped rewards -------------------------------------------------------------------------------

SCORES = {"a": 1.0, "b": 3.0, "aa": 2.0, "bb": math.nan}


def score(episodes, ctx):
  return np.array([SCORES[e.response] for e in episodes])


class Asked:
  """A context whose reference role says "a" and "b" in turn; what it was asked is in `seeds`."""

  def __init__(self, replies=("a", "b")):
    self.seeds, self.replies = [], replies
    self.ctx = run.Context(0, 0, TOKENIZER, sample=self.sample)

  def sample(self, role, prompts, seeds, **settings):
    assert role == "ref" and not settings and all(len(p) == 1 for p in prompts)
    self.seeds += seeds
    says = [TOKENIZER.response(self.replies[k % len(self.replies)]) for _, k in seeds]
    return [type("C", (), {"tokens": t, "logp": np.zeros(len(t)), "status": types.STOP})
            for t in says]


def differences(r_B, refs_BM, stats):
  """Shows a test what a shape is given."""
  return r_B - refs_BM.mean(1) + 100 * stats.n


def test_references_are_drawn_once_and_scores_standardised_by_the_first_of_them():
  asked, m = Asked(), memory.shaped(reward=score, shape=differences, references=2)
  state, out = m.update(m.init(), [episode("t", "b"), episode("t", "aa"), episode("u", "a")],
                        asked.ctx)
  assert asked.seeds == [(rng.number(t), k) for t in "tu" for k in (0, 1)]
  assert state["references"] == {"t": [1.0, 3.0], "u": [1.0, 3.0]} and state["unit"] == [2.0, 1.0]
  assert [e.scores["proxy"] for e in out] == [1.0, 0.0, -1.0]
  assert [e.scores["reward"] for e in out] == [301.0, 300.0, 299.0]
  assert m.metrics(state) == {"mean": 300.0, "std": pytest.approx(math.sqrt(2 / 3)),
                              "references": 2.0}
  later = Asked(replies=("aa", "aa"))  # the unit and the old references stay
  state, out = m.update(json.loads(json.dumps(state)), [
      episode("t", "b", reward=0.5), episode("v", "b")], later.ctx)
  assert later.seeds == [(rng.number("v"), 0), (rng.number("v"), 1)]
  assert state["unit"] == [2.0, 1.0] and state["references"]["v"] == [2.0, 2.0]
  assert [e.scores["reward"] for e in out] == [501.5, 501.0]  # added to what there was


def test_no_reference_no_reward():
  make = lambda **k: memory.shaped(reward=score, shape=differences, **k)
  with pytest.raises(ConfigError, match="task t: a reference response of role 'ref'"):
    m = make(references=2)
    m.update(m.init(), [episode()], Asked(replies=("a", "bb")).ctx)
  with pytest.raises(ConfigError, match="all references score 1"):
    m = make(references=2)
    m.update(m.init(), [episode()], Asked(replies=("a",)).ctx)
  with pytest.raises(ConfigError, match="references=0"):
    make(references=0)


def test_what_could_not_be_scored_stays_so_and_moves_no_statistic():
  m = memory.shaped(reward=score, shape=shapes.min_max, references=2)
  state, out = m.update(m.init(), [episode("t", "bb"), episode("t", "b"), episode("t", "a")],
                        Asked().ctx)
  assert math.isnan(out[0].scores["reward"]) and math.isnan(out[0].scores["proxy"])
  assert [e.scores["reward"] for e in out[1:]] == [1.0, 0.0] and state["stats"][0] == 2
  assert state["mean"] == 0.5
  json.dumps(state, allow_nan=False)
  state, out = m.update(m.init(), [episode("t", "bb")], Asked().ctx)
  json.dumps(state, allow_nan=False)


# --- stages ---------------------------------------------------------------------------------------


def test_stages_follow_each_other_by_step():
  named = lambda name: lambda episodes: [(name, e) for e in episodes]
  m = memory.stages(steps=(0, 2, 5), parts=(named("a"), named("b"), named("c")))
  seen = []
  for step in (0, 1, 2, 4, 5, 90):
    state, out = m.update(m.init(), ["e"], run.Context(step, 0, TOKENIZER))
    seen.append((out[0][0], m.metrics(state)["stage"]))
  assert seen == [("a", 0), ("a", 0), ("b", 1), ("b", 1), ("c", 2), ("c", 2)]


@pytest.mark.parametrize("steps", [(), (1, 2), (0, 0), (0, 3, 2), (0,)])
def test_stages_begin_at_zero_and_ascend(steps):
  with pytest.raises(ConfigError, match="one step per part, ascending from 0"):
    memory.stages(steps=steps, parts=(list, list, list) if len(steps) == 3 else (list, list))
