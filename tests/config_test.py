"""Configs: leaves, arms, overrides, and one clear sentence for every mistake."""

import subprocess
import sys

import pytest

from rljax import config as config_lib
from rljax.config import ConfigError, fn

FILE = '''
from rljax import recipes
from rljax.config import fn

KEPT = fn("rljax.data.tasks:addition", digits=1)

def get_config():
  c = recipes.grpo()
  c.tasks = KEPT
  c.evals.test = fn("rljax.data.tasks:addition", digits=2, split="test", size=10)
  return c

ARMS = {"hot": {"sampling.temperature": 2.0}, "bad": {"sampling.temprature": 2.0},
        "swap": {"updates.policy.advantage": fn("rljax.advantages:leave_one_out")},
        "kept": {"evals.other": KEPT}}
RUNLOCAL = {"prompts": 2}
SCALE = {"steps": 100000}
'''


@pytest.fixture
def path(tmp_path):
  file = tmp_path / "c.py"
  file.write_text(FILE)
  return str(file)


def target(x, *, a: int = 1, b: float = 2.0, c: str, d=None):
  return x, a, b, c, d


LEAF = "tests.config_test:target"


def test_bind_passes_keywords_and_leaves_positionals_open():
  bound = config_lib.bind(fn(LEAF, c="z", a=5))
  assert bound("x") == ("x", 5, 2.0, "z", None)


def test_bind_resolves_nested_leaves():
  bound = config_lib.bind(fn(LEAF, c="z", d=fn(LEAF, c="inner")))
  assert bound("x")[4]("y") == ("y", 1, 2.0, "inner", None)


@pytest.mark.parametrize("kwargs, message", [
    ({"c": "z", "aa": 1}, "no parameter 'aa'; did you mean 'a'?"),
    ({"c": "z", "x": 1}, "no parameter 'x'"),
    ({"a": 1}, "needs a value for c"),
    ({"c": "z", "a": "one"}, "key.a: expected int, found str 'one'"),
    ({"c": "z", "a": 1.5}, "expected int, found float"),
])
def test_bind_errors_name_the_key(kwargs, message):
  with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as e:
    config_lib.bind(fn(LEAF, **kwargs), where="key")
  assert str(e.value).startswith("key")


@pytest.mark.parametrize("name, message", [
    ("no_colon", "module:function"),
    ("rljax.nothing:x", "no module"),
    ("rljax.config:loda", "did you mean 'load'"),
    ("nowhere/x.py:f", "no file"),
])
def test_resolve_errors(name, message):
  with pytest.raises(ConfigError, match=message):
    config_lib.resolve(name)


def test_leaf_from_a_file(tmp_path):
  (tmp_path / "mine.py").write_text("def f(*, a=1):\n  return a\n")
  assert config_lib.bind(fn(f"{tmp_path}/mine.py:f", a=4))() == 4


def test_load_applies_forms_arms_and_overrides_in_order(path):
  c = config_lib.load(path + ":runlocal,hot", {"steps": 7})
  assert (c.steps, c.prompts, c.sampling.temperature) == (7, 2, 2.0)
  assert config_lib.load(path + ":scale").steps == 100000
  assert config_lib.load(path).sampling.temperature == 1.0


def test_an_arm_may_swap_a_leaf(path):
  c = config_lib.load(path + ":swap")
  assert c.updates.policy.advantage.fn == "rljax.advantages:leave_one_out"


def test_an_override_reaches_no_leaf_that_the_file_keeps(path):
  config_lib.load(path + ":kept", {"tasks.digits": 3, "evals.other.digits": 4})
  again = config_lib.load(path + ":kept")
  assert (again.tasks.digits, again.evals.other.digits) == (1, 1)


def test_a_value_with_several_places_is_set_once():
  """`data.path` of the recipe for a reward model is read by its tasks and its evaluation."""
  c = config_lib.load("configs/reward_model.py", {"data.path": "pairs.jsonl"})
  assert c.tasks.path == c.evals.test.path == "pairs.jsonl"


@pytest.mark.parametrize("key, value, message", [
    ("promts", 3, "unknown key 'promts'; did you mean 'prompts'"),
    ("sampling.temprature", 1.0, "did you mean 'sampling.temperature'"),
    ("steps", "many", "steps: expected int, found str 'many'"),
    ("steps", 1.5, "expected int, found float"),
    ("sampling", 3, "holds keys of its own"),
    ("tasks.digit", 3, "did you mean 'tasks.digits'"),
    ("updates.policy.objective.clip_hgh", 0.3, "did you mean 'updates.policy.objective.clip_high'"),
    ("steps.deeper", 1, "no keys"),
    ("nothing.here", 1, "unknown key 'nothing'"),
])
def test_override_errors_name_key_file_and_nearest(path, key, value, message):
  with pytest.raises(ConfigError, match=message) as e:
    config_lib.load(path, {key: value})
  assert path in str(e.value)


def test_override_reaches_parameters_a_leaf_does_not_state(path):
  c = config_lib.load(path, {"updates.policy.objective.clip_high": 0.28, "tasks.digits": 2})
  assert c.updates.policy.objective.clip_high == 0.28 and c.tasks.digits == 2


def test_int_override_of_a_float_becomes_a_float(path):
  assert config_lib.load(path, {"sampling.temperature": 2}).sampling.temperature == 2.0


def test_dicts_of_names_take_new_entries(path):
  c = config_lib.load(path, {"evals.other": fn("rljax.data.tasks:addition", digits=1),
                             "reward_weights.correct": 0.5})
  assert set(c.evals) == {"test", "other"} and c.reward_weights.correct == 0.5
  with pytest.raises(ConfigError, match="unknown key 'limits.other'"):
    config_lib.load(path, {"limits.other": fn("rljax.data.tasks:addition")})


@pytest.mark.parametrize("spec, message", [
    ("missing.py", "no file missing.py"), (":hott", "did you mean 'hot'"), (":bad", "temprature")])
def test_load_errors(path, spec, message):
  with pytest.raises(ConfigError, match=message):
    config_lib.load(spec if spec.startswith("missing") else path + spec)


def test_parse_overrides():
  parsed = config_lib.parse_overrides(
      ["--config.a.b=1", "--config.c=x.jsonl", "--config.d=(1, 2)", "--config.e=true",
       "--config.f=a=b"])
  assert parsed == {"a.b": 1, "c": "x.jsonl", "d": (1, 2), "e": True, "f": "a=b"}
  with pytest.raises(ConfigError, match="cannot read '--steps=3'"):
    config_lib.parse_overrides(["--steps=3"])


def test_digest_changes_with_the_config_only(path):
  a, b = config_lib.load(path), config_lib.load(path)
  assert config_lib.digest(a) == config_lib.digest(b)
  b.seed = 1
  assert config_lib.digest(a) != config_lib.digest(b)
  assert config_lib.differing(config_lib.to_dict(a), config_lib.to_dict(b)) == ["seed: 0 -> 1"]


def test_a_config_loads_without_jax(path):
  code = (f"import sys; from rljax import config; config.load({path!r} + ':runlocal'); "
          "sys.exit('jax' in sys.modules)")
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0
