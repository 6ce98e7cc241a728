"""What a tiny base model is made to know, by what its demonstrations say.

A base imitates `Task.demo` (`rljax.train.base:trained`), so a skill, a habit, a bias or a
contamination is planted by a task set. These functions are config leaves that take leaves of task
sets and return task sets; they draw from (seed, task id) alone.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng
from rljax.data import arithmetic
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


def redrawn(*, tasks: Callable, share: float, symbols: str = "0123456789",
            seed: int = 0) -> tasks_lib.TaskSet:
  """In a `share` of the demos every character of `symbols` is drawn anew, uniformly, from them.

  What the base learns there is the form without the skill: with the operators of an expression as
  symbols, its numbers stay as they are and its value is chance.
  """
  def write(t):
    draws = rng.host(seed, "redrawn", t.id)
    if draws.random() >= share:
      return t
    new = iter(draws.integers(len(symbols), size=len(t.demo)))
    said = "".join(symbols[next(new)] if c in symbols else c for c in t.demo)
    return dataclasses.replace(t, demo=said)
  return _mapped(tasks(), write)


def verified(*, tasks: Callable, verifier: str) -> tasks_lib.TaskSet:
  """The same tasks judged by another verifier, "module:function"."""
  return _mapped(tasks(), lambda t: dataclasses.replace(t, verifier=verifier))


# --- arithmetic that is shown in traces or in two views -------------------------------------------


def worked(*, tasks: Callable, phrases: Sequence[str], share: float = 0.3, accuracy: float = 0.85,
           direct_accuracy: float = 0.15, seed: int = 0) -> tasks_lib.TaskSet:
  """Expressions "3+4*2=": a `share` of the demos is worked out in steps, the rest answers directly.

  Worked: "so 4*2=8 now 3+8=11 #11", each step after one of `phrases`; direct: "#11". A wrong demo
  has a wrong final number (off by 1 to 9). Both modes are right as often as told, so a policy that
  only learns to prefer one mode changes its accuracy by what was planted.

  Args:
    tasks: their prompts are expressions followed by "=", their answers whole numbers.
    phrases: what a step may begin with.
    share: of worked demos. accuracy, direct_accuracy: of the two modes.
  """
  def write(t):
    draws = rng.host(seed, "worked", t.id)
    mode, right = draws.random() < share, draws.random()
    final = int(t.answer)
    if right >= (accuracy if mode else direct_accuracy):
      final += int(draws.choice([-1, 1])) * int(draws.integers(1, 10))
    steps = _steps(arithmetic.parse(t.prompt.removesuffix("="))) if mode else []
    shown = [f"{phrases[draws.integers(len(phrases))]} {s} ".lstrip() for s in steps]
    return dataclasses.replace(t, demo="".join(shown) + f"#{final}")
  return _mapped(tasks(), write)


def _steps(tree) -> list[str]:
  """"4*2=8", "3+8=11": the operations in the order in which they are done."""
  if tree[0] in ("num", "neg"):
    return []
  _, a, b = tree
  left, right = (arithmetic.decimal_text(arithmetic.value(x)) for x in (a, b))
  result = arithmetic.decimal_text(arithmetic.value(tree))
  return [*_steps(a), *_steps(b), f"{left}{tree[0]}{right}={result}"]


def annotated(*, tasks: Callable, letters: int = 40, alphabet: str = "abcdefghijklmnop",
              seed: int = 0) -> tasks_lib.TaskSet:
  """Puts `letters` random letters before the answer, in the demo too: "#11" -> "#kbd...11".

  Free choices that no reasoning predicts: the best log-probability of the answer is
  -letters ln(len(alphabet)), so its probability underflows float32 from about 87 nats on.
  """
  def write(t):
    free = "".join(alphabet[k] for k in rng.host(seed, "letters", t.id).integers(
        len(alphabet), size=letters))
    reasoning, _, final = t.demo.rpartition("#")
    return dataclasses.replace(t, answer=f"{free}{t.answer}", demo=f"{reasoning}#{free}{final}")
  return _mapped(tasks(), write)


def direct(*, tasks: Callable) -> tasks_lib.TaskSet:
  """The same tasks with the true answer as demo and no reasoning: "#11"."""
  return _mapped(tasks(), lambda t: dataclasses.replace(t, demo=f"#{t.answer}"))


def two_views(*, tasks: Callable, bias: Sequence[float] = (0.0, 0.0), marked: str = "7",
              noise: float = 0.0, view: int = -1, only: str = "all",
              seed: int = 0) -> tasks_lib.TaskSet:
  """Every expression twice, adjacent: infix "3+4*2=" (view 0) and postfix "342*+=" (view 1).

  `info` holds `pair` (the task both come from) and `view`; both have one answer, by construction.
  The demos plant errors that depend on the form: where the expression contains `marked`, view v
  answers one too much in a share `bias[v]` of the cases, always the same for one problem;
  elsewhere a share `noise` is off by 1 to 9, drawn for each view apart.

  Args:
    tasks: prompts are expressions of one-digit numbers followed by "=", answers whole numbers.
    view: 0 or 1 keeps that view only; -1 both.
    only: "marked" keeps the problems that contain it, "unmarked" the others, "all" all.

  Raises:
    ValueError: an unknown view or selection.
  """
  if view not in (-1, 0, 1) or only not in ("all", "marked", "unmarked"):
    raise ValueError(f"two_views: view is -1, 0 or 1 and only is all, marked or unmarked; found "
                     f"{view} and {only!r}")
  source = tasks()
  kept = range(len(source)) if only == "all" else [
      i for i in range(len(source)) if (marked in source[i].prompt) == (only == "marked")]
  views = (0, 1) if view < 0 else (view,)

  def draw(i):
    task, v = source[kept[i // len(views)]], views[i % len(views)]
    draws = rng.host(seed, "view", task.id, v)
    final, wrong = int(task.answer), draws.random()
    if marked in task.prompt:
      final += int(wrong < bias[v])
    elif wrong < noise:
      final += int(draws.choice([-1, 1])) * int(draws.integers(1, 10))
    prompt = task.prompt if v == 0 else _postfix(arithmetic.parse(task.prompt[:-1])) + "="
    return dataclasses.replace(task, id=f"{task.id}/{v}", prompt=prompt, demo=str(final),
                               info={**task.info, "pair": task.id, "view": v})

  return tasks_lib.TaskSet(draw, len(kept) * len(views))


def _postfix(tree) -> str:
  return tree[1] if tree[0] == "num" else _postfix(tree[1]) + _postfix(tree[2]) + tree[0]
