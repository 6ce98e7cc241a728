"""Episodes that were not sampled: demonstrations of the tasks, for supervised training."""

from collections.abc import Mapping, Sequence

from rljax import config as config_lib
from rljax import rng, types
from rljax.rollouts import single_turn


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, role: str = "policy",
                   env=None, noise: float = 0.0) -> list[types.Episode]:
  """One episode per task whose response is `task.demo`, end token included. Nothing is sampled.

  Args:
    noise: share of the demonstrations in which one digit is replaced by another, drawn per task
      (the same task is always shown the same way). A model that learns them well is right in about
      1 - noise of its samples: a skill planted below what it could do.

  Raises:
    ConfigError: a task without a demonstration.
  """
  del key, env
  tokenizer = samplers[role].tokenizer
  episodes = []
  for i, task in enumerate(tasks):
    if not task.demo:
      raise config_lib.ConfigError(f"task {task.id} has no demonstration to train on")
    demo = _corrupted(task, noise) if noise else task.demo
    turns = (types.Turn("user", tokenizer.render(task.prompt),
                        text=single_turn.text_of(task.prompt)),
             types.Turn("assistant", tokenizer.response(demo), text=demo))
    episodes.append(types.Episode(task, turns, group=i))
  return episodes


def _corrupted(task: types.Task, noise: float) -> str:
  """The demonstration, with probability `noise` with one wrong digit."""
  random = rng.host(0, "demo noise", task.id)
  digits = [i for i, c in enumerate(task.demo) if c.isdigit()]
  if not digits or random.random() >= noise:
    return task.demo
  at = digits[random.integers(len(digits))]
  wrong = str((int(task.demo[at]) + int(random.integers(1, 10))) % 10)
  return task.demo[:at] + wrong + task.demo[at + 1:]
