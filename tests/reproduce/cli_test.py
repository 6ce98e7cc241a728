"""The whole command with a trainer of milliseconds: caching, records, kills, listing, errors."""

import fcntl
import io
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from rljax import main as main_lib
from rljax.reproduce import cli, papers, runs
from tests.reproduce import stub

SOURCE = pathlib.Path(__file__).parent / "tiny_paper.py"


@pytest.fixture
def place(tmp_path, monkeypatch):
  (tmp_path / "papers").mkdir()
  shutil.copy(SOURCE, tmp_path / "papers/tiny.py")
  monkeypatch.setattr(papers, "FOLDER", tmp_path / "papers")
  monkeypatch.setattr(papers, "RECORDS", tmp_path / "records")
  monkeypatch.setattr(runs.Job, "command", runs.Job.command)
  stub.use(0.0)
  return tmp_path


def reproduce(place, *args):
  return cli.main([*args, "--results", str(place / "results")])


def test_a_full_run_leaves_all_files_and_a_record(place, capsys):
  assert reproduce(place, "tiny", "--jobs", "4") == 0
  out = capsys.readouterr().out
  assert "**Verdict: reproduced** (2 of 2 relations hold; seeds 0, 1)" in out
  folder = place / "results/tiny"
  assert len(list((folder / "runs").iterdir())) == 4  # the arm that no claim reads is not run
  for name in ("claims.json", "table.md", "plot.png", "cost.json"):
    assert (place / "records/tiny" / name).read_bytes() == (folder / name).read_bytes()
  record = place / "records/tiny.md"
  text = record.read_text()
  assert "0.9 against 0.5" in text and "tiny/plot.png" in text and "Not testable here" in text
  record.write_text(text + "\nWhat was tried: nothing else.\n")
  assert reproduce(place, "tiny") == 0
  captured = capsys.readouterr()
  assert "4 of 4 runs are done already" in captured.err
  assert record.read_text().endswith("What was tried: nothing else.\n")
  assert record.read_text().count("**Verdict") == 1


def test_quick_is_one_seed_elsewhere_and_leaves_no_record(place, capsys):
  assert reproduce(place, "tiny", "--quick") == 0
  assert "quick, seeds 0" in capsys.readouterr().out
  assert (place / "results/tiny/quick/claims.json").exists()
  assert not (place / "records").exists()


def test_some_arms_only_is_incomplete(place, capsys):
  assert reproduce(place, "tiny", "--arms", "low") == 0
  assert "incomplete" in capsys.readouterr().out and not (place / "records").exists()


def test_a_changed_config_runs_again(place, capsys):
  assert reproduce(place, "tiny", "--seeds", "1", "--arms", "low") == 0
  path = place / "papers/tiny.py"
  path.write_text(path.read_text().replace("{\"prompts\": 8}", "{\"prompts\": 16}"))
  from rljax import config as config_lib
  config_lib.load_file.cache_clear()
  capsys.readouterr()
  assert reproduce(place, "tiny", "--seeds", "1", "--arms", "low") == 0
  assert "done already" not in capsys.readouterr().err


def test_list_all_and_index(place, capsys):
  assert reproduce(place, "--list") == 0
  assert "not run yet" in capsys.readouterr().out
  assert reproduce(place, "--all", "--quick") == 0
  assert "reproduced (quick)  2/2" in capsys.readouterr().out
  assert reproduce(place, "--all") == 0
  assert "reproduced  2/2" in capsys.readouterr().out
  assert main_lib.report([str(place / "results")]) == 0
  page = (place / "results/index.html").read_text()
  assert page.count("data:image/png;base64,") == 2 and "full is higher" in page


def test_errors_are_one_sentence(place, capsys, monkeypatch):
  assert reproduce(place, "tinny") == 2
  assert "did you mean 'tiny'" in capsys.readouterr().err
  assert reproduce(place, "tiny", "--arms", "unread") == 2
  assert "no claim reads an arm 'unread'" in capsys.readouterr().err
  monkeypatch.setenv("RLJAX_STUB", "fails")
  assert reproduce(place, "tiny") == 2
  err = capsys.readouterr().err
  assert "4 of 4 runs failed" in err and "this trainer fails" in err
  assert "full seed 0 ended with code 1" in err and "low seed 1 ended with code 1" in err


def test_one_failing_run_or_paper_does_not_stop_the_others(place, capsys, monkeypatch):
  monkeypatch.setenv("RLJAX_STUB", "fails low")
  assert reproduce(place, "tiny", "--seeds", "1") == 2
  assert "1 of 2 runs failed" in capsys.readouterr().err
  monkeypatch.delenv("RLJAX_STUB")
  (place / "papers/broken.py").write_text("PAPER = {}")
  assert reproduce(place, "--all") == 2
  out, err = capsys.readouterr()
  assert "broken: " in err and "has no CLAIMS" in err and "1 of 4 runs are done already" in err
  assert (place / "records/tiny.md").exists()


@pytest.mark.parametrize("change, message", [
    ({"relation": "=="}, "relation is one of"), ({"than": "lwo"}, "did you mean 'low'"),
    ({"kind": "x"}, "kind is one of"), ({"metrics": 1}, "did you mean 'metric'")])
def test_claims_are_checked(place, capsys, change, message):
  path = place / "papers/tiny.py"
  path.write_text(path.read_text() + f"\nCLAIMS[0].update({change!r})\n")
  assert reproduce(place, "tiny") == 2
  assert message in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_it_continues_to_the_same_claims(place):
  """SIGKILL to the command alone: its trainer lives on, and nobody writes beside it."""
  def start(results):
    return subprocess.Popen(
        [sys.executable, stub.SELF, "0.15", str(place), "tiny", "--results", str(results)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        cwd=pathlib.Path(stub.SELF).parents[2], env={**os.environ, "JAX_PLATFORMS": "cpu"})
  whole = place / "whole"
  assert start(whole).wait(120) == 0
  killed = place / "killed"
  for lines in (2, 8):
    process = start(killed)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and sum(
        len(p.read_text().splitlines()) for p in killed.glob("tiny/runs/*/metrics.jsonl")) < lines:
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "tiny/claims.json").exists()
  last = start(killed)
  _, err = last.communicate(timeout=120)
  assert last.returncode == 0, err
  for path in killed.glob("tiny/runs/*/metrics.jsonl"):
    steps = [line.split(",")[0] for line in path.read_text().splitlines()]
    assert len(steps) == len(set(steps)) == 6  # nobody else wrote into it
  assert (killed / "tiny/claims.json").read_bytes() == (whole / "tiny/claims.json").read_bytes()


def test_a_folder_that_another_process_writes_is_waited_for(place):
  job = runs.plan(papers.load("tiny"), place / "runs", ["low"], [0], quick=True)[0]
  job.workdir.mkdir(parents=True)
  with open(job.workdir / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    out = io.StringIO()
    waiter = threading.Thread(target=runs.run_all, args=([job],), kwargs={"stream": out})
    waiter.start()
    time.sleep(0.5)
    assert "waiting for a process" in out.getvalue() and job.result() is None
  waiter.join(20)
  assert job.result() is not None
