"""Tasks for tool users: right answers, honest mixtures, splits that do not meet."""

import re

import pytest

from rljax.data import tool_tasks
from rljax.rewards import verify


def turns(tasks):
  return [t.info["turns"] for t in tasks]


def test_products_are_right_and_mixed():
  tasks = tool_tasks.products(size=300)
  for t in tasks:
    a, b = map(int, re.fullmatch(r"(\d+)\*(\d+)=", t.prompt).groups())
    assert t.answer == a * b and 100 <= min(a, b)
    called = len(t.info["turns"]) > 1
    assert not called or f"<py>{a}*{b}</py>" in t.info["turns"]
    if called:
      assert verify.number(t, "".join(t.info["turns"])) == 1
  called = [x for x in turns(tasks) if len(x) > 1]
  assert 0.4 < len(called) / 300 < 0.6
  assert 0.1 < sum(len(x) == 3 for x in called) / len(called) < 0.3


def test_knobs_of_products():
  assert all(len(x) == 1 for x in turns(tool_tasks.products(size=20, tool_share=0.0)))
  assert all(len(x) == 3 for x in turns(
      tool_tasks.products(size=20, tool_share=1.0, broken_share=1.0)))
  worked = tool_tasks.products(size=9, tool_share=0.0, right_share=1.0, working=True)
  for task, (said,) in zip(worked, turns(worked)):
    steps = said.split("<")[0].split(",")
    assert len(steps) == 3 and sum(int(s.split("=")[1]) for s in steps) == task.answer, said
    assert all(eval(left) == int(right) for left, right in (s.split("=") for s in steps))
  assert turns(tool_tasks.products(size=9, tool="c", tool_share=1.0))[0][-2].startswith("<c>")
  assert len(tool_tasks.products(size=9, digits=1, test_share=0.3)[0].prompt) == 4
  assert tool_tasks.products(size=9, seed=1)[0].prompt != tool_tasks.products(size=9)[0].prompt


@pytest.mark.parametrize("make", [
    lambda **k: tool_tasks.products(digits=2, **k), lambda **k: tool_tasks.facts(hops=1, **k)])
def test_splits_do_not_meet(make):
  train = {t.prompt for t in make(size=400, test_share=0.3)}
  test = {t.prompt for t in make(size=400, test_share=0.3, split="test", seed=5)}
  assert train and test and not train & test


def test_facts_stand_in_the_corpus_and_add_up():
  by_id = {p["id"]: p for p in tool_tasks.fact_passages(entities=10, relations=2)}
  assert len(by_id) == 20
  tasks = tool_tasks.facts(entities=10, relations=2, size=100)
  for t in tasks:
    values = [int(re.search(r"is (\d+)", by_id[g]["text"])[1]) for g in t.info["gold"]]
    assert t.answer == sum(values) and len(values) == 2
    if len(t.info["turns"]) == 3:
      assert verify.number(t, "".join(t.info["turns"])) == 1
  guessed = sum(len(x) == 1 for x in turns(tasks)) / 100
  assert 0.15 < guessed < 0.45
  assert all(len(x) == 1 for x in turns(tool_tasks.facts(size=9, guess_share=1.0)))
  other = tool_tasks.fact_passages(entities=10, relations=2, world=1)
  assert [p["text"] for p in other] != [p["text"] for p in by_id.values()]


def test_refusals():
  with pytest.raises(ValueError, match="hops"):
    tool_tasks.facts(hops=3)
  with pytest.raises(ValueError, match="entities"):
    tool_tasks.fact_passages(entities=1000)
