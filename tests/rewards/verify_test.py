"""Verifiers and the rewards that call them."""

import logging
import math
import time

import numpy as np
import pytest

from rljax import config
from rljax.data import tasks
from rljax.rewards import run, verify
from rljax.rewards import text as text_rewards
from rljax.types import Episode, Task, Turn

HOSTILE = ["9" * 100_000, "10**9**9", "9^9^9^9", "(" * 50_000, "-" * 50_000, "1+" * 50_000,
           "\\boxed{" * 9_000, "<answer>" * 9_000, "1,111" * 20_000, "1e999999999", "1/0", "\x00",
           "٣", "####" * 9_000, "\\frac{" * 9_000, "nan", "inf", "-inf", "\ud800"]


def episode(answer, text, verifier="rljax.rewards.verify:number", info=None):
  task = Task(id="t", prompt="p", answer=answer, verifier=verifier, info=info or {})
  none = np.zeros(0, np.int32)
  return Episode(task, (Turn("user", none, text="ignored 7"), Turn("assistant", none, text=text)))


def task(answer, info=None):
  return Task(id="t", prompt="p", answer=answer, info=info or {})


def test_exact():
  assert verify.exact(task("0579"), " 0579\n") == 1
  assert verify.exact(task("0579"), "579") == 0
  assert verify.exact(task(5), "5") == 1
  with pytest.raises(ValueError, match="has no answer"):
    verify.exact(task(None), "None")


@pytest.mark.parametrize("text, answer", [
    ("42", 42), ("The sum is 3+4 = 7.", 7), ("so x = -5", -5), ("3-5", 5), ("(4)-3", 3),
    ("it costs $1,234.50 now", "1234.5"), ("-$5", -5), ("3/4", 0.75), ("0.75", "3/4"), ("50%", 50),
    (r"9 but \boxed{7} and 8", 7), (r"\boxed{1} \boxed{2}", 2), (r"\boxed{\frac{3}{4}}", "0.75"),
    (r"\boxed{\text{about } 5 \text{ cm}}", 5), (r"\boxed{1{,}000}", 1000), (r"\boxed{x = {5}}", 5),
    (r"$\boxed{\$12\%}$", 12), ("1\n#### 72\n9", 72), ("####1\n#### 2 apples", 2),
    ("8 <answer> 6 </answer> 9", 6), ("<answer>1</answer><answer>2</answer>", 2), ("1e-2", 0.01),
    ("\u22125", -5), ("2.5.", 2.5), ("1,23", 23), (".5", 0.5), ("007", 7), ("-.5", "-0.5")])
def test_number(text, answer):
  assert verify.number(task(answer), text) == 1
  assert verify.number(task(1009), text) == 0


@pytest.mark.parametrize("text", [
    "", "none", "1/0", "inf", "nan", r"\boxed{5", "5 <answer>5", r"5 \boxed{}", r"\boxed{3 or 5}",
    r"\boxed{\sqrt{5}}", r"\boxed{5^2}", r"\boxed{5\pi}", "5 ####", "5\n#### \n5", "1e999999",
    "5" * 101, "0.3333333", "the answer is 5 or 6", "the answer could be 4 or 5", "4 or 5",
    "the answer is not 5, but 6"])
def test_no_number_or_another(text):
  assert verify.number(task(5), text) == 0
  assert verify.number(task("1/3"), text) == 0


def test_number_looks_at_the_end_only():
  assert verify.number(task(7), "x" * 30_000 + "7") == 1
  assert verify.number(task(7), "7" + "x" * 30_000) == 0


def test_number_needs_an_answer():
  for answer in (None, "seven", float("nan"), True):
    with pytest.raises(ArithmeticError):
      verify.number(task(answer), "7")


ALL = {"numbers": [3, 5, 7, 7], "use_all": True}
SOME = {"numbers": [3, 5, 7, 7], "use_all": False}


@pytest.mark.parametrize("info, text, reward", [
    (ALL, "3*5+7-7", 1), (ALL, " ( 3 * 5 ) + 7 - 7 = 15", 1), (ALL, "3*5", 0), (ALL, "3+5+7", 0),
    (SOME, "3*5", 1),
    (SOME, "5*3=16", 0), (SOME, "5*3=3*5", 0), (SOME, "15", 0), (SOME, "3*3+7-7+5+1", 0),
    (SOME, "7+7+7-3-3", 0), (SOME, "7+3+5", 1), (SOME, "<answer>7+3+5</answer>", 1),
    (SOME, r"\boxed{3\times5}", 1), (SOME, "3×5", 1), (SOME, "3**5", 0), (SOME, "-3*-5", 1),
    (SOME, "35-20", 0), (SOME, "3*5+(7-7)^3", 0), (SOME, "5/(7-7)", 0), (SOME, "", 0),
    (SOME, "3*5 is it", 0), (SOME, "7.0+3+5", 1)])
def test_countdown(info, text, reward):
  assert verify.countdown(task(15, info), text) == reward


def test_countdown_is_exact():
  given = {"numbers": [3, 8, 8, 3], "use_all": True}
  assert verify.countdown(task(24, given), "8/(3-8/3)") == 1
  assert verify.countdown(task(9, {"numbers": [3, 2], "use_all": True}), "3^2") == 0
  assert verify.countdown(task(2, {"numbers": [7, 3], "use_all": True}), "7/3") == 0


@pytest.mark.parametrize("text, reward", [
    ("1 2 2 10", 1), ("[1, 2, 2, 10]", 1), ("1,2,2,10", 1), ("1 2 10", 0), ("2 1 2 10", 0),
    ("1 2 2 10 10", 0), ("1 2 2 x", 0), ("", 0), ("1 2 2 10.0", 0), ("12210", 0)])
