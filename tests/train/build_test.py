"""No dead knobs: every key of a recipe reaches the function that reads it."""

import jax
import pytest

from rljax import config as config_lib
from rljax.config import ConfigError, fn
from rljax.train import build, distributed, export, loop, rollouts
from rljax.train import step as step_lib
from tests.train import loop_test


def built(**overrides):
  return build.build(loop_test.load(**overrides))


# key -> (another value, what the built run shows of it)
KNOBS = {
    "prompts": (6, lambda r: r.updates["policy"].shapes.B),
    "rollout.group_size": (2, lambda r: r.updates["policy"].shapes.B),
    "limits.prompt": (7, lambda r: r.samplers["policy"].engine.buckets),
    "limits.response": (2, lambda r: r.updates["policy"].shapes.T),
    "limits.observation": (9, lambda r: (r.updates["policy"].shapes.S,
                                         r.samplers["policy"].engine.buckets,
                                         r.samplers["policy"].limits["observation"])),
    "sampling.temperature": (0.5, lambda r: (r.roles.specs["policy"].policy.temperature,
                                             r.samplers["policy"].defaults["temperature"])),
    "sampling.top_k": (3, lambda r: r.samplers["policy"].defaults["top_k"]),
    "sampling.top_p": (0.5, lambda r: r.samplers["policy"].defaults["top_p"]),
    "sampling.min_p": (0.1, lambda r: r.samplers["policy"].defaults["min_p"]),
    "sampling.slots": (4, lambda r: r.samplers["policy"].engine.slots),
    "sampling.cache_bits": (8, lambda r: r.samplers["policy"].engine.cache_bits),
    "sampling.prompt_buckets": ((2, 4), lambda r: r.samplers["policy"].engine.buckets),
    "eval.samples": (3, lambda r: r.eval_rollout.keywords["group_size"]),
    "eval.temperature": (0.3, lambda r: r.eval_rollout.keywords["settings"]["temperature"]),
    "eval.greedy": (True, lambda r: r.eval_rollout.keywords["settings"]["greedy"]),
    "eval.rollout": (fn("rljax.rollouts.dataset:demonstrations", noise=0.5),
                     lambda r: r.eval_rollout.func),
    "eval.verifier": (fn("rljax.rewards.verify:dense_number"), lambda r: r.eval_verifier.func),
    "eval.score": ("other", lambda r: r.config.eval.score),
    "eval.measure": (fn("rljax.evals.reward_model:measure"), lambda r: r.measure.func),
    "updates.policy.epochs": (2, lambda r: r.updates["policy"].epochs),
    "updates.policy.minibatches": (4, lambda r: r.updates["policy"].minibatches),
    "updates.policy.speaker": ("other", lambda r: r.updates["policy"].speaker),
    "updates.policy.every": (3, lambda r: r.updates["policy"].every),
    "updates.policy.derive": (fn("tests/train/tiny_rewards.py:first_two"),
                              lambda r: r.updates["policy"].derive is None),
    "updates.policy.rows": (32, lambda r: r.updates["policy"].shapes.B),
    "updates.policy.discount": (0.9, lambda r: r.updates["policy"].discount),
    "updates.policy.optimizer.lr": (0.5, lambda r: r.roles.optimizers["policy"].schedule(0)),
    "updates.policy.optimizer.max_norm": (0.5, lambda r: r.roles.optimizers["policy"].max_norm),
    "layout.train": ("fsdp", lambda r: r.roles.specs["policy"].policy.layout.rules),
    "roles.teacher.decay": (0.1, lambda r: r.roles.specs["teacher"].decay),
    "roles.teacher.every": (2, lambda r: r.roles.specs["teacher"].every),
    "roles.teacher.follow": ("", lambda r: r.roles.specs["teacher"].follow),
    "roles.teacher.shares": ("policy", lambda r: r.roles.owner("teacher")),
    "roles.policy.train": (False, lambda r: r.roles.specs["policy"].train),
    "reward_weights.even": (0.5, lambda r: r.reward_weights),
    "select": (fn("rljax.data.select:drop_zero_variance"), lambda r: r.select is None),
    "tokenizer.alphabet": ("0123456789+=x", lambda r: r.roles.specs["policy"].policy.cfg.vocab),
    "tasks.digits": (2, lambda r: r.tasks[0].prompt),
    "curriculum": (fn("rljax.data.curriculum:ordered"),
                   lambda r: r.curriculum.draw(r.curriculum.init(), 0, 9)[0]),
}

