"""Self-play through the whole loop: sampler equals trainer, baselines survive a kill."""

import json

import jax
import numpy as np

from rljax import config as config_lib
from rljax.train import loop

CONFIG = "tests/rollouts/selfplay_config.py"


def lines(folder):
  return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


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
  states = [json.loads(p.read_text())["memories"]["baselines"]
            for p in sorted((tmp_path / "cut").glob("checkpoints/3/host/*"))
            if p.read_text().startswith("{") and "memories" in p.read_text()]
  assert states and set(states[0]) == {"patient/0", "patient/1"}
  assert all(v != 0.0 for v in states[0].values())