def test_sorted_list(text, reward):
  assert verify.sorted_list(task([1, 2, 2, 10]), text) == reward


def test_sorted_digits():
  digits = task([1, 2, 2], {"separator": ""})
  assert verify.sorted_list(digits, "122\n") == 1
  assert verify.sorted_list(digits, "1 2 2") == 0


@pytest.mark.parametrize("text, quality", [
    ("1223", 1.0), ("1 2 2 3\n", 1.0), ("1232", 0.5), ("122", 0.7), ("12234", 0.95), ("", -0.2),
    ("x223", 0.75), ("12231111", 0.8), ("9", -0.15)])
def test_placed_counts_places_and_digits_too_many_or_too_few(text, quality):
  assert verify.placed(task([1, 2, 2, 3]), text) == pytest.approx(quality)


@pytest.mark.parametrize("answer", [[10, 2], "1x", []])
def test_placed_needs_a_list_of_digits(answer):
  with pytest.raises(ValueError, match="list of digits"):
    verify.placed(task(answer), "102")


def test_reasoning_gym_scores_by_its_own_rule():
  ts = tasks.reasoning_gym(name="countdown", size=3, split="test")
  for t in ts:
    assert verify.reasoning_gym(t, f"I think <answer> {t.demo} </answer>.") == 1
    assert 0 <= verify.reasoning_gym(t, "1+1") < 1
  other = Task(id="x", prompt="another question", answer="", info=ts[0].info)
  with pytest.raises(ValueError, match="no longer makes this question"):
    verify.reasoning_gym(other, "1")


@pytest.mark.parametrize("name, answer, info", [
    ("number", 5, {}), ("countdown", 5, SOME), ("sorted_list", [5], {}), ("exact", "5", {}),
    ("sorted_list", [5], {"separator": ""})])
def test_hostile_text_scores_nothing_quickly(name, answer, info):
  verifier = getattr(verify, name)
  for text in HOSTILE:
    start = time.perf_counter()
    assert verifier(task(answer, info), text) == 0
    assert time.perf_counter() - start < 1


# --- rewards --------------------------------------------------------------------------------------


def broken(task, text):
  raise RuntimeError(f"broken by {text}")


def vague(task, text):
  return {"inf": math.inf, "none": None, "part": 0.25}[text]


def test_task_verifier(caplog):
  run._logged.clear()
  here = "tests.rewards.verify_test:"
  ctx = run.Context(step=0, seed=0, tokenizer=None)
  with caplog.at_level(logging.WARNING):
    rewards = verify.task_verifier([
        episode(7, "7"), episode(7, "8"), episode(7, "", here + "broken"),
        episode(7, "again", here + "broken"), episode("seven", "7"), episode(7, "7", ""),
        episode(7, "7", here + "typo"), episode(7, "part", here + "vague"),
        episode(7, "inf", here + "vague"), episode(7, "none", here + "vague")], ctx)
  assert rewards.dtype == np.float32
  nan = math.nan
  np.testing.assert_array_equal(rewards, [1, 0, nan, nan, nan, nan, nan, 0.25, nan, nan])
  assert caplog.text.count("cannot score task") == 1  # the first reason, once
  assert ctx.faults == {"verifier_error": 7}
  assert verify.task_verifier([], None).shape == (0,)


@pytest.mark.parametrize("text, answer, reward", [
    ("4", 4, 1.0), ("3", 4, 1 - 0.5 - 0.125), ("4.5", 4, 1 - 0.25 - 0.0625), ("100", 4, 0.0),
    ("0", 0, 1.0), ("0.5", 0, 0.25), ("-4", 4, 0.0), ("", 4, 0.0), ("nan", 4, 0.0),
    ("inf", 4, 0.0), ("1e300", 4, 0.0), ("1e400", "1e400", 1.0), ("1001", 1000, 0.4995)])
def test_dense_number(text, answer, reward):
  got = verify.dense_number([episode(answer, text)], None)
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, [reward], atol=1e-6)


def test_dense_number_cannot_score_without_an_answer():
  got = verify.dense_number([episode(None, "4"), episode(4, "4")], None)
  np.testing.assert_array_equal(got, [math.nan, 1])
  assert verify.dense_number([], None).shape == (0,)


def test_dense_number_against_the_formula():
  rng = np.random.default_rng(0)
  for a, b in rng.normal(0, 2, size=(50, 2)).round(3):
    want = 1 - 0.5 * min(abs(a - b), 1) - 0.5 * min(abs(a - b) / (abs(b) + 1e-6), 1)
    got = verify.dense_number([episode(float(b), f"so {a}")], None)[0]
    assert abs(got - want) < 1e-5


def test_format_match():
  episodes = [episode(0, t) for t in ("<think>a\nb</think>4", "4", "x<think></think>4")]
  pattern = r"<think>.*</think>[0-9]+"
  np.testing.assert_array_equal(
      text_rewards.format_match(episodes, None, pattern=pattern), np.float32([1, 0, 0]))
  assert text_rewards.format_match([], None, pattern="a").shape == (0,)
  ctx = run.Context(step=0, seed=0, tokenizer=None)
  hang = [episode(0, "a" * 40), episode(0, "b")]
  out = text_rewards.format_match(hang, ctx, pattern="(a+)+b|b", deadline=0.5)
  assert math.isnan(out[0]) and out[1] == 1 and ctx.faults == {"sample_timeout": 1}
  with pytest.raises(config.ConfigError, match="is not a regular expression"):
    text_rewards.format_match(episodes, None, pattern="(")
