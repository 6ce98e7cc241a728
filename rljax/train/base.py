"""Where a policy starts: a tiny base trained by recipe to a stated skill, cached."""

import fcntl
import hashlib
import json
import logging
import os

import rljax
from rljax import config as config_lib
from rljax import recipes
from rljax.train import checkpoint
from rljax.types import PyTree

log = logging.getLogger(__name__)
ConfigError = config_lib.ConfigError


def cache_folder() -> str:
  """$RLJAX_CACHE, or rljax under the user's cache folder."""
  home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return os.environ.get("RLJAX_CACHE") or os.path.join(home, "rljax")


def trained(setup, *, at_least: float = 0.4, at_most: float = 0.65, metric: str = "pass_at_1",
            steps: int = 3000, rows: int = 256, every: int = 25, seed: int = 0,
            problems: int = 500, lr: float = 3e-3) -> PyTree:
  """Trains the role's model on the demonstrations of the run's tasks until it has the wanted skill.

  The base is an ordinary run (the `sft` recipe) in the cache folder, found again by the hash of its
  config and a fingerprint of its tasks; its result.json states the skill. Skill is measured on the
  run's first evaluation set, at the run's evaluation temperature.

  Args:
    setup: see `rljax.train.build.Setup`.
    at_least, at_most: the band in which `metric` must lie when training stops.
    steps: give up after this many. rows: demonstrations per step. every: steps between measurements.
    seed: of the base, apart from the run's, so that seeds of a run share one base.
    problems: how many measure the skill.
    lr: learning rate of AdamW.

  Raises:
    ConfigError: no evaluation set, or the band was missed.
  """
  config = _recipe(setup.config, at_least, metric, steps, rows, every, seed, problems, lr)
  folder = os.path.join(cache_folder(), "bases", _fingerprint(config))
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, "lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if this process is killed
    return _train_or_load(config, folder, metric, at_least, at_most, setup)


def _train_or_load(config, folder, metric, at_least, at_most, setup):
  from rljax.train import build, loop  # they know `init` leaves, and so this module, by name only
  workdir = os.path.join(folder, "run")
  result = loop.read_result(workdir)
  if result is None:
    print(f"training a base model to {metric} >= {at_least:g} (cached afterwards)")
    params = loop.train(config, workdir)["policy"].params
    result = loop.read_result(workdir)
  else:
    roles = build.build(config).roles
    found = checkpoint.Checkpoints(os.path.join(workdir, "checkpoints")).restore(roles.abstract())
    if found is None:
      raise ConfigError(f"the base model in {folder} has no checkpoint; delete that folder")
    params = found[1]["policy"].params
  skill = result["eval"]["after"][metric]
  print(f"base model: {metric} {skill:.3f} after {result['steps']} supervised steps")
  if not at_least <= skill <= at_most:
    raise ConfigError(
        f"the base model has {metric} {skill:.3f}, wanted {at_least:g} to {at_most:g}; change "
        f"init.steps or init.every (its run: {workdir})")
  return params


def _recipe(parent, at_least, metric, steps, rows, every, seed, problems, lr):
  if not parent.evals:
    raise ConfigError("config.evals: a trained base needs an evaluation set to measure its skill")
  name = sorted(parent.evals)[0]
  c = recipes.sft()
  c.name, c.seed, c.steps, c.prompts = "base", seed, steps, rows
  c.tokenizer, c.tasks = parent.tokenizer, parent.tasks
  c.roles.policy.model = parent.roles.policy.model
  c.limits = parent.limits
  c.sampling = parent.sampling
  c.evals[name] = parent.evals[name]
  c.eval.update({"every": every, "limit": problems, "temperature": parent.eval.temperature,
                 "greedy": parent.eval.greedy})
  c.eval.verifier = parent.eval.verifier
  c.until.metric, c.until.at_least = f"eval/{name}/{metric}", at_least
  c.updates.policy.optimizer.lr = lr
  c.checkpoint.every = 4 * every
  return c


def _fingerprint(config) -> str:
  """Hash of the config, the version, and a look at the tasks (a data file may change in place)."""
  tasks = config_lib.bind(config.tasks, where="config.tasks")()
  sample = [(tasks[i].id, tasks[i].prompt, tasks[i].demo)
            for i in range(0, len(tasks), max(1, len(tasks) // 16))]
  text = json.dumps([rljax.__version__, config_lib.digest(config), len(tasks), sample], default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
