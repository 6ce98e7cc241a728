"""Pairs from verified samples: what a rewrite keeps, which prompts give none, how they are read."""

import re

import numpy as np
import pytest

from rljax import rng, types
from rljax.data import text as text_lib
from rljax.data import verified
from rljax.rewards import run
from tests.rewards import make

TEMPLATE = "{prompt}{answer}:{response}"


def ctx(seed=0):
  return run.Context(step=3, seed=seed, tokenizer=text_lib.byte())


def rule(episodes, ctx):
  return np.array([float("#" in e.response) for e in episodes])


def last_number(text):
  return re.findall(r"\d+", text)[-1] if re.search(r"\d", text) else None


@pytest.mark.parametrize("text", ["7;#12!", "1+2=3;3-9=-6;=9.0", "-3;ans -10", "5", "0", "99;100"])
def test_a_near_miss_changes_the_last_number_and_one_earlier_and_keeps_the_style(text):
  seen = set()
  for k in range(40):
    new = verified.near_miss(text, rng.host(0, "t", k))
    assert re.sub(r"\d", "x", new) == re.sub(r"\d", "x", text)  # length, signs, mark, decimals
    whole = [[m[0] for m in re.finditer(r"(?<![.\d])\d+", t)] for t in (text, new)]
    changed = [a != b for a, b in zip(*whole)]
    assert changed[-1] and sum(changed) == min(2, len(changed))
    assert all(abs(int(a) - int(b)) <= 5 for a, b in zip(*whole))
    assert re.findall(r"\.\d+", new) == re.findall(r"\.\d+", text)
    seen.add(new)
  assert len(seen) > 3
  assert verified.near_miss("no number", rng.host(0, "t")) == "no number"


def test_the_first_verified_sample_meets_its_own_rewrite():
  group = [make.episode(t, answer=12, prompt="q") for t in ("12", "5;#12!", "6;#12")]
  c = ctx()
  good, bad = verified.verified_pairs(group, c, rule=rule, template=TEMPLATE, answer=last_number)
  assert [e.response for e in (good, bad)][0] == "5;#12!"
  assert last_number(bad.response) != "12" and bad.response.endswith("!")
  assert [t.text for t in good.turns] == ["q12:", "5;#12!"] and good.turns[0].role == "user"
  np.testing.assert_array_equal(good.turns[1].tokens, [*b"5;#12!", 256])  # with the end token
  assert good.turns[1].logp is None and not c.faults
  again = verified.verified_pairs(group, ctx(), rule=rule, template=TEMPLATE, answer=last_number)
  assert again[1].response == bad.response
  other = {verified.verified_pairs(group, ctx(s), rule=rule, template=TEMPLATE,
                                   answer=last_number)[1].response for s in range(8)}
  assert len(other) > 1


def test_prompts_without_a_pair_are_left_out_and_counted():
  nobody = [make.episode("12", answer=12), make.episode("3", answer=12)]
  failed = [make.episode("#12", answer=12, group=1, status=types.ERROR)]
  kept = [make.episode("#12", answer=12, group=2)]
  c = ctx()
  out = verified.verified_pairs(nobody + failed + kept, c, rule=rule, template=TEMPLATE,
                                answer=last_number)
  assert [e.group for e in out] == [2, 2] and c.faults == {"no_positive": 1}
  for rewrite, answer in ((lambda text, draws: text, last_number),  # never changes
                          (lambda text, draws: "7!" + text, last_number),  # same answer
                          (lambda text, draws: "wrong", last_number)):  # cannot be read
    c = ctx()
    assert verified.verified_pairs(kept, c, rule=rule, template=TEMPLATE, rewrite=rewrite,
                                   answer=answer) == []
    assert c.faults == {"no_negative": 1}


def test_the_rewrite_has_a_few_tries():
  texts = iter(["#12", "wrong", "#13", "#14"])
  out = verified.verified_pairs([make.episode("#12", answer=12)], ctx(), rule=rule,
                                template=TEMPLATE, rewrite=lambda text, draws: next(texts),
                                answer=last_number)
  assert out[1].response == "#13"
  texts = iter(["#12", "wrong", "#13"])
  assert verified.verified_pairs([make.episode("#12", answer=12)], ctx(), rule=rule, tries=2,
                                 template=TEMPLATE, rewrite=lambda text, draws: next(texts),
                                 answer=last_number) == []


def test_without_rewriting_the_negative_is_what_the_rule_rejects():
  group = [make.episode(t, answer=12) for t in ("#12", "12", "9")]
  c = ctx()
  pair = verified.verified_pairs(group, c, rule=rule, template=TEMPLATE, rewrite=None)
  assert [e.response for e in pair] == ["#12", "12"]  # right, but not as the rule wants it
  assert verified.verified_pairs(group[:1], c, rule=rule, template=TEMPLATE, rewrite=None) == []
  assert c.faults == {"no_negative": 1}


def test_a_template_must_end_with_the_response():
  with pytest.raises(ValueError, match="does not end with {response}"):
    verified.read(make.episode("x"), "y", "{response}{answer}", text_lib.byte())