# Read by the loop at run time; these tests flip them.
ELSEWHERE = {
    "name": "shown in the report", "seed": "test_seed_changes_the_samples",
    "steps": "loop_test (a shorter run is continued)", "limits.on_long_prompt": "loop_test",
    "reward_deadline": "run_test, test_the_deadline_reaches_the_rewards",
    "eval.every": "loop_test", "eval.limit": "test_eval_limit",
    "eval.by": "loop_test",
    "checkpoint.every": "test_checkpoint_cadence", "checkpoint.keep": "test_checkpoint_cadence",
    "checkpoint.folder": "test_checkpoints_may_lie_elsewhere",
    "episodes_max_bytes": "runlog_test", "updates.policy.ref": "loop_test (refusal)",
    "updates.policy.role": "loop_test (refusal)", "updates.policy.accum": "test_accum",
    "layout.tensor": "tests/models/sharding_test.py", "updates.policy.value": "value_test",
    "updates.policy.router": "value_test", "updates.policy.pack": "value_test",
    "updates.policy.pack_length": "value_test",
    "memories": "tests/rollouts/versus_test.py",
    "lag": "lag_test", "layout.sampler": "lag_test",
}


@pytest.mark.parametrize("key", KNOBS)
def test_a_knob_reaches_its_reader(key):
  value, shows = KNOBS[key]
  assert shows(built()) != shows(built(**{key.replace(".", "__"): value}))


def leaf_keys(config, prefix=""):
  """Dotted keys of a recipe that are not inside a leaf."""
  for key, value in config.items():
    if config_lib.is_leaf(value) or not hasattr(value, "items"):
      yield prefix + key
    else:
      yield from leaf_keys(value, f"{prefix}{key}.")


def test_no_key_is_forgotten():
  covered = {*KNOBS, *ELSEWHERE}
  for key in leaf_keys(loop_test.load()):
    family = any(k == key or k.startswith(key + ".") for k in covered)
    same_role = key.startswith("roles.") and key.split(".")[-1] in (
        "model", "init", "head", "lora", "train", "shares", "follow", "decay", "every")
    named = key.startswith(("rewards.", "evals."))
    assert family or same_role or named or key in (
        "rollout", "updates.policy.advantage", "updates.policy.objective"), key


def test_accum(monkeypatch):
  seen = []
  real = step_lib.make

  def spy(*args, accum, **kwargs):
    seen.append(accum)
    return real(*args, accum=accum, **kwargs)

  monkeypatch.setattr(step_lib, "make", spy)
  built(updates__policy__accum=2)
  assert seen == [2]


def test_prompt_lengths_double_up_to_a_whole_episode_where_there_are_observations():
  run = built(limits__observation=9)
  assert run.samplers["policy"].engine.buckets == [4, 8, 15]  # 4 + 3 + 9 tokens, one to sample
  assert run.updates["policy"].shapes.S == 15
  assert run.scorer._buckets == [15, 30]


def test_rows_are_rounded_up_to_what_must_divide_them():
  assert built(prompts=3, updates__policy__minibatches=8).updates["policy"].shapes.B == 16


def test_seed_changes_the_samples():
  texts = []
  for seed in (0, 0, 1):
    run = built(seed=seed)
    run.roles.init()
    eps = run.rollout(run.samplers, [run.tasks[i] for i in range(4)], jax.random.key(seed))
    texts.append([e.response for e in eps])
  assert texts[0] == texts[1] != texts[2]


class Recorder:
  """A Loop without a run folder, to call its parts."""

  def __new__(cls, run):
    state = loop.Loop.__new__(loop.Loop)
    state.hosts = distributed.ALONE
    state.r, state.config = run, run.config
    state.host = {"curriculum": run.curriculum.init(), "faults": {}}
    state.rollouts = rollouts.Rollouts(run, distributed.ALONE, state.host)
    state.log = type("Log", (), {"episodes": lambda self, step, episodes: None})()
    return state


def test_eval_limit(monkeypatch):
  run = built(eval__limit=3)
  run.roles.init()
  seen = []
  state = Recorder(run)
  state.log.episodes = lambda step, episodes: seen.append(len(episodes))
  state.evaluate(0)
  assert seen == [3]


def test_the_deadline_reaches_the_rewards(monkeypatch, tmp_path):
  from rljax.rewards import run as rewards_lib
  got = []

  def spy(episodes, rewards, weights, ctx, *, deadline, over):
    got.append(deadline)
    raise ConfigError("enough")

  monkeypatch.setattr(rewards_lib, "score_all", spy)
  with pytest.raises(ConfigError, match="enough"):
    loop.train(loop_test.load(reward_deadline=7.0), str(tmp_path), quiet=True)
  assert got == [7.0]


@pytest.mark.slow
def test_checkpoint_cadence(tmp_path):
  loop.train(loop_test.load(checkpoint__every=2, checkpoint__keep=3, eval__every=0), str(tmp_path),
             quiet=True)
  names = {int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()}
  assert names == {2, 4, 6}


def test_checkpoints_may_lie_elsewhere(tmp_path):
  config = loop_test.load(steps=1, checkpoint__folder=str(tmp_path / "other"), eval__every=0)
  loop.train(config, str(tmp_path / "run"), quiet=True)
  assert (tmp_path / "other" / "1").is_dir() and not (tmp_path / "run" / "checkpoints").exists()
  assert export.load_run(str(tmp_path / "run"), "policy")[0] == 1
