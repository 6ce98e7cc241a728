"""Where a policy starts: a tiny base trained by recipe to a stated skill, cached.

Each of several hosts trains it alone, or waits for another with the same cache folder.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import re
import zlib

import jax

import rljax
from rljax import config as config_lib
from rljax import recipes
from rljax.train import checkpoint, runlog
from rljax.types import PyTree

ConfigError, fn = config_lib.ConfigError, config_lib.fn


def trained(setup, *, noise: float = 0.4, at_least: float = 0.3, at_most: float = 0.65,
            steps: int = 800, rows: int = 128, lr: float = 3e-3, seed: int = 0,
            problems: int = 500, tasks=None, skill=None, limits: dict | None = None,
            rollout=None, answer=None, pack: tuple[int, int] = (0, 0), init=None) -> PyTree:
  """Trains the role's model on demonstrations of the run's tasks, a stated share of them wrong.

  The noise plants the skill: a model that imitates well is right in about 1 - noise of its samples,
  and knows more than it shows. The base is an ordinary run (the `sft` recipe) in the cache folder,
  found again by the hash of its config and a fingerprint of its tasks; its result.json states the
  skill, measured on the run's first evaluation set at the run's evaluation temperature.

  Args:
    setup: see `rljax.train.build.Setup`.
    noise: share of demonstrations with one wrong digit (`rljax.rollouts.dataset`).
    at_least, at_most: the band in which pass@1 must lie at the end.
    steps, rows, lr: supervised steps, demonstrations per step, AdamW's peak rate (falling to 0).
    seed: of the base, apart from the run's, so that seeds of a run share one base.
    problems: how many measure the skill.
    tasks: leaf of the task set to train on; default the run's own. Trace styles, biases and
      contaminated sets are planted by what its demonstrations say (`rljax.data.planted`).
    skill: leaf of the set that measures the skill, by one sample per problem at temperature 1;
      default the run's first evaluation set and its settings.
    limits: {"prompt", "response"} of the base's own run; default the run's. With these three, arms
      that change the run's tasks, evaluations or limits share one base.
    rollout: leaf of the rollout that demonstrates, in place of the one with `noise`: several turns
      with tools, say (`rljax.rollouts.multi_turn.demonstrations`).
    answer: leaf of the rollout that answers `skill`; default in a single turn.
    pack: rows that the demonstrations of a step share and tokens of one, as of an update: quicker
      where most are much shorter than the limits.
    init: leaf of the weights that it starts from, in place of random ones: another base, say, for
      what has to be learned first.

  Raises:
    ConfigError: no evaluation set, or the band was missed.
  """
  config = _recipe(setup, noise, steps, rows, lr, seed, problems, tasks)
  if skill is not None:
    config.evals = {"skill": skill.leaf}
    config.eval = recipes.sft().eval
    config.eval.limit = problems
    config.eval.rollout = answer and answer.leaf
  config.limits.update(limits or {})
  config.updates.policy.pack, config.updates.policy.pack_length = pack
  if init is not None:
    config.roles.policy.init = init.leaf
  if rollout is not None:
    config.rollout = rollout.leaf
  if not config.evals:
    raise ConfigError("config.evals: a trained base needs an evaluation set to measure its skill")
  params, result, folder = _cached(config, "policy")
  skill = result["eval"]["after"]["pass_at_1"]
  shown = "demonstrations" + ("" if rollout else f" of which {noise:.0%} are wrong")
  print(f"base model: pass@1 {skill:.3f} after {result['steps']} supervised steps on {shown}")
  if not at_least <= skill <= at_most:
    raise ConfigError(
        f"the base model has pass@1 {skill:.3f}, wanted {at_least:g} to {at_most:g}; change "
        f"init.steps or init.noise (its run: {folder}/run)")
  return params


def scorer(setup, *, tasks, skill, rollout=None, objective=None, at_least: float = 0.6,
           at_most: float = 1.0, steps: int = 300, rows: int = 32, lr: float = 1e-3, seed: int = 0,
           problems: int = 200, limits: dict | None = None, init=None) -> PyTree:
  """Trains the role as a reward model on compared responses, to a stated accuracy.

  An ordinary run of the `reward_model` recipe in the cache folder, as in `trained`; a role "policy"
  of the parent's is there to be sampled from, and is not trained.

  Args:
    setup: see `rljax.train.build.Setup`.
    tasks: leaf of the task set to train on.
    skill: leaf of the set whose pairwise accuracy must lie between `at_least` and `at_most`.
    rollout: leaf of the rollout of compared responses, for both; default the given ones
      (`rljax.rollouts.dataset:responses`).
    objective: leaf of the loss; default Bradley-Terry.
    steps, rows, lr: updates, prompts of each, AdamW's peak rate (falling to 0).
    seed: of the base, apart from the run's.
    problems: how many measure the skill.
    limits: {"prompt", "response"} of the base's own run; default the run's.
    init: leaf of the weights that it starts from, under a new head, or "policy" for those of the
      policy's base (InstructGPT, https://arxiv.org/abs/2203.02155, section 3.5); default random.

  Raises:
    ConfigError: the accuracy was missed.
  """
  parent, c = setup.config, recipes.reward_model()
  c.name, c.seed, c.steps, c.prompts = "base", seed, steps, rows
  c.tokenizer, c.tasks, c.evals = parent.tokenizer, tasks.leaf, {"skill": skill.leaf}
  c.limits, c.sampling = parent.limits.copy_and_resolve_references(), parent.sampling
  c.limits.update(limits or {})
  c.roles.reward_model.model = parent.roles[setup.role].model or parent.roles.policy.model
  c.roles.reward_model.head = parent.roles[setup.role].head
  if "policy" in parent.roles:
    c.roles.policy = recipes.role(parent.roles.policy.model, parent.roles.policy.init, train=False)
  if init is not None:
    c.roles.reward_model.init = init if isinstance(init, str) else init.leaf
  if rollout is not None:
    c.rollout = c.eval.rollout = rollout.leaf
  if objective is not None:
    c.updates.reward_model.objective = objective.leaf
  c.updates.reward_model.rows = 2 * rows
  c.updates.reward_model.optimizer = fn("rljax.optim:adamw", lr=lr, decay="linear", steps=steps)
  c.eval.limit, c.checkpoint.every = problems, 200
  params, result, folder = _cached(c, "reward_model")
  found = result["eval"]["after"]["accuracy"]
  print(f"base reward model: accuracy {found:.3f} after {result['steps']} steps")
  if not at_least <= found <= at_most:
    raise ConfigError(f"the base reward model has accuracy {found:.3f}, wanted {at_least:g} to "
                      f"{at_most:g}; its run: {folder}/run")
  return params


def arm(setup, *, config: str) -> PyTree:
  """The role's weights at the end of another run, for a run that is its next stage.

  That run is trained in the cache folder, as a base is, and found there by all that start from it.

  Args:
    setup: see `rljax.train.build.Setup`.
    config: as `--config` takes it, "configs/papers/x.py:quick,arm", without a seed of its own: that
      of the file.
  """
  params, result, folder = _cached(config_lib.load(config), setup.role)
  print(f"starts from {config} after {result['steps']} steps (its run: {folder}/run)")
  return params


def _cached(config, role) -> tuple[PyTree, dict, str]:
  """(the role's weights, result.json, folder) of a run in the cache folder, trained if needed."""
  folder = os.path.join(runlog.cache_folder(), "bases", _fingerprint(config))
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, "lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if this process is killed
    return *_train_or_load(config, folder, role), folder


def _train_or_load(config, folder, role):
  from rljax.train import build, loop  # they know `init` leaves, and so this module, by name only
  workdir = os.path.join(folder, "run")
  result = loop.read_result(workdir)
  if result is None:
    print("training a base model (kept for later runs)")
    params = loop.train(config, workdir, devices=jax.local_devices())[role].params
    return params, loop.read_result(workdir)
  checkpoints = checkpoint.Checkpoints(os.path.join(workdir, "checkpoints"))
  found = checkpoints.restore(
      build.build(config, devices=jax.local_devices()).roles.abstract())
  checkpoints.close()
  if found is None:
    raise ConfigError(f"the base model in {folder} has no checkpoint; delete that folder")
  return found[1][role].params, result


def _recipe(setup, noise, steps, rows, lr, seed, problems, tasks):
  parent, c = setup.config, recipes.sft()
  c.name, c.seed, c.steps, c.prompts = "base", seed, steps, rows
  c.rollout.noise = noise
  c.tokenizer, c.tasks = parent.tokenizer, tasks.leaf if tasks else parent.tasks
  c.roles.policy.model = parent.roles[setup.role].model or parent.roles.policy.model
  c.limits = parent.limits.copy_and_resolve_references()
  c.sampling = parent.sampling
  for name in sorted(parent.evals)[:1]:
    c.evals[name] = parent.evals[name]
  c.eval = parent.eval.copy_and_resolve_references()
  c.eval.every, c.eval.limit = 0, problems
  c.updates.policy.optimizer = fn("rljax.optim:adamw", lr=lr, decay="linear", steps=steps)
  c.checkpoint.every = 200
  return c


def _fingerprint(config) -> str:
  """Hash of the config, the version, what stands in the files that the config names code of, and a
  look at the tasks (a data file may change in place)."""
  tasks = config_lib.bind(config.tasks, where="config.tasks")()
  some = [tasks[i] for i in range(0, len(tasks), max(1, len(tasks) // 16))]
  sample = [(t.id, t.prompt, t.demo, dict(t.info), *(zlib.crc32(x.tobytes()) for x in t.media))
            for t in some]
  files = sorted(set(re.findall(r'"fn": "([^":]+[.]py):', json.dumps(config_lib.to_dict(config)))))
  code = [pathlib.Path(path).read_text() for path in files]
  text = json.dumps([rljax.__version__, config_lib.digest(config), len(tasks), sample, *code],
                    default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
