"""Pair builders and what they must refuse."""

import math

import numpy as np
import pytest

from rljax import advantages, types
from rljax.config import ConfigError
from rljax.data import collate, pairs


def episode(tokens, reward=0.0, group=0, task=None, status=types.STOP, source=None, **scores):
  prompt = types.Turn("user", np.array([90 + group], np.int32), text="?")
  said = types.Turn("assistant", np.array(tokens, np.int32), logp=np.zeros(len(tokens)))
  return types.Episode(
      types.Task(task or f"t{group}", "?"), (prompt, said), group=group, status=status,
      scores={"reward": reward, **scores}, info={"source": source} if source else {})


def said(episodes):
  return ["".join(str(t) for t in pairs.response_tokens(e)) for e in episodes]


def columns_of(episodes, name):
  return [e.info["columns"].get(name) for e in episodes]


def test_best_worst_per_group():
  data = [episode([1], 0.2), episode([2], 0.9), episode([3], 0.5), episode([4], 0.1, group=1),
          episode([5], 0.4, group=1)]
  out = pairs.best_worst(data)
  assert said(out) == ["2", "1", "5", "4"]
  assert columns_of(out, "margin") == pytest.approx([0.7, 0.7, 0.3, 0.3])
  assert columns_of(out, "p") == [None] * 4
  soft = pairs.best_worst(data, kappa=2.0)
  assert columns_of(soft, "p")[0] == pytest.approx(1 / (1 + math.exp(-1.4)))


def test_best_worst_drops_ties_failures_and_small_margins():
  assert pairs.best_worst([episode([1], 0.5), episode([2], 0.5)]) == []
  assert pairs.best_worst([episode([1], 0.5)]) == []
  assert pairs.best_worst([episode([1], 0.5), episode([1], 0.4)]) == []  # identical responses
  data = [episode([1], 0.1), episode([2], math.nan), episode([3], 9.0, status=types.ERROR),
          episode([], 9.0), episode([4], 0.3)]
  assert said(pairs.best_worst(data)) == ["4", "1"]
  assert pairs.best_worst(data, min_margin=0.2) == []  # 0.3 - 0.1 is not more than 0.2
  assert said(pairs.best_worst(data, min_margin=0.19)) == ["4", "1"]
  assert pairs.best_worst(data, min_chosen=0.4) == []
  assert said(pairs.best_worst(data, min_chosen=0.3)) == ["4", "1"]
  assert pairs.best_worst(data, score="other") == []


def test_best_worst_from_sources():
  """Temporal self-rewarding: chosen from the future model, rejected from the first one."""
  data = [episode([1], 0.9, source="now"), episode([2], 0.5, source="future"),
          episode([3], 0.2, source="past"), episode([4], 0.1, source="now")]
  assert said(pairs.best_worst(data, chosen_from="future", rejected_from="past")) == ["2", "3"]
  assert said(pairs.best_worst(data, chosen_from="future")) == ["2", "4"]
  assert said(pairs.best_worst(data, rejected_from="past")) == ["1", "3"]
  assert pairs.best_worst(data, chosen_from="nobody") == []


def test_all_pairs():
  data = [episode([1], 1.0), episode([2], 3.0), episode([3], 2.0), episode([4], 3.0)]
  out = said(pairs.all_pairs(data))
  assert sorted(zip(out[::2], out[1::2])) == [
      ("2", "1"), ("2", "3"), ("3", "1"), ("4", "1"), ("4", "3")]  # 2 and 4 tie
  assert len(pairs.all_pairs(data, min_margin=1.5)) == 4
  assert len(pairs.all_pairs(data, min_chosen=2.5)) == 8
  assert columns_of(pairs.all_pairs(data, kappa=1.0), "p")[0] is not None


def test_ranked_pairs_first_with_last():
  data = [episode([i], win_rate=w) for i, w in enumerate([0.2, 0.9, 0.5, 0.4, 0.7])]
  out = pairs.ranked(data)
  assert said(out) == ["1", "0", "4", "3"]  # the middle one stays alone
  assert columns_of(out, "win_rate") == [0.9, 0.2, 0.7, 0.4]
  assert columns_of(out, "p")[0] == pytest.approx(1 / (1 + math.exp(-0.7)))
  tie = pairs.ranked([episode([1], win_rate=0.5), episode([2], win_rate=0.5)], kappa=3.0)
  assert columns_of(tie, "p") == [0.5, 0.5]
  assert pairs.ranked([episode([1], win_rate=0.5), episode([1], win_rate=0.4)]) == []


def test_by_source_pairs_in_order():
  data = [episode([1], source="opponent"), episode([2], source="data"), episode([3], source="data"),
          episode([4], source="opponent"), episode([5], source="data"),
          episode([6], source="opponent", group=1), episode([7], source="data", group=1),
          episode([8], source="other", group=1)]
  assert said(pairs.by_source(data, chosen="data", rejected="opponent")) == [
      "2", "1", "3", "4", "7", "6"]
  same = [episode([1], source="data"), episode([1], source="opponent")]
  assert pairs.by_source(same, chosen="data", rejected="opponent") == []


def test_win_rates():
  data = [episode([1], 0.0), episode([2], math.log(3)), episode([3], math.nan),
          episode([4], 5.0, group=1)]
  out = [e.scores.get("win_rate") for e in pairs.win_rates(data)]
  assert out == [pytest.approx((0.25 + 0.5) / 2), pytest.approx((0.75 + 0.5) / 2), None, 0.5]
  out = [e.scores.get("win_rate") for e in pairs.win_rates(data, include_self=False)]
  assert out == [pytest.approx(0.25), pytest.approx(0.75), None, 0.5]
  steep = pairs.win_rates(data, scale=1000.0, include_self=False)
  assert steep[1].scores["win_rate"] == pytest.approx(1.0)
  assert data[0].scores == {"reward": 0.0}  # the originals are untouched


