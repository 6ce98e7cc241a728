"""The reward-model recipe as a command, and that it is asked where it was trained."""

import json

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import main, recipes
from rljax.config import ConfigError, fn
from rljax.data import collate
from rljax.objectives import reward_model
from rljax.rewards import model
from rljax.train import build, distributed, loop
from tests.train import loop_test

CONFIG = "configs/reward_model.py:runlocal"


def pairs(path, rows=40):
  """The response that says yes is better; `other` is a file of best-of-4 rows."""
  row = lambda i: {"prompt": f"{i}?", "chosen": "yes", "rejected": "no", "category": "ab"[i % 2]}
  (path / "pairs.jsonl").write_text("".join(json.dumps(row(i)) + "\n" for i in range(rows)))
  other = {**row(0), "rejected": ["no", "nope", "nay"]}
  (path / "other.jsonl").write_text(json.dumps(other) + "\n")
  return str(path / "pairs.jsonl")


def test_the_command_ends_with_tables_and_evaluates_another_file_later(tmp_path, capsys):
  args = ["--config", CONFIG, f"--config.data.path={pairs(tmp_path)}", "--config.steps=30",
          "--config.limits.prompt=8", "--config.limits.response=8",
          "--config.updates.reward_model.optimizer.lr=0.01", "--config.prompts=8",
          "--workdir", str(tmp_path / "run")]
  assert main.train(args) == 0
  result = json.loads((tmp_path / "run/result.json").read_text())
  after = result["eval"]["after"]
  assert after["accuracy"] > 0.95 > result["eval"]["before"]["accuracy"]
  assert after["prompts"] == 2 and 0 <= after["calibration_error"] < 0.5
  page = (tmp_path / "run/report.html").read_text()
  assert "by category" in page and "by confidence" in page and "calibration_error" in page
  assert "by_category" not in capsys.readouterr().out
  row = loop_test.metrics(tmp_path / "run")[5]
  assert "rm/accuracy" in row and "policy/entropy" not in row and "mismatch/max" not in row
  before = (tmp_path / "run/metrics.jsonl").read_text().splitlines()[:30]
  assert main.train([*args, f"--config.data.eval_path={tmp_path}/other.jsonl"]) == 0
  other = json.loads((tmp_path / "run/result.json").read_text())["eval"]["after"]
  assert other["prompts"] == 1 and other["best_of_n"] in (0.0, 0.25, 0.5, 1.0)
  assert (tmp_path / "run/metrics.jsonl").read_text().splitlines()[:30] == before


def test_a_bad_line_ends_the_command_with_one_sentence(tmp_path, capsys):
  path = pairs(tmp_path)
  with open(path, "a") as f:
    f.write('{"chosen": "x"}\n')
  args = ["--config", CONFIG, f"--config.data.path={path}", "--workdir", str(tmp_path / "run")]
  assert main.train(args) == 2
  said = capsys.readouterr().err
  assert "pairs.jsonl, line 41 has no field 'rejected'" in said and said.count("\n") == 1


def test_a_response_is_scored_where_it_was_trained(tmp_path):
  """ctx.value through `rewards.model:score` = the head at the last action of a collated row."""
  config = config_lib.load(CONFIG, {"data.path": pairs(tmp_path)})
  config.roles.reward_model.head.hidden = 8
  r = build.build(config)
  r.roles.init()
  params = jax.tree.map(lambda x: x + 0.1 * np.cos(np.arange(x.size)).reshape(x.shape),
                        r.roles.params("reward_model"))  # the head starts at zero
  r.roles.states["reward_model"] = r.roles.states["reward_model"].replace(params=params)
  episodes = r.rollout(r.samplers, [r.tasks[i] for i in range(4)], None)
  batch = collate.collate(episodes, shapes=r.updates["reward_model"].shapes)
  want = reward_model.scores(r.roles.specs["reward_model"].policy.stats(params, batch), batch)
  state = loop.Loop.__new__(loop.Loop)
  state.hosts = distributed.ALONE
  state.r, state.config = r, config
  got = model.score(episodes, state._context(0))
  assert np.ptp(got) > 1e-3
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_refusals():
  with pytest.raises(ConfigError, match="trains scores, and roles.reward_model has no head"):
    build.build(config_lib.load(CONFIG, {
        "data.path": "tests/data/fixtures/comparisons.jsonl", "roles.reward_model.head": None,
        "tasks.test_share": 0.5, "evals.test.test_share": 0.5}))
  c = recipes.reward_model()
  c.data.path = "tests/data/fixtures/comparisons.jsonl"
  c.tasks.test_share = c.evals.test.test_share = 0.5
  c.tokenizer = fn("rljax.data.text:byte")
  c.roles.reward_model.model = None
  with pytest.raises(ConfigError, match="there is no role 'policy' to take it from"):
    build.build(c)
