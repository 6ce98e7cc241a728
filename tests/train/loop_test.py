"""The loop as a user meets it: what it leaves behind, what it never does, how it refuses."""

import gzip
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import main, testing
from rljax.train import build, distributed, loop
from rljax.train import scalars as scalars_lib

TINY = "tests/train/tiny.py"


def load(spec=TINY, **overrides):
  return config_lib.load(spec, {k.replace("__", "."): v for k, v in overrides.items()})


def metrics(workdir):
  """metrics.jsonl without what depends on the clock."""
  with open(os.path.join(workdir, "metrics.jsonl")) as f:
    rows = [json.loads(line) for line in f]
  return [{k: v for k, v in r.items() if not k.startswith("time/")} for r in rows]


def episodes(workdir):
  out = []
  for name in sorted(os.listdir(os.path.join(workdir, "episodes"))):
    with gzip.open(os.path.join(workdir, "episodes", name), "rt") as f:
      out += [json.loads(line) for line in f]
  return out


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """One whole run, with the compilations of each step counted."""
  workdir = str(tmp_path_factory.mktemp("runs") / "a")
  counts = []
  original = loop.Loop.step

  def counted(self, step):
    with testing.count_compilations() as c:
      out = original(self, step)
    counts.append(c.count)
    return out

  loop.Loop.step = counted
  try:
    states = loop.train(load(), workdir, quiet=True)
  finally:
    loop.Loop.step = original
  return workdir, states, counts


@pytest.mark.slow
def test_a_memory_may_write_the_tasks_and_remembers_after_a_resume(tmp_path):
  for steps in (2, 3):
    loop.train(load(steps=steps, eval__every=0, memories__own=config_lib.fn(
        "tests/train/tiny_rewards.py:renamed")), str(tmp_path), quiet=True)
  asked = {e["step"]: e["task"] for e in episodes(tmp_path) if "phase" not in e["info"]}
  assert [asked[k].rpartition("/")[2] for k in range(3)] == ["0", "1", "2"]


def test_a_metric_of_nothing_is_printed(capsys):
  main._print_result({"eval": {"before": {"a": {}, "b": {"x": 0.5}}, "after": {
      "a": {"precision": "nan"}, "b": {"x": 1.0}}}, "steps": 0, "seconds": 1.0,
      "tokens_per_second": 0.0, "skipped_updates": 0, "faults": {}}, "run", "page")
  said = capsys.readouterr().out
  assert "a precision" in said and "nan       nan" in said and "0.500     1.000" in said


def test_run_folder(finished):
  workdir, states, _ = finished
  result = json.load(open(os.path.join(workdir, "result.json")))
  assert result["status"] == "done" and result["steps"] == 6 and result["skipped_updates"] == 0
  assert 0 <= result["eval"]["before"]["pass_at_1"] <= 1 and "pass_at_1" in result["eval"]["after"]
  assert result["tokens_per_second"] > 0 and result["parameters"]["policy"] > 1000
  rows = metrics(workdir)
  assert [r["step"] for r in rows] == list(range(7))
  wanted = {"loss/total", "reward/mean", "reward/even", "reward/std", "episode/length", "grad/norm",
            "policy/entropy", "kl/ref", "mismatch/max", "mismatch/kl", "update/skipped"}
  assert wanted <= set(rows[1])
  assert max(r.get("mismatch/max", 0) for r in rows) < 1e-4  # sampler and trainer agree
  assert "eval/test/pass_at_1" in rows[0] and "eval/test/pass_at_1" in rows[3]
  phases = [(e["step"], e["info"].get("phase", "train")) for e in episodes(workdir)]
  assert phases.count((2, "train")) == 16 and phases.count((0, "eval/test")) == 8
  assert json.load(open(os.path.join(workdir, "preflight.json")))["numbers"]["episodes"] == 16
  assert int(states["policy"].step) == 12  # two minibatches per step


def test_training_moves_the_policy_and_its_follower_but_not_the_reference(finished):
  _, states, _ = finished
  start = build.build(load()).roles
  start.init()
  gap = lambda a, b: max(float(np.abs(x - y).max())
                         for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
  assert gap(states["ref"], start.states["ref"]) == 0
  assert gap(states["policy"].params, start.params("policy")) > 1e-3
  assert 0 < gap(states["teacher"], states["policy"].params) < gap(
      states["ref"], states["policy"].params)


def test_no_compilation_after_the_first_two_steps(finished):
  counts = finished[2]
  assert counts[0] > 0 and counts[2:] == [0] * 4, counts


def test_the_same_config_gives_the_same_run(finished, tmp_path):
  """Also: interrupted after step 2 and continued, with another number of steps in between."""
  workdir, states, _ = finished
  loop.train(load(steps=3), str(tmp_path), quiet=True)
  again = loop.train(load(), str(tmp_path), quiet=True)
  assert metrics(str(tmp_path))[:3] == metrics(workdir)[:3]
  assert metrics(str(tmp_path)) == metrics(workdir)
  for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(again)):
    np.testing.assert_array_equal(a, b)


