"""The planted base: trained once, found again, refused outside its band."""

import pathlib

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import recipes
from rljax.config import fn
from rljax.train import base, build, export
from tests.train import loop_test


def setup_of(**init):
  config = config_lib.load(loop_test.TINY)
  config.roles.policy.init = fn("rljax.train.base:trained", **{
      "steps": 3, "rows": 4, "at_least": 0.0, "at_most": 1.0, "problems": 8, **init})
  return build.build(config)


def weights(run):
  run.roles.init()
  return jax.device_get(run.roles.params("policy"))


def differ(a, b):
  return any(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


@pytest.fixture(autouse=True, scope="module")
def own(tmp_path_factory):
  """The weights of the plain base, trained into an empty cache."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("RLJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield weights(setup_of())


def test_a_base_is_found_again_and_its_skill_is_stated(own, capsys):
  again = weights(setup_of())
  said = capsys.readouterr().out
  assert "training" not in said
  assert "base model: pass@1 0." in said and "after 3 supervised steps" in said
  jax.tree.map(np.testing.assert_array_equal, own, again)


@pytest.mark.parametrize("knob", [
    {"noise": 0.9}, {"steps": 2}, {"rows": 2}, {"lr": 1e-4}, {"seed": 3},
    {"tasks": fn("rljax.data.tasks:addition", digits=1, seed=5)}], ids=lambda k: next(iter(k)))
def test_every_knob_makes_another_base(own, knob, capsys):
  other = weights(setup_of(**knob))
  assert "training a base model" in capsys.readouterr().out
  assert differ(own, other)


def test_what_a_file_says_makes_another_base(tmp_path):
  file = tmp_path / "tool.py"
  file.write_text("def lookup():\n  return 1\n")
  config = config_lib.load(loop_test.TINY)
  plain = base._fingerprint(config)
  config.rollout.env = fn(f"{file}:lookup")  # anywhere in the config, not only in its tasks
  first = base._fingerprint(config)
  assert first != plain and first == base._fingerprint(config)
  file.write_text("def lookup():\n  return 2\n")
  assert base._fingerprint(config) not in (plain, first)


def test_packing_and_the_rollout_that_answers_reach_the_base(monkeypatch):
  class Enough(Exception):
    pass

  def caught(config, role):
    raise Enough(config)
  monkeypatch.setattr(base, "_cached", caught)
  answer = fn("rljax.rollouts.dataset:demonstrations", noise=0.25)
  with pytest.raises(Enough) as found:
    weights(setup_of(pack=(3, 40), answer=answer, skill=fn("rljax.data.tasks:addition", digits=1)))
  config = found.value.args[0]
  assert (config.updates.policy.pack, config.updates.policy.pack_length) == (3, 40)
  assert config.eval.rollout.noise == 0.25 and list(config.evals) == ["skill"]
  with pytest.raises(Enough) as found:
    weights(setup_of(skill=fn("rljax.data.tasks:addition", digits=1)))
  assert found.value.args[0].eval.rollout is None and not found.value.args[0].updates.policy.pack


def test_a_base_may_start_from_a_base():
  first = dict(steps=2, rows=4, at_least=0.0, at_most=1.0, problems=8)
  start = weights(setup_of(**first))
  after = weights(setup_of(lr=0.0, init=fn("rljax.train.base:trained", **first)))
  jax.tree.map(np.testing.assert_array_equal, start, after)


def test_a_stage_starts_where_another_run_ended(own, capsys):
  config = config_lib.load(loop_test.TINY)
  before = weights(build.build(config_lib.load(loop_test.TINY)))
  config.roles.policy.init = fn("rljax.train.base:arm", config=loop_test.TINY)
  after = weights(build.build(config))
  said = capsys.readouterr().out
  assert f"starts from {loop_test.TINY} after 6 steps" in said and differ(before, after)
  folder = pathlib.Path(said.partition("(its run: ")[2].partition(")")[0])
  step, run, _ = export.load_run(str(folder), "policy")
  assert step == 6
  jax.tree.map(np.testing.assert_array_equal, run.roles.params("policy"), after)
  jax.tree.map(np.testing.assert_array_equal, weights(build.build(config)), after)  # found again
  assert "training" not in capsys.readouterr().out


@pytest.mark.parametrize("band, wanted", [({"at_least": 0.9}, "0.9 to 1"),
                                          ({"at_least": -2.0, "at_most": -1.0}, "-2 to -1")])
def test_outside_the_band_is_an_error_with_the_skill(band, wanted):
  with pytest.raises(config_lib.ConfigError, match=f"the base model has pass@1 0.*{wanted}"):
    weights(setup_of(**band))


def test_problems_sets_how_many_measure_the_skill(capsys):
  weights(setup_of(problems=1))
  skill = float(capsys.readouterr().out.split("pass@1 ")[1].split()[0])
  assert skill in (0.0, 1.0)


def scorer_of(rows=2, **init):
  """The tiny run with a reward model that is trained on a file of pairs first."""
  config = config_lib.load(loop_test.TINY)
  config.tokenizer = fn("rljax.data.text:byte")
  limits = {"prompt": 96, "response": 24}
  pairs = fn("rljax.data.comparisons:comparisons", path="tests/data/fixtures/comparisons.jsonl")
  config.roles.judge = recipes.role(head=fn("rljax.models.heads:head"), init=fn(
      "rljax.train.base:scorer", **{"tasks": pairs, "skill": pairs, "at_least": 0.0, "steps": 2,
                                    "rows": rows, "limits": limits, **init}))
  run = build.build(config)
  run.roles.init()
  return jax.device_get((run.roles.params("judge"), run.roles.params("policy")))


@pytest.mark.slow
def test_a_reward_model_as_a_base(capsys):
  own, _ = scorer_of()
  assert "base reward model: accuracy" in capsys.readouterr().out
  assert np.abs(own["value"]["out"]).max() > 0
  jax.tree.map(np.testing.assert_array_equal, own, scorer_of()[0])
  assert "training" not in capsys.readouterr().out
  bce = fn("rljax.objectives.reward_model:bce")
  for knob in ({"objective": bce}, {"rows": 3}, {"lr": 1e-4}, {"seed": 1}, {"steps": 1}):
    assert differ(own, scorer_of(**knob)[0]), knob
  with pytest.raises(config_lib.ConfigError, match="base reward model has accuracy .*wanted 1.5"):
    scorer_of(at_least=1.5)


@pytest.mark.slow
def test_a_reward_model_may_begin_with_other_weights():
  judge, policy = scorer_of(lr=0.0, init="policy")
  np.testing.assert_array_equal(judge["embed"], policy["embed"])
  judge, policy = scorer_of(lr=0.0)
  assert np.abs(judge["embed"] - policy["embed"]).max() > 0.01
  sums = fn("rljax.data.tasks:addition", digits=1)
  writer = fn("rljax.train.base:trained", tasks=sums, skill=sums, steps=3, rows=4, at_least=0.0,
              at_most=1.0, problems=8)
  judge, _ = scorer_of(lr=0.0, init=writer)
  again, _ = scorer_of(lr=0.0, init=writer, seed=1)  # another judge of the same beginning
  np.testing.assert_array_equal(judge["embed"], again["embed"])
  assert np.abs(judge["embed"] - policy["embed"]).max() > 1e-3  # three steps away
