"""Maths answers: no wrong one is accepted, hardly a right one refused, and none hangs the run."""

import json
import os
import pathlib
import time

import pytest

from rljax.rewards import math, math_text, pool, verify
from rljax.types import Task
from tests.rewards import answer_cases

NAME = "rljax.rewards.math:answer"


def task(answer):
  return Task(id="t", prompt="p", answer=answer)


def judge(pairs, deadline=10.0):
  """Outcomes of (gold, response) pairs, by the pool that a run uses."""
  return pool.shared().map(NAME, [(task(g), t) for g, t in pairs], deadline=deadline)


def test_written_answers():
  cases = answer_cases.CASES
  assert len(cases) >= 300
  outcomes = judge([(gold, text) for gold, text, _ in cases])
  accepted = [(g, t[:60]) for (g, t, right), o in zip(cases, outcomes) if not right and o.value]
  refused = [(g, t[:60]) for (g, t, right), o in zip(cases, outcomes) if right and o.value != 1]
  late = [(g, t[:60]) for (g, t, _), o in zip(cases, outcomes) if o.status != "ok"]
  assert not accepted
  assert not late
  assert len(refused) <= 0.02 * sum(right for *_, right in cases), refused


def test_text_after_units_and_layout():
  assert math_text.take_unit(math_text.normalise("5\\,\\text{cm}^2")) == ("5", "cm 2")
  assert math_text.take_unit("5 million") == ("5 million", "")
  assert math_text.normalise("$1,234{,}567\\dfrac12$") == "1234567\\frac{1}{2}"
  assert math_text.split_top("(1,2),[3,4)", (",",)) == ["(1,2)", "[3,4)"]


def test_a_task_without_an_answer_is_an_error():
  for gold in (None, "", " "):
    with pytest.raises(ValueError, match="has no answer"):
      math.answer(task(gold), "5")


def rows_of(variable, pattern):
  folder = os.environ.get(variable)
  if not folder:
    pytest.skip(f"{variable} is not set: a folder with {pattern}")
  return sorted(pathlib.Path(folder).glob(pattern))


def test_gsm8k_references_verify_themselves():
  rows = [json.loads(line) for path in rows_of("RLJAX_GSM8K", "*.jsonl")
          for line in path.read_text().splitlines()]
  assert rows
  for row in rows:
    gold = row["answer"].rpartition("####")[2].strip()
    assert verify.number(task(gold), row["answer"]) == 1
    assert math.answer(task(gold), row["answer"]) == 1
    assert verify.number(task(gold), f"#### {gold}1") == 0


def test_math_answers_verify_themselves():
  pq = pytest.importorskip("pyarrow.parquet")
  golds = [x for path in rows_of("RLJAX_MATH_PAIRS", "*.parquet")
           for x in pq.read_table(path)["solution"].to_pylist() if x.strip()]
  assert golds
  start = time.monotonic()
  out = judge([(g, "Hence \\boxed{" + g + "}.") for g in golds])
  assert [g for g, o in zip(golds, out) if o.value != 1] == []
  assert time.monotonic() - start < 60