def test_samples_do_not_depend_on_the_order_of_prompts():
  run = build.build(load())
  run.roles.init()
  tasks = [run.tasks[i] for i in range(4)]
  key = jax.random.key(0)
  there = run.rollout(run.samplers, tasks, key)
  back = run.rollout(run.samplers, tasks[::-1], key)
  for i in range(4):
    for g in range(4):
      a, b = there[4 * i + g], back[4 * (3 - i) + g]
      np.testing.assert_array_equal(a.turns[1].tokens, b.turns[1].tokens)
      np.testing.assert_allclose(a.turns[1].logp, b.turns[1].logp, atol=1e-5)


def test_evaluation_by_a_key_of_the_tasks(tmp_path):
  fn = config_lib.fn
  digits = {str(n): fn("rljax.data.tasks:addition", digits=1, size=4 * n, seed=n) for n in (1, 2)}
  mixed = fn("rljax.data.mixture:mixture", sets=digits, key="size")
  loop.train(load(evals__test=mixed, eval__by="size", eval__limit=0, steps=0), str(tmp_path),
             quiet=True)
  row, = metrics(str(tmp_path))
  parts = [row[f"eval/test/{n}/pass_at_1"] for n in (1, 2)]
  assert row["eval/test/pass_at_1"] == pytest.approx((4 * parts[0] + 8 * parts[1]) / 12)
  assert row["eval/test/worst/pass_at_1"] == min(parts)
  assert [e["info"]["by"] for e in episodes(str(tmp_path))] == ["1"] * 4 + ["2"] * 8
  with pytest.raises(config_lib.ConfigError, match="config.eval.by='kind': 8 tasks of evals.test"):
    loop.train(load(eval__by="kind"), str(tmp_path / "b"), quiet=True)


def test_rewards_may_score_and_sample():
  run = build.build(load(rewards__even=config_lib.fn("tests/train/tiny_rewards.py:uses_models")))
  run.roles.init()
  state = loop.Loop.__new__(loop.Loop)
  state.hosts = distributed.ALONE
  state.r, state.config = run, run.config
  eps = run.rollout(run.samplers, [run.tasks[0]], jax.random.key(0))
  values = run.rewards["even"](eps, state._context(0))
  assert values.shape == (4,) and np.isfinite(values).all()
  (logp, entropy), = run.scorer.score("policy", [eps[0].turns[0].tokens], [eps[0].turns[1].tokens])
  np.testing.assert_allclose(logp, eps[0].turns[1].logp, atol=1e-4)  # scorer = sampler
  assert entropy.shape == logp.shape
  with pytest.raises(ValueError, match="pair 0 has 0"):
    run.scorer.score("policy", [np.zeros(0, np.int32)], [np.zeros(1, np.int32)])


@pytest.mark.slow
def test_rewards_may_ask_for_values_and_certainty():
  """Against the head and the logits themselves; a text of any length, one that is too long."""
  run = build.build(load(roles__policy__head=config_lib.fn("rljax.models.heads:head")))
  run.roles.init()
  policy = run.roles.specs["policy"].policy
  run.roles.states["policy"].params["value"]["out"] += 1.0  # a new head says 0 everywhere
  params = run.roles.params("policy")
  texts = [np.arange(n, dtype=np.int32) % 12 for n in (1, 4, 9, 13)]
  values = run.scorer.value("policy", texts)
  assert np.isnan(values[3]) and np.isfinite(values[:3]).all() and len(set(values[:3])) == 3
  pairs = [(texts[1], texts[2][:2]), (texts[0], texts[1])]
  found = run.scorer.uniform_kl("policy", *zip(*pairs))
  for text, value in zip(texts[:3], values):
    hidden, _ = policy.prefill(params, text[None], np.array([len(text)]))
    np.testing.assert_allclose(policy.head(params, hidden[:, None])[0, 0, 0], value, atol=1e-5)
  for (before, said), kl in zip(pairs, found):
    whole = np.concatenate([before, said])
    for t, got in enumerate(kl):
      n = len(before) + t
      hidden, _ = policy.prefill(params, whole[None, :n], np.array([n]))
      logp = jax.nn.log_softmax(policy.logits(params, hidden)[0] / policy.temperature)
      np.testing.assert_allclose(got, -np.log(len(logp)) - logp.mean(), atol=1e-4)
  with pytest.raises(config_lib.ConfigError, match="no role 'ref' with a scalar head"):
    run.scorer.value("ref", texts)


