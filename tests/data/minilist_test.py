"""MiniList: every operation by hand, problems, verifiers, proposals."""

import pytest

from rljax import types
from rljax.data import minilist

BY_HAND = {
    "inc": {"390": "401"}, "dec": {"310": "209"}, "dbl": {"395": "680"},
    "rev": {"314": "413", "7": "7"}, "srt": {"314": "134"}, "tail": {"314": "14", "7": "7"},
    "head2": {"314": "31", "7": "7"}, "dup": {"314": "3314"}, "swp": {"3145": "5143", "7": "7"},
    "cum": {"3149": "3487"}}


@pytest.mark.parametrize("op", minilist.OPS)
def test_operations_by_hand(op):
  for given, wanted in BY_HAND[op].items():
    assert minilist.run(op, given) == wanted


def test_programs_run_from_left_to_right():
  assert minilist.run("dblrev", "314") == "826" and minilist.run("revdbl", "319") == "826"
  assert minilist.run("tailhead2dup", "3145") == "114"
  assert minilist.steps("tailhead2dup") == ["tail", "head2", "dup"]
  for bad in ("", "dbl.rev", "incincincinc", "foo", "inc "):
    assert minilist.steps(bad) == []
    with pytest.raises(ValueError, match="cannot run"):
      minilist.run(bad, "1")
  for bad in ("", "12345", "1a", "-1"):
    with pytest.raises(ValueError, match="cannot run"):
      minilist.run("inc", bad)


def test_deduction():
  t = minilist.problem("deduction", "dblrev", ["314"])
  assert (t.prompt, t.answer, t.info["ops"]) == ("Ddblrev|314>", "826", 2)
  assert [minilist.verify(t, x) for x in ("826", "0826", "82", "", "dbl")] == [1, 0, 0, 0, 0]


def test_abduction_executes():
  t = minilist.problem("abduction", "head2dup", ["3145"])
  assert t.prompt == "Ahead2dup>331|"
  assert [minilist.verify(t, x) for x in ("3145", "31", "310")] == [1, 1, 1]  # any such input
  assert [minilist.verify(t, x) for x in ("13", "31451", "331|", "")] == [0, 0, 0, 0]


def test_induction_is_judged_by_the_hidden_pairs():
  inputs = ["12", "21", "3", "123", "45", "99"]
  t = minilist.problem("induction", "srtrev", inputs)
  assert t.prompt == "I12>21;21>21;3>3;"
  assert minilist.verify(t, "srtrev") == 1 and minilist.verify(t, "revsrtrev") == 1
  assert minilist.verify(t, "srt") == 0 and minilist.verify(t, "12") == 0
  shown = minilist.problem("induction", "rev", ["1", "2", "3", "11", "22", "7"])
  assert minilist.verify(shown, "inc") == 0 and minilist.verify(shown, "srt") == 1  # all hidden fit


def test_proposals_become_problems_or_nothing():
  ask = types.Task("r", "PD", info={"kind": "deduction"})
  made = minilist.validate(ask, "dblrev|314")
  assert made.prompt == "Ddblrev|314>" and made.info["kind"] == "deduction"
  for bad in ("dblrev", "dblrev|", "|314", "dblrev|31415", "dblrev|314>826", "incincincinc|1", ""):
    assert minilist.validate(ask, bad) is None, bad
  ask = types.Task("r", "PIrev|", info={"kind": "induction", "program": "rev"})
  made = minilist.validate(ask, "1;2;3;4;5;67")
  assert made.info["program"] == "rev" and made.info["inputs"][-1] == "67"
  for bad in ("1;2;3;4;5", "1;2;3;4;5;5", "1;2;3;4;5;", "1;2;3;4;5;67890", "rev|1"):
    assert minilist.validate(ask, bad) is None, bad
  assert minilist.validate(ask, "1;2", pairs=2)


def test_task_sets():
  some = list(minilist.problems(size=200, ops=(1,)))
  assert {t.info["kind"] for t in some} == set(minilist.KINDS)
  assert {t.info["ops"] for t in some} == {1}
  assert all(minilist.verify(t, t.demo) == 1 and minilist.formatted(t, t.demo) for t in some)
  test = {t.prompt for t in minilist.problems(size=200, ops=(1,), split="test", seed=3)}
  assert not test & {t.prompt for t in some}
  words = minilist.words()
  longest = 0
  for i in range(300):
    t = minilist.proposals()[i]
    info = {**t.info, "program": t.prompt[2:-1]}
    assert minilist.validate(types.Task("r", "", info=info), t.demo), t.demo
    assert words.decode(words.encode(t.prompt + t.demo)) == t.prompt + t.demo
    longest = max(longest, len(words.encode(t.prompt)))
  assert 30 < longest <= 56
  asked = list(minilist.requests(kinds=("deduction", "induction")))
  assert [(t.info["kind"], t.info["solve"]) for t in asked] == [
      ("deduction", False), ("deduction", True), ("induction", False), ("induction", True)]
