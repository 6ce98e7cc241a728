"""Noisy rewards: what counts as an answer in the tiny traces, "... #11"."""

import re

from rljax.types import Task

_ANSWER = re.compile(r"#(-?[0-9]{1,6})$")


def answer(text: str) -> str | None:
  """The number after the mark at the end of a response; None if there is none."""
  found = _ANSWER.search(text)
  return found[1] if found else None


def correct(task: Task, text: str) -> float:
  """1 if the marked number is the task's answer."""
  return float(answer(text) == str(task.answer))