# --- refusals: one sentence, exit code 2, no traceback --------------------------------------------

BAD = [
    ({"stesp": 3}, "unknown key 'stesp'; did you mean 'steps'"),
    ({"steps": "three"}, "steps: expected int, found str 'three'"),
    ({"tasks.size": 0}, "size"),
    ({"tasks.fn": "rljax.data.gsm8k:gsm8k_calc"}, "path"),
    ({"updates.policy.role": "polcy"}, "no role 'polcy'"),
    ({"updates.policy.ref": "nobody"}, "needs a reference model"),
    ({"updates.policy.advantage.fn": "rljax.advantages:gae"}, "needs values"),
    ({"limits.prompt": 3, "evals.test.digits": 1, "eval.limit": 0}, "prompt"),
    ({"limits.on_long_prompt": "maybe"}, "'error' or 'skip'"),
    ({"roles.policy.model.heads": 3, "roles.policy.model.kv_heads": 2}, "multiple of kv_heads"),
    ({"reward_weights": None}, "'reward_weights' holds keys of its own"),
    ({"reward_weights.evn": 0.5}, "no such reward (there is: even)"),
]


@pytest.mark.parametrize("overrides, message", BAD, ids=[m for _, m in BAD])
def test_one_clear_message(overrides, message, tmp_path, capfd):
  args = [f"--config.{k}={v}" for k, v in overrides.items()]
  assert main.train(["--config", TINY, "--workdir", str(tmp_path / "w"), *args]) == 2
  err = capfd.readouterr().err
  assert message in err and "Traceback" not in err and err.startswith("rljax: ")


def test_long_prompt_in_training(tmp_path, capfd):
  base = ["--config", TINY, "--config.tasks.digits=2", "--config.eval.every=0", "--config.steps=1"]
  args = [*base, "--workdir", str(tmp_path / "a")]
  assert main.train(args) == 2
  assert " tokens, limits.prompt is 4" in capfd.readouterr().err
  args = [*base, "--workdir", str(tmp_path / "b"), "--config.limits.on_long_prompt=skip"]
  assert main.train(args) == 2  # nearly all are longer: still an error, with the count
  assert "prompts are longer than" in capfd.readouterr().err


def test_another_config_in_the_workdir(finished, capfd):
  workdir = finished[0]
  before = metrics(workdir)
  assert main.train(["--config", TINY, "--workdir", workdir, "--config.seed=7"]) == 2
  err = capfd.readouterr().err
  assert "seed: 0 -> 7" in err and "another workdir" in err
  assert metrics(workdir) == before


def test_unwritable_workdir(tmp_path, capfd):
  (tmp_path / "file").write_text("")
  assert main.train(["--config", TINY, "--workdir", str(tmp_path / "file" / "w")]) == 2
  assert "cannot write" in capfd.readouterr().err


@pytest.mark.slow
def test_debugging_without_jit(tmp_path):
  """The whole loop runs op by op under JAX_DISABLE_JIT=1."""
  env = {**os.environ, "JAX_DISABLE_JIT": "1", "JAX_PLATFORMS": "cpu"}
  args = ["--config", TINY, "--workdir", str(tmp_path), "--config.steps=2", "--config.eval.every=0",
          "--config.evals.test.size=1", "--config.prompts=1", "--config.sampling.slots=2",
          "--config.rollout.group_size=2", "--config.updates.policy.minibatches=1",
          "--config.limits.response=1"]
  done = subprocess.run([sys.executable, "-m", "rljax.main", *args], env=env, capture_output=True,
                        text=True, timeout=300)
  assert done.returncode == 0, done.stderr[-2000:]
  assert len(metrics(str(tmp_path))) == 3


def test_the_parts_of_a_step_add_up_and_one_may_come_twice(monkeypatch):
  times = iter([0.0, 1.0, 3.0, 7.0, 8.0])
  monkeypatch.setattr(scalars_lib.time, "perf_counter", lambda: next(times))
  clock = scalars_lib.Clock()
  for name in ("update", "log", "update"):
    clock.lap(name)
  assert clock.scalars() == {"time/step": 8.0, "time/update": 5.0, "time/log": 2.0}
