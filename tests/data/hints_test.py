"""Hints: what they say, that they do not say the answer, and how a prompt shows them."""

import functools

import pytest

from rljax import config, types
from rljax.data import chains, datasets, hints, tasks

chain = functools.partial(chains.running, steps=4, min_steps=1, size=200)


def made(prompt, answer, demo="", **info):
  return functools.partial(tasks.TaskSet, [types.Task("t", prompt, answer, demo=demo, info=info)])


def test_attached_hints_are_true_and_never_the_answer():
  with_hint = 0
  for task in hints.attached(tasks=chain, hint=hints.first_value, template="H:{hint};"):
    hint, a, op, b = task.info["hint"], *task.prompt[:3]
    assert (task.info["steps"] == 1) == (hint == "")
    if hint:
      assert hint == f"H:{eval(a + op + b) % 10};" and not hints.leaks(hint, task)
      with_hint += 1
  assert with_hint > 100


def test_a_hint_that_states_the_answer_is_refused_or_dropped():
  source = made("3+4-4+4=", "7", values=[7, 3, 7])
  with pytest.raises(config.ConfigError, match="task t: its hint '7' states the final answer 7"):
    hints.attached(tasks=source, hint=hints.first_value)[0]
  kept = hints.attached(tasks=source, hint=hints.first_value, on_leak="drop", template="H:{hint};")
  assert kept[0].info["hint"] == ""
  with pytest.raises(config.ConfigError, match="on_leak"):
    hints.attached(tasks=source, hint=hints.first_value, on_leak="ignore")
  with pytest.raises(ValueError, match="lacks"):
    hints.attached(tasks=source, hint=hints.first_value, template="H")


@pytest.mark.parametrize("hint, leak", [
    ("so 12 it is", True), ("12", True), ("112", False), ("3.12", False), ("12.5", False),
    ("it is 12.", True), ("x=12", True), ("", False)])
def test_leaks(hint, leak):
  assert hints.leaks(hint, types.Task("t", "?", "12")) == leak


def test_first_line_of_a_worked_solution():
  assert hints.first_line(types.Task("t", "?", demo="3+4=7\n7*2=14\n#### 14")) == "3+4=7"
  assert hints.first_line(types.Task("t", "?", demo="#### 14")) == ""


def test_shown_in_text_and_in_the_last_message():
  task = types.Task("t", "2+3+4=", info={"hint": "H:5;"})
  assert hints.shown(task) == "H:5;2+3+4="
  assert hints.shown(task, "{prompt}\nHint: {hint}") == "2+3+4=\nHint: H:5;"
  chat = types.Task("t", [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
                    info={"hint": "h"})
  assert hints.shown(chat, "{prompt} ({hint})") == [
      {"role": "system", "content": "s"}, {"role": "user", "content": "q (h)"}]
  assert hints.shown(types.Task("t", "2+3=")) == "2+3="
  read = hints.in_prompt(tasks=lambda: tasks.TaskSet([task]))
  assert read[0].prompt == "H:5;2+3+4=" and len(read) == 1


def test_hints_of_a_file(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"q": "x", "a": "1", "h": "look"}\n')
  read = functools.partial(datasets.records, path=str(path), prompt_field="q", answer_field="a")
  assert read(hint_field="h")[0].info == {"hint": "look"} and read()[0].info == {}
  with pytest.raises(config.ConfigError, match="no field 'hh'"):
    read(hint_field="hh")
