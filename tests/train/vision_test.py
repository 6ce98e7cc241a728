"""Images through the whole loop, and through the TPU's compiler."""

import json

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import plan
from rljax.config import ConfigError, fn
from rljax.train import build, loop

JIGSAW, READER = "configs/papers/visual-jigsaw.py:runlocal", "configs/papers/vision-sr1.py:runlocal"


def rows(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("pack", [0, 6])
def test_sampler_and_trainer_agree_about_images(tmp_path, pack):
  config = config_lib.load(JIGSAW, {"steps": 2, "updates.policy.pack": pack})
  loop.train(config, str(tmp_path), quiet=True)
  for row in rows(tmp_path)[:2]:
    assert row["mismatch/max"] < 1e-4 and row["episode/length"] > 0


@pytest.mark.slow
def test_the_policy_reads_itself_without_the_image(tmp_path):
  config = config_lib.load(READER, {"steps": 1})
  loop.train(config, str(tmp_path), quiet=True)
  first, last = rows(tmp_path)
  assert {"reward/answer", "reward/format", "reward/blind"} <= set(first)
  assert {f"eval/test/{k}" for k in ("accuracy", "sufficiency", "shortcut")} <= set(last)


def test_scores_of_text_behind_an_image():
  run = build.build(config_lib.load(JIGSAW))
  run.roles.init()
  a, b = run.tasks[0], run.tasks[1]
  prompt, said = run.tokenizer.render(a.prompt), run.tokenizer.response("1,2")
  found = run.scorer.score("policy", [prompt] * 3, [said] * 3, [a.media, b.media, a.media])
  assert np.abs(found[0][0] - found[1][0]).max() > 1e-5
  np.testing.assert_array_equal(found[0][0], found[2][0])
  with pytest.raises(ConfigError, match="names 6 images.*has 0"):
    run.scorer.score("policy", [prompt], [said])


def test_tokenizer_and_model_must_agree_on_patches():
  with pytest.raises(ConfigError, match="reads 1 patches per image, config.tokenizer writes 5"):
    build.build(config_lib.load(JIGSAW, {"tokenizer.patches": 5}))
  with pytest.raises(ConfigError, match="reads 0 patches per image"):
    build.build(config_lib.load(JIGSAW, {"roles.policy.model": fn(
        "rljax.models.policy:decoder", width=32, layers=1, heads=2)}))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prefill", "train"])  # those that read pixels
def test_the_tpu_compiler_takes_every_step(name):
  pytest.importorskip("libtpu", reason="libtpu is the compiler")
  config = config_lib.load("configs/papers/visual-jigsaw.py")
  run = build.build(config, devices=plan.tpu_devices("v5e:2x2")[0])
  steps = plan.Steps(run, config, run.updates["policy"])
  fn, args, _ = getattr(steps, name)(256)
  memory = fn.lower(*args).compile().memory_analysis()
  assert memory.temp_size_in_bytes + memory.argument_size_in_bytes < 16 * 2**30  # a v5e's HBM
