"""Several updates: each on episodes of its own making, each at its own cadence."""

import functools
import json

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.config import ConfigError, fn
from rljax.objectives import pg, preference, reward_model
from rljax.train import build, loop
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


@pytest.mark.slow
def test_an_update_trains_on_what_it_derives(tmp_path):
  """Two of sixteen episodes, whose faults are counted and which still are one step's work."""
  derived = dict(updates__policy__derive=fn("tests/train/tiny_rewards.py:first_two"), steps=2,
                 updates__policy__minibatches=1)
  a, rows, result = run(tmp_path / "a", **derived)
  assert result["faults"] == {"derived": 2} and rows[0]["faults/derived"] == 1
  b, _, _ = run(tmp_path / "b", steps=2, updates__policy__minibatches=1)
  assert any(np.abs(x - y).max() > 1e-6 for x, y in zip(
      jax.tree.leaves(a.params), jax.tree.leaves(b.params)))


def test_minibatches_keep_pairs_together(tmp_path):
  _, rows, _ = run(
      tmp_path, select=fn("rljax.data.pairs:best_worst"), steps=3, updates__policy__epochs=2,
      updates__policy__objective=fn("tests/train/tiny_rewards.py:pairs_of_one_prompt"))
  trained = [r for r in rows if "same" in r]
  assert trained and all(r["same"] == 1.0 for r in trained)


@pytest.mark.parametrize("objective, unit", [
    (pg.grpo, 1), (preference.sppo, 1), (reward_model.bce, 1), (preference.dpo, 2),
    (preference.orpo, 2), (preference.selm, 3), (reward_model.bradley_terry, 2),
    (functools.partial(preference.kto, group=3), 6),
    (functools.partial(preference.kto, group=0), 1),
    (functools.partial(reward_model.all_pairs, size=5), 5), (lambda stats, batch: None, 1)])
def test_how_many_rows_an_objective_reads_together(objective, unit):
  assert types.unit_of(objective) == unit


def test_without_an_episode_an_update_is_skipped_and_counted(tmp_path):
  """An objective may read columns that only episodes bring; followers keep their cadence."""
  state, rows, result = run(
      tmp_path, select=fn("rljax.data.pairs:best_worst", min_chosen=99.0), steps=2,
      updates__policy__objective=fn("rljax.objectives.preference:sppo"))
  assert [r["update/skipped"] for r in rows[:2]] == [1.0, 1.0] and result["skipped_updates"] == 2
  assert int(state.step) == 0 and "loss/total" not in rows[0]


@pytest.mark.slow
def test_a_copy_follows_at_its_own_cadence(tmp_path):
  """decay=0, every=3: the policy as it was after the steps 2 and 5, whatever the updates do."""
  def after(steps):
    config = loop_test.load(
        steps=steps, eval__every=0, roles__teacher__decay=0.0, roles__teacher__every=3)
    states = loop.train(config, str(tmp_path / str(steps)), quiet=True)
    return states["policy"].params, states["teacher"], states["ref"]
  equal = lambda a, b: all(np.array_equal(x, y) for x, y in zip(
      jax.tree.leaves(a), jax.tree.leaves(b)))
  (_, start, ref), (third, copy, _) = after(2), after(3)
  assert equal(start, ref) and equal(copy, third) and not equal(copy, ref)
  last, kept, _ = after(5)
  assert equal(kept, third) and not equal(last, third)


def test_a_cadence_below_one_is_refused():
  with pytest.raises(ConfigError, match="roles.teacher.every: at least 1"):
    build.build(loop_test.load(roles__teacher__every=0))


@pytest.mark.slow
def test_memories_ask_models_and_are_logged_and_resumed(tmp_path):
  """CYC: the exact mixture of the iterates, the same after an interruption."""
  load = lambda **k: config_lib.load("configs/papers/sppo.py:cyc,runlocal", {"steps": 3, **k})
  loop.train(load(), str(tmp_path / "whole"), quiet=True)
  loop.train(load(steps=1), str(tmp_path / "cut"), quiet=True)
  loop.train(load(), str(tmp_path / "cut"), quiet=True)
  rows = loop_test.metrics(tmp_path / "whole")[:3]
  assert rows == loop_test.metrics(tmp_path / "cut")[:3]
  assert all(0 <= r["mixture/exploitability"] <= 0.5 and r["mixture/outside"] > 0 for r in rows)
  assert rows[0]["mixture/exploitability"] == rows[0]["mixture/last_exploitability"]
