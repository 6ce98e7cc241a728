"""A run that is told to leave loses no step, and goes on as if it had not been."""

import os
import signal
import threading

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import main
from rljax.train import checkpoint, loop, preempt
from tests.train import loop_test


def told_at(monkeypatch, step):
  """SIGTERM in the middle of a step."""
  inner = loop.Loop._update

  def update(self, at, *args):
    if at == step:
      os.kill(os.getpid(), signal.SIGTERM)
    return inner(self, at, *args)
  monkeypatch.setattr(loop.Loop, "_update", update)


def test_a_told_run_saves_its_step_and_goes_on(tmp_path, monkeypatch, capsys):
  config = config_lib.load(loop_test.TINY, {"checkpoint.every": 100})
  whole = loop.train(config, str(tmp_path / "whole"), quiet=True)
  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    told_at(patch, 3)
    args = ["--config", loop_test.TINY, "--config.checkpoint.every=100",
            "--workdir", str(tmp_path / "cut")]
    assert main.train(args) == preempt.EXIT_CODE == 143
  assert "SIGTERM: the run ended with a checkpoint of step 4" in capsys.readouterr().err
  assert checkpoint.read_host(str(tmp_path / "cut" / "checkpoints"))[0] == 4
  assert signal.getsignal(signal.SIGTERM) == before
  cut = loop.train(config, str(tmp_path / "cut"), quiet=True)
  assert all(jax.tree.leaves(jax.tree.map(
      np.array_equal, whole["policy"].params, cut["policy"].params)))


def test_told_in_the_last_step_it_just_ends(tmp_path, monkeypatch):
  told_at(monkeypatch, 1)
  loop.train(config_lib.load(loop_test.TINY, {"steps": 2}), str(tmp_path), quiet=True)
  assert loop.read_result(str(tmp_path))["status"] == "done"


def test_a_second_signal_ends_at_once():
  with preempt.notice() as told:
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.reason == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("event, says", [
    ("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")])
def test_what_the_machine_announces(event, says):
  """A server that does not answer, or that announces nothing, ends no run."""
  asked = []

  def ask(name):
    asked.append(name)
    if len(asked) < 4:
      raise OSError("no answer")
    quiet = {"maintenance-event": "NONE", "preempted": "FALSE"}
    return says if name == event and len(asked) > 8 else quiet[name]
  told = preempt.Notice()
  preempt.watch(told, threading.Event(), ask=ask, every=0.0)
  assert told.reason == f"{event} {says}" and len(asked) > 8


def test_other_threads_hear_no_signal():
  seen = []

  def work():
    with preempt.notice() as told:
      seen.append(told.reason)
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [""]
