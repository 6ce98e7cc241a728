"""The classic loop as a user meets it: the run folder, resuming, several learners, refusals."""

import json
import pathlib

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import main, recipes
from rljax.classic import loop as classic_loop
from rljax.config import ConfigError, fn
from rljax.train import build, checkpoint, loop
from tests.train import build_test
from tests.train import loop_test as lm_loop_test

TINY = "tests/classic/tiny.py"


def load(spec=TINY, **changes):
  return config_lib.load(spec, {k.replace("__", "."): v for k, v in changes.items()})


def checksums(workdir):
  return checkpoint.read_host(str(pathlib.Path(workdir) / "checkpoints"))[1]["checksums"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  workdir = str(tmp_path_factory.mktemp("runs") / "whole")
  return workdir, loop.train(load(), workdir, quiet=True)


def test_run_folder(finished):
  workdir, state = finished
  result = json.loads((pathlib.Path(workdir) / "result.json").read_text())
  assert result["status"] == "done" and result["steps"] == 6
  assert result["frames"] == 6 * 5 * 2 * 6 and result["frames_per_second"] > 0
  assert {"return", "share"} == set(result["eval"]["after"]["exact"])
  assert {"return", "length"} == set(result["eval"]["after"]["play"])
  rows = lm_loop_test.metrics(workdir)
  assert [r["step"] for r in rows] == list(range(7))
  assert {"loss/total", "reward/mean", "grad/norm", "policy/entropy"} <= set(rows[0])
  assert "eval/exact/return" in rows[3] and "eval/exact/return" not in rows[2]
  assert int(state["policy"].step) == 30


@pytest.mark.parametrize("spec", [
    TINY, *(pytest.param(f"{TINY}:{arm}", marks=pytest.mark.slow) for arm in ("q", "pool"))])
def test_a_run_in_pieces_is_the_whole_run(spec, tmp_path):
  """Bit for bit: weights, replay and environments (all checksums) and the metrics."""
  loop.train(load(spec), str(tmp_path / "whole"), quiet=True)
  for steps in (1, 4, 6):
    loop.train(load(spec, steps=steps), str(tmp_path / "pieces"), quiet=True)
  assert checksums(tmp_path / "whole") == checksums(tmp_path / "pieces")
  whole, pieces = (lm_loop_test.metrics(str(tmp_path / n)) for n in ("whole", "pieces"))
  assert whole == pieces


def test_a_run_that_died_between_checkpoints_goes_on(finished, tmp_path, monkeypatch):
  inner = classic_loop.Loop.step

  def dying(self, step):
    if step == 5:
      raise RuntimeError("killed")
    return inner(self, step)

  monkeypatch.setattr(classic_loop.Loop, "step", dying)
  with pytest.raises(RuntimeError):
    loop.train(load(), str(tmp_path), quiet=True)  # the last checkpoint is that of step 4
  monkeypatch.setattr(classic_loop.Loop, "step", inner)
  loop.train(load(), str(tmp_path), quiet=True)
  assert checksums(tmp_path) == checksums(finished[0])
  assert lm_loop_test.metrics(str(tmp_path)) == lm_loop_test.metrics(finished[0])


def test_learners_side_by_side_are_different_and_the_first_is_the_single_one(finished, tmp_path):
  pool = loop.train(load(seeds=3), str(tmp_path), quiet=True)
  tables = np.asarray(pool["policy"].params)
  assert tables.shape[0] == 3
  np.testing.assert_allclose(tables[0], finished[1]["policy"].params, atol=1e-5)
  assert np.abs(tables[0] - tables[1]).max() > 1e-3
  both = [r["eval/exact/return"] for r in lm_loop_test.metrics(str(tmp_path))
          if "eval/exact/return" in r]
  assert np.isfinite(both).all()


def test_the_seed_changes_the_run(finished, tmp_path):
  other = loop.train(load(seed=1), str(tmp_path), quiet=True)
  assert np.abs(np.asarray(other["policy"].params - finished[1]["policy"].params)).max() > 1e-3


# key -> where it is flipped
KNOBS = {
    "loop": "every test", "name": "the report", "seed": "test_the_seed_changes_the_run",
    "seeds": "test_learners_side_by_side", "steps": "test_a_run_in_pieces_is_the_whole_run",
    "chunk": "test_chunk", "env": "tiny.py:q", "agent": "tiny.py:q",
    "eval.every": "test_run_folder",
    "checkpoint.every": "tests/train/build_test.py", "checkpoint.keep": "tests/train/build_test.py",
    "checkpoint.folder": "tests/train/build_test.py"}


def test_no_key_is_forgotten():
  assert set(build_test.leaf_keys(recipes.classic())) == set(KNOBS)


def test_chunk():
  run = classic_loop.build(load(chunk=7))
  states = jax.eval_shape(run.chunk, jax.eval_shape(run.init, run.keys("a")), run.keys("b"))[0]
  assert states["policy"].step.shape == ()
  state = run.chunk(run.init(run.keys("init")), run.keys("chunk", 0))[0]
  assert int(state["policy"].step) == 7


def test_the_command_trains_reports_and_prints(tmp_path, capsys):
  assert main.train(["--config", TINY, "--workdir", str(tmp_path), "--config.steps=1"]) == 0
  out = capsys.readouterr().out
  assert "exact return" in out and "environment steps/s" in out
  assert "reward/mean" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("changes, says", [
    ({"seeds": 0}, "config.seeds=0: at least 1"),
    ({"env": fn("rljax.classic.worlds:gird")}, "did you mean 'grid'"),
    ({"agent__optimizer__lr": 1, "agent__epsiodes": 3}, "did you mean 'agent.episodes'")])
def test_refusals(changes, says, tmp_path):
  with pytest.raises(ConfigError, match=says):
    loop.train(load(**changes), str(tmp_path), quiet=True)


def test_what_is_for_language_models_says_so():
  with pytest.raises(ConfigError, match="a loop of its own .rljax.classic.loop:train."):
    build.build(load())


def test_several_hosts_are_refused(tmp_path):
  hosts = type("Hosts", (), {"count": 2, "main": True})()
  with pytest.raises(ConfigError, match="one process"):
    classic_loop.train(load(), str(tmp_path), hosts=hosts)
