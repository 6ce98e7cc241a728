"""Programs against their tests: right ones pass, wrong ones fail, and none can fake it."""

import gzip
import json
import os
import time

import numpy as np
import pytest

from rljax import config, sandbox
from rljax.rewards import code, run
from rljax.types import Episode, Task, Turn
from tests.rewards import attacks

ADD = {"entry": "add", "tests": ["assert add(1, 2) == 3", "assert candidate('a', 'b') == 'ab'"]}
SUM = {"cases": [["1 2\n", "3\n"], ["5 6", "11"]]}
LIMITS = sandbox.Limits(seconds=6, cpu=3)
bubblewrap = pytest.param("required", marks=pytest.mark.skipif(
    not sandbox.describe().startswith("bubblewrap"), reason=sandbox.describe()))
modes = pytest.mark.parametrize("mode", ["rlimit", bubblewrap])
# What resource limits alone do not hold: all processes of a user, and anything for root.
NEED_ISOLATION = {"fork_bomb", "thread_bomb", "kills_all"}
NEED_NO_ROOT = {"reads_parent_memory", "writes_parent_fd", "ptraces_parent", "writes_pid1_fd",
                "reads_the_tests", "kills_and_forges", "copies_a_verdict"}


def statuses(program, tests, **kwargs):
  return [v.status for v in code.run_tests(program, tests, **kwargs)]


def episode(text, tests):
  task = Task("t", "p", info={"code": tests} if tests else {})
  return Episode(task, (Turn("assistant", np.zeros(1, np.int32), text=text),))


@modes
def test_right_and_wrong_programs(mode):
  assert statuses("def add(a, b): return a + b", ADD, mode=mode) == ["pass", "pass"]
  assert statuses("def add(a, b): return 3", ADD, mode=mode) == ["pass", "fail"]
  assert statuses("print(sum(map(int, input().split())))", SUM, mode=mode) == ["pass", "pass"]
  assert statuses("print(3)", SUM, mode=mode) == ["pass", "fail"]
  assert statuses("import sys\nprint(3)\nsys.exit(2)", SUM, mode=mode) == ["error", "error"]


def test_plain_data_crosses_the_wire_unchanged():
  values = [None, True, 1, -(10 ** 4000), 1.5, float("inf"), "s\u20ac\0", b"\xff", 1j, [1, [2]],
            (1,), {1, 2}, frozenset([3]), {"a": (1, None), 2: [True]}, [], {}]
  test = (f"inf = float('inf')\nfor v in {values!r}:\n"
          "  got = f(v)\n  assert got == v and type(got) is type(v), (got, v)")
  assert statuses("def f(x): return x", {"entry": "f", "tests": [test]}) == ["pass"]


def test_exceptions_keywords_methods_and_setup():
  tests = {"entry": ["Box.get", "fail"], "setup": "LIMIT = 5", "prefix": "START = 3\n", "tests": [
      "assert get(1, more=1) == LIMIT and candidate(0) == 3",
      "try:\n  fail()\n  assert False\nexcept ValueError as e:\n  assert str(e) == 'no'"]}
  program = ("class Box:\n  def get(self, x, more=0): return START + x + more\n"
             "def fail(): raise ValueError('no')")
  assert statuses(program, tests) == ["pass", "pass"]


def test_a_hang_costs_its_test():
  start = time.monotonic()
  slow = "import time\nif input() == '1 2': time.sleep(60)\nprint(11)"
  assert statuses(slow, SUM, case_seconds=0.5) == ["timeout", "pass"]
  assert statuses("def add(a, b):\n  while 1: pass", ADD, case_seconds=0.5) == ["timeout"] * 2
  assert time.monotonic() - start < 10


@modes
@pytest.mark.parametrize("name", attacks.PROGRAMS)
def test_no_attack_passes(name, mode):
  if mode == "rlimit" and name in NEED_ISOLATION | (NEED_NO_ROOT if os.getuid() == 0 else set()):
    pytest.skip("only bubblewrap contains this one")
  start = time.monotonic()
  verdicts = statuses(attacks.PROGRAMS[name], ADD, case_seconds=1, limits=LIMITS, mode=mode)
  assert len(verdicts) == 2 and verdicts[1] != "pass"
  assert time.monotonic() - start < 10


HIDDEN = {"writes_pid1_fd", "writes_parent_fd", "reads_parent_memory", "reads_the_tests",
          "kills_and_forges", "copies_a_verdict", "kills_all", "ptraces_parent"}


