"""What a tiny base model is made to know, by what its demonstrations say.

A base imitates `Task.demo` (`rljax.train.base:trained`), so a skill, a habit, a bias or a
contamination is planted by a task set. These functions are config leaves that take leaves of task
sets and return task sets; they draw from (seed, task id) alone.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng
from rljax.data import tasks as tasks_lib
from rljax.types import Task


def _mapped(tasks: tasks_lib.TaskSet, change: Callable[[Task], Task]) -> tasks_lib.TaskSet:
  return tasks_lib.TaskSet(lambda i: change(tasks[i]), len(tasks), counts=tasks.counts)


def _share(seed: int, stream: str, task: Task) -> float:
  return float(rng.host(seed, stream, task.id).random())


def mixture(*, parts: Sequence[Callable], weights: Sequence[float], size: int = 20000,
            seed: int = 0) -> tasks_lib.TaskSet:
  """Task i is the next task of part k, with k drawn by weight.

  A part smaller than its share is repeated: a contaminated set is a small part with a large weight.

  Args:
    parts: task sets.
    weights: of the parts, any scale.
    size: of the mixture.

  Raises:
    ValueError: not one positive weight per part.
  """
  if len(parts) != len(weights) or not parts or min(weights) <= 0:
    raise ValueError(f"mixture needs a positive weight for each of its {len(parts)} parts, "
                     f"found {tuple(weights)}")
  sets = [part() for part in parts]
  share = np.asarray(weights, float) / np.sum(weights)
  which = rng.host(seed, "mixture").choice(len(sets), size, p=share)
  nth = np.zeros(size, int)
  for k in range(len(sets)):
    nth[which == k] = np.arange((which == k).sum())

  def draw(i):
    k = which[i]
    task = sets[k][int(nth[i]) % len(sets[k])]
    return dataclasses.replace(task, id=f"{k}/{task.id}/{nth[i] // len(sets[k])}")

  return tasks_lib.TaskSet(draw, size)


def documents(*, tasks: Callable, start: int = 1) -> tasks_lib.TaskSet:
  """The first `start` characters of the prompt, then all the rest, question and answer, as demo.

  A base trained on these can go on with a question it was shown often, which is how contamination
  is measured.
  """
  return _mapped(tasks(), lambda t: dataclasses.replace(
      t, prompt=t.prompt[:start], demo=t.prompt[start:] + t.demo, answer=t.prompt[start:] + t.demo,
      verifier="rljax.rewards.verify:exact"))


def continuations(*, tasks: Callable, fraction: float = 0.6) -> tasks_lib.TaskSet:
  """Prompt: the first `fraction` of the question; answer: the rest of it and the solution, exactly.

  The contamination probe of RandomCalculation, https://arxiv.org/abs/2507.10532: a model that goes
  on word for word has seen the problem.
  """
  def cut(t):
    at = max(1, round(fraction * len(t.prompt)))
    rest = t.prompt[at:] + t.demo
    return dataclasses.replace(t, prompt=t.prompt[:at], demo=rest, answer=rest,
                               verifier="rljax.rewards.verify:exact")
  return _mapped(tasks(), cut)


def styled(*, tasks: Callable, styles: Sequence[str], weights: Sequence[float],
           seed: int = 0) -> tasks_lib.TaskSet:
  """Writes the demo in one of several formats, drawn per task: "{demo}", "[{demo}]", ...

  Raises:
    ValueError: not one positive weight per style, or a style without "{demo}".
  """
  if len(styles) != len(weights) or not styles or min(weights) <= 0:
    raise ValueError(f"styled needs a positive weight for each of its {len(styles)} styles")
  edges = np.cumsum(np.asarray(weights, float) / np.sum(weights))

  def write(t):
    k = min(int(np.searchsorted(edges, _share(seed, "style", t))), len(styles) - 1)
    return dataclasses.replace(t, demo=tasks_lib.fill(styles[k], {"demo": t.demo}))
  for style in styles:
    tasks_lib.fill(style, {"demo": ""})
  return _mapped(tasks(), write)


def verified(*, tasks: Callable, verifier: str) -> tasks_lib.TaskSet:
  """The same tasks judged by another verifier, "module:function"."""
  return _mapped(tasks(), lambda t: dataclasses.replace(t, verifier=verifier))
