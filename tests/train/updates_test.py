"""Several updates: each on episodes of its own making, each at its own cadence."""

import json

import jax
import numpy as np

from rljax.config import fn
from rljax.train import loop
from tests.train import loop_test


def run(workdir, **overrides):
  states = loop.train(loop_test.load(eval__every=0, **overrides), str(workdir), quiet=True)
  return states["policy"], loop_test.metrics(workdir), json.loads(
      (workdir / "result.json").read_text())


def test_an_update_runs_at_every_so_many_th_step(tmp_path):
  state, rows, _ = run(tmp_path / "two", updates__policy__every=2)
  assert [r["step"] for r in rows if "loss/total" in r] == [1, 3, 5]
  assert int(state.step) == 6  # two minibatches at each
  never, rows, _ = run(tmp_path / "never", updates__policy__every=0, steps=2)
  assert int(never.step) == 0 and not any("loss/total" in r for r in rows)
  assert all("reward/mean" in r for r in rows[:2])


def test_an_update_trains_on_what_it_derives(tmp_path):
  """Two of sixteen episodes, whose faults are counted and which still are one step's work."""
  derived = dict(updates__policy__derive=fn("tests/train/tiny_rewards.py:first_two"), steps=2,
                 updates__policy__minibatches=1)
  a, rows, result = run(tmp_path / "a", **derived)
  assert result["faults"] == {"derived": 2} and rows[0]["faults/derived"] == 1
  b, _, _ = run(tmp_path / "b", steps=2, updates__policy__minibatches=1)
  assert any(np.abs(x - y).max() > 1e-6 for x, y in zip(
      jax.tree.leaves(a.params), jax.tree.leaves(b.params)))