def test_best_of_each_group_alone():
  data = [episode([1], 0.2), episode([2], 0.9), episode([3], 0.9), episode([4], 0.1, group=1),
          episode([5], 0.1, group=1), episode([6], math.nan, group=2), episode([7], 1.0, group=2)]
  assert said(pairs.best(data)) == ["2"]  # ties in groups 1 and 2: nothing is better than another
  assert pairs.best(data, score="other") == []


def test_win_rate_of_a_matrix():
  p = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])  # a cycle: all equal
  np.testing.assert_allclose(pairs.win_rate(p), 0.5)
  np.testing.assert_allclose(pairs.win_rate(p, include_self=False), 0.5)
  np.fill_diagonal(p, np.nan_to_num(np.nan))  # the diagonal is not read
  np.testing.assert_allclose(pairs.win_rate(p), 0.5)


def test_mismatched_units():
  data = [episode([i], reward=float(i % 2), group=i // 2) for i in range(8)]  # 4 prompts x 2
  out = pairs.mismatched(data, group=4)
  assert len(out) == 16
  for unit in (out[:8], out[8:]):
    examples, partners = unit[:4], unit[4:]
    assert columns_of(examples, "label") == [float(e.scores["reward"] > 0.5) for e in examples]
    for e, m in zip(examples, partners):
      assert m.task.id == e.task.id and m.turns[0] is e.turns[0]
      assert said([m])[0] in said(examples) and m.info["mismatched_with"] != e.task.id
      assert all(t.logp is None for t in m.turns if t.role == "assistant")
  assert sorted(said(out[:4]) + said(out[8:12])) == [str(i) for i in range(8)]
  assert len(pairs.mismatched(data[:7], group=2)) == 12  # the seventh is left out
  high = pairs.mismatched(data, group=4, threshold=1.5)
  assert set(columns_of(high[:4], "label")) == {0.0}


def test_mismatched_refuses_what_has_no_partner():
  data = [episode([i], group=i) for i in range(4)]
  for episodes, group in [(data, 1), (data[:1], 2), ([], 2), (data, 5)]:
    with pytest.raises(ValueError, match="at least two examples"):
      pairs.mismatched(episodes, group=group)
  with pytest.raises(ValueError, match="share the prompt"):
    pairs.mismatched([episode([i]) for i in range(4)], group=4)


def test_check_pairs_drops_identical_and_refuses_the_rest():
  good = [episode([1, 7], 1.0), episode([2, 7])]
  same = [episode([3, 7], 1.0, group=1), episode([3, 7], group=1)]
  assert pairs.check_pairs(good + same) == good
  assert pairs.check_pairs([]) == []
  for bad, message in [
      (same, "identical"), (good[:1], "units of 2"), ([good[0], same[0]], "different prompts"),
      ([good[0], episode([])], "empty response")]:
    with pytest.raises(ValueError, match=message):
      pairs.check_pairs(bad)
  assert pairs.check_pairs(good, eos_id=7) == good
  cut = [good[0], episode([2, 3], status=types.LENGTH)]
  assert pairs.check_pairs(cut, eos_id=7) == cut  # cut by the limit: no end token to expect
  with pytest.raises(ValueError, match="without the end token 7"):
    pairs.check_pairs([good[0], episode([2, 3])], eos_id=7)
  three = [*good, episode([5, 7])]
  assert pairs.check_pairs(three, size=3) == three


def test_columns():
  a = pairs.with_columns(episode([1]), p=0.25, label=1)
  b = pairs.with_columns(pairs.with_columns(episode([2]), p=0.5), p=0.75)
  out = pairs.columns([a, b], rows=3)
  assert set(out) == {"p", "label"}
  np.testing.assert_array_equal(out["p"], np.float32([0.25, 0.75, 0]))
  np.testing.assert_array_equal(out["label"], np.float32([1, np.nan, 0]))
  vectors = pairs.columns([pairs.with_columns(episode([1]), p_BK=[0.1, 0.9])], rows=2)
  np.testing.assert_allclose(vectors["p_BK"], [[0.1, 0.9], [0, 0]], rtol=1e-6)
  assert pairs.columns([episode([1])], rows=2) == {}


def test_streams_of_rewards_are_normalised_apart():
  given = [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (0.0, 0.0, 0.0)]
  data = [episode([k], 9.0, answer=a, format=f, blind=b) for k, (a, f, b) in enumerate(given)]
  out = pairs.weighed(data, columns={"task_B": {"answer": 0.9, "format": 0.1},
                                     "blind_B": {"blind": 1.0}})
  assert columns_of(out, "task_B") == pytest.approx([0.9, 0.1, 1.0, 0.0])
  assert columns_of(out, "blind_B") == [1.0, 1.0, 0.0, 0.0]
  batch = collate.collate(out, shapes=collate.Shapes(4, 3, 2))
  parts = [lambda b, c=c: advantages.group_norm(b, reward=c) for c in ("task_B", "blind_B")]
  found = advantages.combine(batch, parts=tuple(parts), weights=(1.0, 1.0)).adv_BT[:, 0]
  wanted = np.zeros(4)
  for column in ([0.9, 0.1, 1.0, 0.0], [1, 1, 0, 0]):
    x = np.array(column)
    wanted += (x - x.mean()) / (x.std(ddof=1) + 1e-6)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  with pytest.raises(ConfigError, match="no score 'form'"):
    pairs.weighed(data, columns={"x_B": {"form": 1.0}})
