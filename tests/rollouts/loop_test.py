"""Self-play through the whole loop: sampler equals trainer, baselines survive a kill."""

import json
import types as types_lib

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.train import loop

CONFIG = "tests/rollouts/selfplay_config.py"


def lines(folder):
  return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_selfplay_resumes_bit_for_bit_with_its_baselines(tmp_path):
  whole = loop.train(config_lib.load(CONFIG), str(tmp_path / "whole"), quiet=True)
  loop.train(config_lib.load(CONFIG, {"steps": 2}), str(tmp_path / "cut"), quiet=True)
  cut = loop.train(config_lib.load(CONFIG), str(tmp_path / "cut"), quiet=True)
  same = jax.tree.map(np.array_equal, whole["policy"].params, cut["policy"].params)
  assert all(jax.tree.leaves(same))
  rows = lines(tmp_path / "whole")
  assert [r["reward/mean"] for r in rows] == [r["reward/mean"] for r in lines(tmp_path / "cut")]
  # What was sampled over several turns is what the trainer sees: same tokens, same positions.
  assert all(r["mismatch/max"] < 1e-4 for r in rows)
  assert all(r["episode/turns"] == 2.0 for r in rows)
  assert all(0.0 <= r["curriculum/inside"] <= 1.0 for r in rows)
  states = [json.loads(p.read_text())["memories"]["baselines"]
            for p in sorted((tmp_path / "cut").glob("checkpoints/3/host/*"))
            if p.read_text().startswith("{") and "memories" in p.read_text()]
  assert states and set(states[0]) == {"patient/0", "patient/1"}
  assert all(v != 0.0 for v in states[0].values())


def test_an_update_may_read_one_roles_episodes(monkeypatch):
  class Collated(Exception):
    pass

  def collate(episodes, **_):
    raise Collated([e.info.get("role") for e in episodes])
  monkeypatch.setattr(loop.collate, "collate", collate)
  task = types.Task("t", "")
  episodes = [types.Episode(task, (), info=i) for i in ({"role": "a"}, {"role": "b"}, {})]
  space = types_lib.SimpleNamespace
  runner = object.__new__(loop.Loop)
  runner.r = space(roles=space(owner=lambda name: name), tokenizer=space(pad_id=0))
  for speaker, read in (("a", ["a"]), ("policy", [None]), ("", ["a", "b", None])):
    update = space(role="policy", speaker=speaker, shapes=None, discount=1.0)
    with pytest.raises(Collated) as caught:
      runner._prepare(update, episodes)
    assert caught.value.args[0] == read
