"""rljax-eval: searches over a real run, graded and drawn."""

import json

import pytest

from rljax import config as config_lib
from rljax import main
from rljax.train import evaluate, loop

TINY = "tests/train/tiny.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("eval") / "run"
  loop.train(config_lib.load(TINY, {"steps": 1}), str(workdir), quiet=True)
  return workdir


def test_searches_of_a_run_against_tokens(folder, capsys):
  args = ["--workdir", str(folder), "--search", "best_of_n,vote,mcts", "--budget", "12",
          "--limit", "4"]
  assert main.evaluate(args) == 0
  out = capsys.readouterr().out
  assert "best_of_n" in out and "search.png" in out
  found = json.loads((folder / "search.json").read_text())
  assert found["problems"] == 4 and set(found["searches"]) == {"best_of_n", "vote", "mcts"}
  for rows in found["searches"].values():
    assert [r["budget"] for r in rows] == [1, 3, 6, 12]
    assert all(r["tokens"] <= r["budget"] and 0 <= r["accuracy"] <= 1 for r in rows)
    tokens = [r["tokens"] for r in rows]
    assert tokens == sorted(tokens) and tokens[-1] > 0
  assert (folder / "search.png").stat().st_size > 1000
  again = (folder / "search.json").read_text()
  assert main.evaluate(args) == 0 and (folder / "search.json").read_text() == again


def test_an_oracle_finds_every_answer_that_was_sampled(folder, monkeypatch):
  """Grading and budgets: with the reference as value, more tokens never solve less."""
  run = evaluate.load("", str(folder), {})
  right = lambda tasks, texts: [float(t.answer == x) for t, x in zip(tasks, texts)]
  monkeypatch.setattr(evaluate, "value_of", lambda run, role: right)
  tasks = [run.evals["test"][i] for i in range(4)]
  rows = evaluate.curves(run, tasks, ["best_of_n"], 1500, value="oracle")["best_of_n"]
  accuracy = [r["accuracy"] for r in rows]
  assert accuracy == sorted(accuracy) and accuracy[-1] > accuracy[0]


@pytest.mark.parametrize("args, message", [
    ([], "say what to evaluate"), (["--search", "astar"], "no 'astar'"),
    (["--problems", "none"], "no set 'none'"), (["--budget", "0"], "a budget of 0"),
    (["--value", "critic"], "no role 'critic'")])
def test_one_clear_error(folder, capsys, args, message):
  where = ["--workdir", str(folder)] if args else []
  assert main.evaluate([*where, *args]) == 2
  assert message in capsys.readouterr().err
