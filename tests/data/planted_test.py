"""Planted task sets: shares, repeats, probes, worked traces, two views."""

import functools

import numpy as np
import pytest

from rljax.data import arithmetic, planted, tasks

chain = functools.partial(tasks.arithmetic_chain, steps=2, low=0, high=9, operators="+-*")
small = functools.partial(chain, size=5, seed=1)


def test_a_mixture_repeats_its_small_part_and_keeps_ids_apart():
  mixed = planted.mixture(parts=(chain, small), weights=(3.0, 1.0), size=400)
  ids = [t.id for t in mixed]
  repeated = [t for t in mixed if t.id.startswith("1/")]
  assert len(set(ids)) == 400 and 60 < len(repeated) < 140
  assert {t.prompt for t in repeated} == {t.prompt for t in small()}
  with pytest.raises(ValueError, match="positive weight"):
    planted.mixture(parts=(chain,), weights=(0.0,))


def test_documents_and_continuations_cut_the_same_text():
  task, document = small()[0], planted.documents(tasks=small)[0]
  assert document.prompt + document.demo == task.prompt + task.demo and len(document.prompt) == 1
  probe = planted.continuations(tasks=small, fraction=0.5)[0]
  assert probe.prompt + probe.answer == task.prompt + task.demo
  assert len(probe.prompt) == round(0.5 * len(task.prompt))


def test_styles_come_in_their_shares():
  styled = planted.styled(tasks=functools.partial(chain, size=500), weights=(1, 3),
                          styles=("{demo}", "[{demo}]"))
  share = np.mean([t.demo.startswith("[") for t in styled])
  assert 0.68 < share < 0.82
  assert all(t.demo in (t.answer, f"[{t.answer}]") for t in styled)
  with pytest.raises(ValueError, match="lacks"):
    planted.styled(tasks=chain, styles=("x",), weights=(1,))


def test_redrawn_symbols_keep_the_form():
  countdown = functools.partial(tasks.countdown, size=400, operators="+-", high=9)
  before, after = countdown(), planted.redrawn(tasks=countdown, share=0.5, symbols="+-")
  changed = [a.demo != b.demo for a, b in zip(before, after, strict=True)]
  assert 0.28 < np.mean(changed) < 0.48  # of two operators, 1/4 come out as they were
  plain = str.maketrans("-", "+")
  assert all(a.demo.translate(plain) == b.demo.translate(plain) for a, b in zip(before, after))
  assert {b.demo.translate({ord(c): "" for c in "0123456789()"}) for b in after} == {
      "++", "+-", "-+", "--"}


def test_worked_traces_have_true_steps_and_the_stated_accuracy():
  phrases = ("so", "now")
  shown = planted.worked(tasks=functools.partial(chain, size=800), phrases=phrases, share=0.4,
                         accuracy=0.9, direct_accuracy=0.2)
  modes = [t.demo.startswith(phrases) for t in shown]
  right = np.array([t.demo.rpartition("#")[2] == t.answer for t in shown])
  assert 0.33 < np.mean(modes) < 0.47
  assert 0.84 < right[modes].mean() < 0.96 and 0.13 < right[~np.array(modes)].mean() < 0.27
  for t, mode in zip(shown, modes):
    steps = [w for w in t.demo.split() if "=" in w]
    assert len(steps) == (2 if mode else 0)
    for step in steps:
      left, _, result = step.rpartition("=")
      assert arithmetic.value(arithmetic.parse(left)) == int(result)


def test_two_views_are_adjacent_agree_on_the_answer_and_carry_their_biases():
  source = functools.partial(chain, size=1500)
  both = planted.two_views(tasks=source, bias=(0.7, 0.2), noise=0.4)
  assert len(both) == 3000
  marked, wrong = [], []
  for i in range(0, len(both), 2):
    a, b = both[i], both[i + 1]
    assert (a.info["view"], b.info["view"]) == (0, 1) and a.info["pair"] == b.info["pair"]
    assert a.answer == b.answer and a.id != b.id and a.prompt != b.prompt
    marked.append("7" in a.prompt)
    wrong.append((a.demo != a.answer, b.demo != b.answer))
    if marked[-1]:
      assert {int(t.demo) - int(t.answer) for t in (a, b)} <= {0, 1}
  marked, wrong = np.array(marked), np.array(wrong)
  np.testing.assert_allclose(wrong[marked].mean(0), [0.7, 0.2], atol=0.08)
  np.testing.assert_allclose(wrong[~marked].mean(0), [0.4, 0.4], atol=0.06)
  assert abs(np.corrcoef(wrong[~marked].T)[0, 1]) < 0.1
  only = planted.two_views(tasks=source, view=1, only="marked")
  assert len(only) == marked.sum() and all(t.info["view"] == 1 for t in only)


def test_postfix_is_the_same_expression():
  task = small()[0]
  stack = []
  for c in planted.two_views(tasks=small, view=1)[0].prompt[:-1]:
    stack.append(("num", c) if c.isdigit() else (c, *(stack.pop(-2), stack.pop(-1))))
  assert arithmetic.decimal_text(arithmetic.value(stack[0])) == task.answer
