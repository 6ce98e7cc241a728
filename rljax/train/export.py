"""`rljax-export`: the weights of a run as a Hugging Face folder."""

import json
import os

import ml_collections

from rljax import config as config_lib
from rljax.models import export, hf
from rljax.train import build, checkpoint

ConfigError = config_lib.ConfigError


def load_run(workdir: str, role: str) -> tuple[int, build.Run, ml_collections.ConfigDict]:
  """The newest checkpoint of a run: its step, the run with all weights, and its config.

  Raises:
    ConfigError: no run, no such role, no checkpoint.
  """
  path = os.path.join(workdir, "config.json")
  if not os.path.exists(path):
    raise ConfigError(f"{workdir} is not a run folder: it has no config.json")
  with open(path) as f:
    config = ml_collections.ConfigDict(json.load(f)["config"])
  run = build.build(config)
  if role not in run.roles.specs:
    raise ConfigError(f"there is no role {role!r}; there is: {', '.join(run.roles.specs)}")
  checkpoints = checkpoint.Checkpoints(checkpoint.folder_of(config, workdir))
  found = checkpoints.restore(run.roles.abstract())
  checkpoints.close()
  if found is None:
    raise ConfigError(f"{workdir} has no checkpoint")
  step, saved, _ = found
  run.roles.restore(saved)
  return step, run, config


def export_run(workdir: str, folder: str, *, role: str = "policy", dtype: str = "") -> int:
  """Writes the newest checkpoint of a run's role, merged with its adapters, and its tokenizer.

  Args:
    workdir: the run folder. folder: where to; files of an earlier export are replaced.
    role: whose weights. dtype: of the tensors, "" = that of the weights.

  Returns:
    The step of the checkpoint.

  Raises:
    ConfigError: as `load_run`, or a model no architecture can express.
  """
  step, run, config = load_run(workdir, role)
  owner = config.roles[role].model or config.roles.policy.model
  template = hf.read_config(owner.path) if "path" in owner else None
  export.write(run.roles.specs[role].policy, run.roles.params(role), folder, dtype=dtype,
               template=template, tokenizer=run.tokenizer)
  return step