@pytest.mark.parametrize("mode", [bubblewrap])
@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_an_ordinary_user_is_as_safe(name, mode, monkeypatch):
  """Without root, bubblewrap's processes belong to the same user as the program."""
  monkeypatch.setattr(os, "geteuid", lambda: 1000)
  verdicts = statuses(attacks.PROGRAMS[name], ADD, case_seconds=1, limits=LIMITS, mode=mode)
  assert verdicts[1] != "pass"
  assert statuses("def add(a, b): return a + b", ADD, mode=mode) == ["pass"] * 2


@pytest.mark.parametrize("euid", [0, 1000])
@pytest.mark.parametrize("mode", [bubblewrap])
def test_the_judge_cannot_be_seen(euid, mode, monkeypatch):
  if euid != os.geteuid() != 0:
    pytest.skip("needs root")
  monkeypatch.setattr(os, "geteuid", lambda: euid)
  program = ("import os\ndef add(a, b):\n  for n in ('mem', 'fd/0', 'fd/1', 'environ'):\n"
             "    for p in (1, os.getppid()):\n      try:\n        open(f'/proc/{p}/{n}', 'rb')\n"
             "        return (p, n)\n      except PermissionError:\n        pass\n  return a + b")
  assert code.run_tests(program, ADD, mode=mode) == [code.Verdict("pass")] * 2


def test_there_are_forty_attacks():
  assert len(attacks.PROGRAMS) + len(attacks.ESCAPES) >= 40


@pytest.mark.parametrize("tests", [{}, {"entry": "f"}, {"tests": ["x"]}, {**ADD, **SUM},
                                   {**ADD, "setup": "1/0"}])
def test_tests_that_cannot_judge(tests):
  with pytest.raises(ValueError, match="tests of a program|setup of the tests"):
    code.run_tests("x = 1", tests)


@pytest.mark.parametrize("text, program", [
    ("x = 1", "x = 1"), ("a\n```python\nx\n```\nb\n```\ny\n```", "x\n"), ("```\ny\n```", "y\n"),
    ("```python\na\n```\n```py\nb\n```", "b\n"), ("```python\nx", "```python\nx")])
def test_program_in(text, program):
  assert code.program_in(text) == program


def test_the_reward():
  right = "Here:\n```python\ndef add(a, b): return a + b\n```"
  half = "```python\ndef add(a, b): return 3\n```"
  ctx = run.Context(step=0, seed=0, tokenizer=None)
  episodes = [episode(right, ADD), episode(half, ADD), episode("words", ADD), episode(right, None)]
  np.testing.assert_array_equal(code.unit_tests(episodes, ctx), [1, 0, 0, np.nan])
  assert ctx.faults == {"code_broken": 1}
  np.testing.assert_array_equal(
      code.unit_tests(episodes[:2], None, credit="fraction", mode="rlimit"), [1, 0.5])
  with pytest.raises(config.ConfigError, match="'all' or 'fraction'"):
    code.unit_tests([], ctx, credit="most")
  late = run.Context(step=0, seed=0, tokenizer=None, until=0.0)
  assert np.isnan(code.unit_tests(episodes[:2], late)).all() and late.faults["sample_timeout"] == 2


def test_the_reward_passes_its_limits_on():
  slow = "```python\nimport time\ndef add(a, b):\n  time.sleep(0.6)\n  return a + b\n```"
  assert code.unit_tests([episode(slow, ADD)], None)[0] == 1
  assert code.unit_tests([episode(slow, ADD)], None, case_seconds=0.3)[0] == 0
  assert code.unit_tests([episode(slow, ADD)], None, seconds=1.0)[0] == 0
  big = "```python\nx = bytearray(300 << 20)\ndef add(a, b): return a + b\n```"
  assert code.unit_tests([episode(big, ADD)] * 2, None, workers=1).tolist() == [1, 1]
  assert code.unit_tests([episode(big, ADD)], None, memory_mib=200)[0] == 0


def test_humaneval():
  path = os.environ.get("RLJAX_HUMANEVAL")
  if not path:
    pytest.skip("RLJAX_HUMANEVAL is not set: the path of HumanEval.jsonl.gz")
  with gzip.open(path, "rt") as f:
    rows = [json.loads(line) for line in f]
  tests = lambda r: {"entry": r["entry_point"], "prefix": r["prompt"],
                     "setup": r["prompt"] + "    pass\n",
                     "tests": [r["test"] + f"\ncheck({r['entry_point']})"]}
  answers = lambda body: [episode(body(r), tests(r)) for r in rows]
  right = code.unit_tests(answers(lambda r: r["canonical_solution"]), None, case_seconds=10,
                          seconds=30)
  wrong = code.unit_tests(answers(lambda r: "    return None\n"), None, case_seconds=10)
  assert right.tolist() == [1] * 164 and wrong.tolist() == [0] * 164
