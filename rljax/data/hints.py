"""Tasks that carry a prepared hint: `Task.info["hint"]`, "" or absent where there is none.

The hint may come with the data (`datasets.records(hint_field=...)`) or be made from the task here.
Who shows it decides how: `shown` writes it into the prompt by a template.
"""

import dataclasses
import re
from collections.abc import Callable

from rljax import config
from rljax.data import tasks as tasks_lib
from rljax.types import Task

TEMPLATE = "{hint}{prompt}"


def attached(*, tasks: Callable, hint: Callable, template: str = "{hint}",
             on_leak: str = "error") -> tasks_lib.TaskSet:
  """The same tasks with `hint(task)` in their info; a hint "" stays "".

  Args:
    hint: leaf of `(task) -> text`.
    template: how the text is written, such as "H:{hint};".
    on_leak: what to do with a hint that states the final answer, which would teach copying: "error"
      when the task is read, or "drop" the hint.

  Raises:
    ConfigError: such a hint, or an unknown `on_leak`.
  """
  if on_leak not in ("error", "drop"):
    raise config.ConfigError(f"hints: on_leak is 'error' or 'drop', found {on_leak!r}")
  tasks_lib.fill(template, {"hint": ""})
  made = tasks()

  def attach(i):
    task = made[i]
    text = hint(task)
    if text and leaks(text, task):
      if on_leak == "error":
        raise config.ConfigError(f"task {task.id}: its hint {text!r} states the final answer "
                                 f"{task.answer}; on_leak='drop' leaves such hints out")
      text = ""
    text = tasks_lib.fill(template, {"hint": text}) if text else ""
    return dataclasses.replace(task, info={**task.info, "hint": text})

  return tasks_lib.TaskSet(attach, len(made), counts=made.counts)


def leaks(hint: str, task: Task) -> bool:
  """Whether the hint contains the answer as a word or number of its own ("12", not in "3.12")."""
  answer = re.escape(str(task.answer))
  return re.search(rf"(?<![\w.]){answer}(?!\w|\.\w)", hint) is not None


def first_value(task: Task) -> str:
  """The first intermediate result of `chains.running`; "" where it is the only one."""
  first, *more = task.info["values"]
  return str(first) if more else ""


def first_line(task: Task) -> str:
  """The first line of a worked solution (the demo) of several lines; "" of a single one."""
  line, more, _ = task.demo.partition("\n")
  return line if more else ""


def shown(task: Task, template: str = TEMPLATE) -> str | list:
  """The prompt with the hint in it: as text, or in the last message of a chat.

  Args:
    template: with "{hint}" and "{prompt}".
  """
  hint = task.info.get("hint", "")
  if isinstance(task.prompt, str):
    return tasks_lib.fill(template, {"hint": hint, "prompt": task.prompt})
  *before, last = task.prompt
  text = tasks_lib.fill(template, {"hint": hint, "prompt": last["content"]})
  return [*before, {**last, "content": text}]


def in_prompt(*, tasks: Callable, template: str = TEMPLATE) -> tasks_lib.TaskSet:
  """Tasks whose prompt shows the hint, for a base that is to read hints; as `shown`."""
  made = tasks()
  return tasks_lib.TaskSet(
      lambda i: dataclasses.replace(made[i], prompt=shown(made[i], template)), len(made),
      counts=made.counts)
