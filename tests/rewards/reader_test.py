"""The blind reader: who is asked, with what, and what earns nothing."""

import dataclasses
import re

import numpy as np
import pytest

from rljax import config
from rljax.evals import shortcut
from rljax.rewards import reader
from tests.rewards import judge_test, make

FORM = r"\[(?P<description>[^\[\]]*)\]\([^()]*\)=(?P<answer>.)"
TOY = dict(form=FORM, mark="=", template="[{description}]{question}")
close = np.testing.assert_allclose


def episodes(*said, answer="r"):
  return [make.episode(s, answer=answer, info={"question": "s:"}, name=str(i))
          for i, s in enumerate(said)]


def looks_up():
  """Says the colour that stands before an s in the description, else "(s)=?"."""
  def answer(prompt):
    found = re.search(r"(\w)s.*\]s:$", prompt)
    return f"(s)={found[1] if found else '?'}"
  return judge_test.Speaker(answer)


def test_the_reader_sees_the_description_and_the_question_and_no_image():
  s = looks_up()
  seen = []
  ask = s.sample
  s.sample = lambda role, prompts, seeds, **k: seen.extend(
      s.tokenizer.decode(p) for p in prompts) or ask(role, prompts, seeds, **k)
  found = reader.sufficient(episodes("[1rs2bd](s)=r", "[2bd](s)=r", "[1gs](s)=r"), s.ctx(), **TOY)
  close(found, [1, 0, 0])
  assert seen == ["[1rs2bd]s:", "[2bd]s:", "[1gs]s:"]
  assert s.calls == [("policy", 3, {"greedy": True})]
  reader.sufficient(episodes("[1rs](s)=r"), s.ctx(), role="ref", greedy=False, max_tokens=6, **TOY)
  assert s.calls[-1] == ("ref", 1, {"greedy": False, "max_tokens": 6})


def test_without_the_form_the_whole_response_is_read():
  close(reader.sufficient(episodes("1rs", "[1rs]=r", "[1bs] and"), looks_up().ctx(), **TOY),
        [1, 1, 0])


def test_an_empty_description_earns_nothing():
  s = judge_test.Speaker(lambda p: "=r")  # a reader who guesses right
  close(reader.sufficient(episodes("[](s)=r", "", "[ ](s)=r", "[1rs](s)=r"), s.ctx(), **TOY),
        [0, 0, 0, 1])
  assert reader.sufficient(episodes(""), s.ctx(), **TOY) == [0] and len(s.calls) == 1


def test_an_answer_in_the_description_earns_nothing():
  s = judge_test.Speaker(lambda p: "=r")
  ctx = s.ctx()
  found = reader.sufficient(
      episodes("[r](s)=r", "[answer r](s)=r", "[1rs](s)=r", "[1rsr](s)=r", "[1rs2bd](s)=r"), ctx,
      grammar="([123][rgby][sdtc])*", **TOY)
  close(found, [0, 0, 1, 0, 1])
  assert ctx.faults == {"off_grammar": 3} and s.calls[0][1] == 2


def test_a_long_prompt_is_an_error_or_cut_at_the_left_and_never_in_the_question():
  s = looks_up()
  long = episodes("[1bd2gt3rs](s)=r")
  with pytest.raises(config.ConfigError, match="has 13 tokens, and 8 fit"):
    reader.sufficient(long, s.ctx(), longest=8, **TOY)
  seen, ctx = [], s.ctx()
  s.answer = lambda p: seen.append(p) or "=r"
  close(reader.sufficient(long, ctx, longest=8, on_long="left", **TOY), [1])
  assert seen == ["[t3rs]s:"] and ctx.faults == {"cut_descriptions": 1}
  with pytest.raises(config.ConfigError, match="never the question"):
    reader.sufficient(long, s.ctx(), longest=3, on_long="left", **TOY)
  with pytest.raises(config.ConfigError, match="'error' or 'left'"):
    reader.sufficient(long, s.ctx(), on_long="right", **TOY)
  with pytest.raises(config.ConfigError, match="no info"):
    reader.sufficient([make.episode("x")], s.ctx(), **TOY)
  with pytest.raises(config.ConfigError, match="no sampler"):
    reader.sufficient(long, None, **TOY)


def test_answer_and_form_are_judged_apart():
  some = episodes("[1rs](s)=r", "=r", "[1rs](s)=b", "[1rs](s)=r!", "", "[1rs](s)=")
  close(reader.answered(some, None, mark="="), [1, 1, 0, 0, 0, 0])
  close(reader.formed(some, None, form=FORM), [1, 0, 1, 0, 0, 0])
  tags = ["<description>d</description>\n<think>t</think>\n\\boxed{r}",
          "<think>t</think><description>d</description>\\boxed{r}",
          "<description>d</description><think>t</think>\\boxed{r} so"]
  close(reader.formed(episodes(*tags), None), [1, 0, 0])
  close(reader.answered(episodes(*tags), None), [1, 1, 1])


def test_the_shortcut_rate_by_hand():
  # Right and read, right and not read (twice), wrong and read, wrong and not read.
  assert shortcut.rate([1, 1, 1, 0, 0], [1, 0, 0, 1, 0]) == pytest.approx(2 / 3)
  assert shortcut.rate([0, 0], [1, 0]) == 0.0 and shortcut.rate([1, 1], [1, 1]) == 0.0


def test_the_measure_asks_the_given_reader():
  some = episodes("[1rs](s)=r", "[2bd](s)=r", "[1bs](s)=b", "[](s)=r")
  right = reader.answered(some, None, mark="=")
  scored = [make_scored(e, r) for e, r in zip(some, right)]
  s = looks_up()
  found = shortcut.measure(scored, 4, s.ctx(), reader=lambda e, ctx: reader.sufficient(
      e, ctx, role="ref", **TOY))
  assert s.calls[0][0] == "ref"
  assert found == {"accuracy": 0.75, "sufficiency": 0.25, "shortcut": pytest.approx(2 / 3)}


def make_scored(episode, right):
  return dataclasses.replace(episode, scores={"correct": float(right)},
                             group=int(episode.task.id))
