"""Procedural tasks: right answers, disjoint splits, stable ids, and clear refusals."""

import inspect
import sys
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from rljax import config
from rljax.data import arithmetic, chains, tasks
from rljax.rewards import verify

GENERATORS = {
    "addition": (tasks.addition, {}),
    "addition_padded": (tasks.addition, {"pad": True, "digits": 2}),
    "modular": (tasks.modular, {}),
    "compare": (tasks.compare, {}),
    "sorting": (tasks.sorting, {"low": -5, "high": 12}),
    "sorting_digits": (tasks.sorting, {"separator": ""}),
    "reverse": (tasks.strings, {}),
    "copy": (tasks.strings, {"how": "copy"}),
    "chain": (tasks.arithmetic_chain, {}),
    "chain_forms": (tasks.arithmetic_chain,
                    {"low": -3, "forms": ("integer", "fraction", "square", "cube"),
                     "min_steps": 1, "steps": 5}),
    "running": (chains.running, {}),
    "running_many": (chains.running, {"steps": 6, "min_steps": 2, "operators": "+-*"}),
    "countdown": (tasks.countdown, {}),
    "countdown_some": (tasks.countdown, {"numbers": 4, "use_all": False}),
    "gym": (tasks.reasoning_gym, {"name": "chain_sum", "config": {
        "min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}}),  # 162 questions
}
EVERY = pytest.mark.parametrize("name", list(GENERATORS))


def make(name, **kwargs):
  function, fixed = GENERATORS[name]
  return function(**{"size": 50, **fixed, **kwargs})


def check(task, text):
  return config.resolve(task.verifier)(task, text)


@EVERY
@hypothesis.settings(max_examples=5, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**40), split=st.sampled_from(["train", "test"]),
                  i=st.integers(0, 49))
def test_demo_verifies_and_other_text_does_not(name, seed, split, i):
  task = make(name, seed=seed, split=split)[i]
  assert check(task, task.demo) == 1
  for text in ("", "none of it", task.demo + "1", "9" * 30000):
    assert check(task, text) < 1


@EVERY
def test_splits_share_nothing_whatever_the_seed(name):
  train = {t.prompt for seed in range(3) for t in make(name, seed=seed, size=40)}
  test = {t.prompt for seed in range(3) for t in make(name, seed=seed, size=10, split="test")}
  assert len(train) > 10 and len(test) > 3
  assert not train & test


@EVERY
def test_a_task_is_a_function_of_its_index(name):
  ts, again = make(name), make(name)
  assert len(ts) == 50 and len({t.id for t in ts}) == 50
  assert [ts[i].prompt for i in (7, 3)] == [t.prompt for t in (list(again)[7], again[3])]
  assert ts[-1].id == ts[49].id and [t.id for t in ts[2:4]] == [ts[2].id, ts[3].id]
  with pytest.raises(IndexError):
    ts[50]
  assert [t.prompt for t in ts] != [t.prompt for t in make(name, seed=1)]
  assert make(name, size=60)[5].prompt == ts[5].prompt or name == "gym"


@EVERY
@pytest.mark.parametrize("kwargs, message", [
    ({"size": 0}, "size must be at least 1, found 0"),
    ({"split": "dev"}, "split must be 'train' or 'test', found 'dev'"),
    ({"split": "test", "test_share": 0.0}, "split 'test' has no problems"),
    ({"split": "train", "test_share": 1.0}, "split 'train' has no problems"),
    ({"test_share": 1.5}, "test_share must lie between 0 and 1"),
    ({"template": "same for all"}, "lacks {"),
])
def test_refusals_of_all(name, kwargs, message):
  with pytest.raises(ValueError, match=message):
    make(name, **kwargs)


@pytest.mark.parametrize("function, kwargs, message", [
    (tasks.addition, {"digits": 0}, "digits must be at least 1"),
    (tasks.modular, {"modulus": 1}, "modulus must be at least 2"),
    (tasks.modular, {"operators": "/"}, "operators must be some of"),
    (tasks.sorting, {"low": 3, "high": 2}, "high must be at least 3"),
    (tasks.sorting, {"separator": "", "high": 10}, "empty for digits"),
    (tasks.sorting, {"separator": "-"}, "separator must be"),
    (tasks.strings, {"how": "rot13"}, "one of reverse, copy"),
    (tasks.strings, {"length": 2, "min_length": 3}, "length must be at least 3"),
    (tasks.arithmetic_chain, {"forms": ("root",)}, "forms must be some of"),
    (tasks.arithmetic_chain, {"steps": 0}, "at least 1"),
    (tasks.arithmetic_chain, {"low": 0, "high": 0, "operators": "/"}, "no problems"),
    (chains.running, {"steps": 1, "min_steps": 2}, "steps must be at least 2"),
    (chains.running, {"modulus": 11}, "modulus is 2 to 10"),
    (chains.running, {"operators": "/"}, "operators are some of"),
    (tasks.countdown, {"low": 50, "high": 60, "operators": "+", "max_target": 20}, "no problems"),
    (tasks.strings, {"alphabet": "a", "length": 1, "test_share": 1e-6, "split": "test"},
     "split 'test' has no problems"),
    (tasks.reasoning_gym, {"name": "chain_sums"}, "did you mean 'chain_sum'"),
    (tasks.reasoning_gym, {"name": "chain_sum", "config": {"colour": 1}}, "refuses"),
    (tasks.reasoning_gym, {"name": "chain_sum", "config": {"min_terms": 9, "max_terms": 2}},
     "refuses"),
])
def test_refusals(function, kwargs, message):
  with pytest.raises(ValueError, match=message):
    function(**kwargs)


def test_missing_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "reasoning_gym", None)
  tasks.gym_dataset.cache_clear()
  with pytest.raises(ValueError, match="pip install reasoning-gym"):
    tasks.reasoning_gym(name="chain_sum", seed=12345)


def test_answers_by_hand():
  for t in tasks.addition(size=50):
    a, b = t.prompt.rstrip("=").split("+")
    assert t.answer == str(int(a) + int(b)) and not (a + "x").startswith("00")
  for t in tasks.addition(size=50, pad=True, digits=4, template="<{problem}>"):
    assert len(t.prompt) == 11 and len(t.answer) == 5
  for t in tasks.modular(size=50, modulus=13):
    assert str(eval(t.prompt.rstrip("="))) == t.answer
  for t in tasks.compare(size=50):
    a, b = map(int, t.prompt.rstrip("=").split("?"))
    assert t.answer == ("<" if a < b else ">" if a > b else "=")
  assert {t.answer for t in tasks.compare(size=50)} == set("<>=")
  for t in tasks.strings(size=50):
    assert t.answer == t.prompt[-2::-1]
  for t in tasks.sorting(size=50):
    assert sorted(map(int, t.prompt[5:-1].split())) == t.answer
  for t in tasks.reasoning_gym(name="chain_sum", size=5, config={"min_terms": 2, "max_terms": 2}):
    assert t.prompt.count("+") + t.prompt.count(" - ") == 1


def test_running_chains_are_read_from_left_to_right():
  for t in chains.running(size=60, steps=5, min_steps=1, operators="+-*", modulus=7):
    digits, ops = t.prompt[:-1:2], t.prompt[1:-1:2]
    value = int(digits[0])
    for op, digit, shown in zip(ops, digits[1:], t.answer, strict=True):
      value = eval(f"{value}{op}{digit}") % 7
      assert value == int(shown) < 7
    assert t.info["steps"] == len(ops) and t.info["values"] == [int(c) for c in t.answer]


def test_the_values_of_a_running_chain_may_be_told_apart():
  plain, apart = (chains.running(steps=4, separator=s)[3] for s in ("", ";"))
  assert apart.answer == ";".join(plain.answer) == apart.demo and apart.prompt == plain.prompt


def test_operand_order_stays_on_one_side():
  """Every pair of digits: the train set never holds the mirror of a test problem."""
  sides = {s: {frozenset(t.prompt.rstrip("=").split("+"))
               for t in tasks.addition(digits=1, size=300, split=s)} for s in ("train", "test")}
  assert sides["test"] and sides["train"].isdisjoint(sides["test"])


def test_chain_is_exact_and_has_k_steps():
  ts = tasks.arithmetic_chain(steps=4, min_steps=2, size=150, operators="+-*/", low=-2, places=1)
  seen = set()
  for t in ts:
    expression = t.prompt.rstrip("=")
    exact = arithmetic.value(arithmetic.parse(expression))
    assert str(exact) == t.info["exact"]
    assert abs(Fraction(t.answer) - exact) <= Fraction(1, 20)
    assert len(arithmetic.literals(arithmetic.parse(expression))) == t.info["steps"] + 1
    seen.add(t.info["steps"])
  assert seen == {2, 3, 4}
  assert any("." in t.answer for t in ts)


@pytest.mark.parametrize("use_all", [True, False])
def test_countdown_demo_keeps_the_rules(use_all):
  for t in tasks.countdown(size=60, numbers=4, use_all=use_all, max_target=50):
    used = arithmetic.literals(arithmetic.parse(t.demo))
    assert 1 <= t.answer <= 50 and len(used) <= 4
    assert (sorted(used) == sorted(t.info["numbers"])) or not use_all
    assert verify.countdown(t, f"{t.demo}={t.answer}") == 1


def test_template_fills_once():
  assert tasks.fill(r"\boxed{} {b} {a}", {"a": "{b}", "b": "1"}) == r"\boxed{} 1 {b}"


def test_hyperparameters_are_leaves():
  for function in {f for f, _ in GENERATORS.values()}:
    kinds = {p.kind for p in inspect.signature(function).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
  leaf = config.fn("rljax.data.tasks:addition", digits=2, size=3)
  assert len(config.bind(leaf)()) == 3


# --- arithmetic -----------------------------------------------------------------------------------


TREES = st.recursive(
    st.integers(0, 30).map(lambda n: ("num", str(n))),
    lambda t: st.one_of(st.tuples(st.sampled_from("+-*/"), t, t), st.tuples(st.just("neg"), t),
                        st.tuples(st.just("^"), t, st.sampled_from([("num", "2"), ("num", "3")]))),
    max_leaves=8)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(TREES)
def test_render_parses_back(tree):
  text = arithmetic.render(tree)
  assert arithmetic.parse(text) == tree
  assert arithmetic.key(arithmetic.parse(f"({text})")) == arithmetic.key(tree)
  try:
    value = arithmetic.value(tree)
  except ArithmeticError:
    return
  python = eval(_for_python(tree))
  assert python == value


def _for_python(tree):
  if tree[0] == "num":
    return f"Fraction({tree[1]})"
  if tree[0] == "neg":
    return f"(-{_for_python(tree[1])})"
  if tree[0] == "^":
    return f"({_for_python(tree[1])}**{tree[2][1]})"
  return f"({_for_python(tree[1])}{tree[0]}{_for_python(tree[2])})"


@pytest.mark.parametrize("text, plain", [
    (" + .50 * 007", "0.5*7"), ("5.0-(2.)", "5-(2)"), ("1+ +2", "1++2"), ("10", "10")])
def test_tidy(text, plain):
  assert arithmetic.tidy(text) == plain


@pytest.mark.parametrize("bad", [
    "", "+", "1 2", "1..2", "(1", "1)", "1//2", "2**3", "x", "٣", "__import__('os')", "9^9^9",
    "2^-1", "1/0", "1/(2-2)", "(" * 200 + "1" + ")" * 200, "-" * 300 + "1", "1" * 101,
    "1+" * 400 + "1", "((((99^99)^99)^99)^99)", "*".join(["9" * 40] * 12) + "^99"])
def test_bad_expressions_are_refused_quickly(bad):
  with pytest.raises(ArithmeticError):
    arithmetic.value(arithmetic.parse(bad))


@pytest.mark.parametrize("text, value", [
    ("12", 12), ("-1,234.50", Fraction(-2469, 2)), (" 3/4 ", Fraction(3, 4)), ("+5.", 5),
    (".5", Fraction(1, 2)), ("1e-2", Fraction(1, 100)), ("2E3", 2000)])
def test_parse_number(text, value):
  assert arithmetic.parse_number(text) == value
  assert arithmetic.to_fraction(text) == value


@pytest.mark.parametrize("bad", ["", ".", "-", "1,23", "nan", "inf", "1/0", "1/2/3", "0x10", "1_0",
                                 "1e9999999", "9" * 200, "1 2", "--1"])
def test_not_a_number(bad):
  with pytest.raises(ArithmeticError):
    arithmetic.parse_number(bad)


@pytest.mark.parametrize("bad", [None, True, float("nan"), float("inf"), [1]])
def test_answers_that_are_no_number(bad):
  with pytest.raises(ArithmeticError):
    arithmetic.to_fraction(bad)


@pytest.mark.parametrize("x, places, text", [
    (Fraction(1, 3), 2, "0.33"), (Fraction(-1, 400), 2, "0"), (Fraction(5, 1000), None, "0.005"),
    (Fraction(-7, 2), None, "-3.5"), (Fraction(100), None, "100"), (Fraction(1, 8), 2, "0.12"),
    (Fraction(3, 8), 2, "0.38"), (Fraction(1200), 0, "1200")])
def test_decimal_text(x, places, text):
  assert arithmetic.decimal_text(x, places) == text
