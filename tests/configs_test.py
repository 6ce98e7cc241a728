"""Every config, with every arm and form, loads, binds and builds; an arm changes what it lists."""

import json
import pathlib

import pytest

from rljax import config as config_lib
from rljax.train import build, loop

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "configs").rglob("*.py"))
DATA = str(ROOT / "tests/data/fixtures/word_problems.jsonl")


def arms(path):
  return dict(getattr(config_lib.load_file(path), "ARMS", {}))


def with_data(config):
  """Points task sets that read a file at the fixture."""
  for leaf in (config.tasks, *config.evals.values()):
    if "path" in leaf:
      leaf.path = DATA
    if "test_share" in config_lib._keywords(leaf.fn) and "path" in leaf:
      leaf.test_share = 0.5
  return config


def cases():
  for path in FILES:
    for arm in ["", "runlocal", *arms(path)]:
      yield path + (f":{arm}" if arm else "")


@pytest.mark.parametrize("spec", cases())
def test_every_config_and_arm_binds(spec):
  config = with_data(config_lib.load(spec))
  if "hf" in config.roles.policy.model.fn:
    pytest.skip("needs a Hugging Face checkpoint folder; its :runlocal form builds")
  build.build(config)


@pytest.mark.parametrize("path", FILES)
def test_an_arm_changes_exactly_what_it_lists(path):
  base = config_lib.to_dict(config_lib.load(path))
  for name, diff in arms(path).items():
    changed = config_lib.differing(base, config_lib.to_dict(config_lib.load(f"{path}:{name}")))
    keys = {c.partition(": ")[0] for c in changed}
    assert keys and all(any(k == d or k.startswith(d + ".") for d in diff) for k in keys)
    assert all(any(k == d or k.startswith(d + ".") for k in keys) for d in diff), (name, keys)


@pytest.mark.parametrize("path", FILES)
def test_docstring_has_a_link_and_the_command(path):
  doc = config_lib.load_file(path).__doc__
  assert "https://" in doc and "rljax-train" in doc and path in doc
  assert (ROOT / path).read_text().count("\n") < 120


@pytest.mark.parametrize("path", FILES)
def test_runlocal_runs_two_steps(path, tmp_path):
  config = with_data(config_lib.load(path + ":runlocal"))
  loop.train(config, str(tmp_path), quiet=True)
  result = json.loads((tmp_path / "result.json").read_text())
  assert result["steps"] == 2 and result["status"] == "done"
