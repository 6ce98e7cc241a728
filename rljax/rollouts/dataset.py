"""Episodes that were not sampled: demonstrations of the tasks, for supervised training."""

from typing import Mapping, Sequence

from rljax import config as config_lib
from rljax import types
from rljax.rollouts import single_turn


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, role: str = "policy",
                   env=None) -> list[types.Episode]:
  """One episode per task whose response is `task.demo`, end token included. Nothing is sampled.

  Raises:
    ConfigError: a task without a demonstration.
  """
  del key, env
  tokenizer = samplers[role].tokenizer
  episodes = []
  for i, task in enumerate(tasks):
    if not task.demo:
      raise config_lib.ConfigError(f"task {task.id} has no demonstration to train on")
    turns = (types.Turn("user", tokenizer.render(task.prompt), text=single_turn.text_of(task.prompt)),
             types.Turn("assistant", tokenizer.response(task.demo), text=task.demo))
    episodes.append(types.Episode(task, turns, group=i))
  return episodes
