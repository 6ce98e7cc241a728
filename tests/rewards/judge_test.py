"""Judges: a parser that does not guess, both orders, and what cannot be read is counted."""

import types as python_types

import numpy as np
import pytest

from rljax import config
from rljax.data import text as text_lib
from rljax.rewards import judge, model, run
from tests.rewards import make

NAN = float("nan")
close = np.testing.assert_allclose


@pytest.mark.parametrize("text, score", [
    ("Score: 7", 7), ("good.\n**Score:** 7.5/10", 7.5), ("score is 3 ... Score: 4", 4), ("8", 8),
    ("fine\n8/10", 8), ("Rating: [[6]]", 6), ("\\boxed{5}", 5), ("Score: <answer>2</answer>", 2),
    ("Score: 0", 0), ("grade of 10.", 10), ("Score: 11", NAN), ("Score: -1", NAN), ("", NAN),
    ("I like 7 things", NAN), ("Score: high", NAN), ("7 or 8", NAN), ("Score:", NAN),
    ("nan", NAN), ("Score: 1e9", 1), ("Score: " + "9" * 400, NAN)])
def test_read_score(text, score):
  close(judge.read_score(text, 0, 10), score)


@pytest.mark.parametrize("text, verdict", [
    ("Verdict: A", "A"), ("**Verdict**: B", "B"), ("Verdict: [[C]]", "C"), ("x\nB", "B"),
    ("verdict: A\nVerdict: B", "B"), ("The better answer is A.", "A"), ("[[A]]", "A"),
    ("Winner: Answer B", "B"), ("\\boxed{A}", "A"), ("", ""), ("A is good, B is bad", ""),
    ("Verdict: D", ""), ("Verdict: a", ""), ("verdict: Both", ""), ("A or B", ""),
    ("Verdict: A's", "")])
def test_read_verdict(text, verdict):
  assert judge.read_verdict(text) == verdict


class Speaker:
  """A sampler that answers prompts with a function of their text, and remembers the settings."""

  def __init__(self, answer):
    self.answer, self.tokenizer, self.calls = answer, text_lib.byte(), []

  def ctx(self):
    return run.Context(step=3, seed=0, tokenizer=self.tokenizer, sample=self.sample)

  def sample(self, role, prompts, seeds, **settings):
    self.calls.append((role, len(prompts), settings))
    assert len(set(seeds)) == len(prompts)
    texts = [self.answer(self.tokenizer.decode(p)) for p in prompts]
    return [python_types.SimpleNamespace(tokens=self.tokenizer.encode(t)) for t in texts]


def test_pointwise():
  answers = {"good": "Score: 8", "bad": "Score: 2", "odd": "what?"}
  s = Speaker(lambda p: answers[p.partition("Answer: ")[2].partition("\n")[0]])
  episodes = [make.episode(t) for t in ("good", "bad", "odd")]
  ctx = s.ctx()
  close(judge.pointwise(episodes, ctx), [0.8, 0.2, NAN])
  assert ctx.faults == {"judge_unparsed": 1} and s.calls == [("judge", 3, {"temperature": 1.0})]
  close(judge.pointwise(episodes, s.ctx(), low=-2, high=18, unparsed=-1.0), [0.5, 0.2, -1])
  judge.pointwise(episodes, s.ctx(), role="policy", votes=2, temperature=0.5, max_tokens=9)
  assert s.calls[-1] == ("policy", 6, {"temperature": 0.5, "max_tokens": 9})
  own = Speaker(lambda p: p)
  close(judge.pointwise([make.episode("9")], own.ctx(), template="{prompt} Score: {response}"),
        [0.9])


def test_pointwise_votes_that_can_be_read_count():
  said = iter(["Score: 4", "hm", "Score: 8"])
  close(judge.pointwise([make.episode("x")], Speaker(lambda p: next(said)).ctx(), votes=3), [0.6])


@pytest.mark.parametrize("knobs, message", [
    ({"low": 5.0, "high": 5.0}, "low < high"), ({"votes": 0}, "votes >= 1"),
    ({"template": "{question}"}, "cannot be filled")])
def test_pointwise_refuses(knobs, message):
  with pytest.raises(config.ConfigError, match=message):
    judge.pointwise([make.episode("x")], Speaker(str).ctx(), **knobs)
  with pytest.raises(config.ConfigError, match="no sampler"):
    judge.pointwise([make.episode("x")], run.Context(step=0, seed=0, tokenizer=text_lib.byte()))


def compare(prompt):
  """Prefers the longer answer."""
  a, b = (prompt.partition(f"Answer {x}: ")[2].partition("\n")[0] for x in "AB")
  return "Verdict: " + ("C" if len(a) == len(b) else "A" if len(a) > len(b) else "B")


def test_prefer_in_both_orders():
  s = Speaker(compare)
  out = judge.prefer(["q"] * 3, ["xxx", "x", "xx"], ["x", "xxx", "xx"], s.ctx())
  close(out, [[1, 1], [0, 0], [0.5, 0.5]])
  close(judge.prefer(["q"], ["x"], ["y"], Speaker(lambda p: "Verdict: A").ctx()), [[1, 0]])
  one = judge.prefer(["q"], ["x"], ["y"], Speaker(lambda p: "Verdict: A").ctx(), both_orders=False)
  close(one, [[1]])
  ctx = Speaker(lambda p: "?").ctx()
  unread = judge.prefer(["q"], ["x"], ["y"], ctx)
  assert np.isnan(unread).all() and ctx.faults["judge_unparsed"] == 2


def test_win_rate():
  episodes = [make.episode("x" * n, group=g) for n, g in ((1, 0), (2, 0), (3, 0), (9, 1), (9, 1))]
  s = Speaker(compare)
  close(judge.win_rate(episodes, s.ctx()), [0, 0.5, 1, 0.5, 0.5])
  assert s.calls[-1][1] == 2 * (3 + 1)
  judge.win_rate(episodes, s.ctx(), both_orders=False)
  assert s.calls[-1][1] == 4
  four = [make.episode("x" * n) for n in (1, 2, 3, 4)]
  close(judge.win_rate(four, s.ctx(), opponents=1), [0, 0.5, 0.5, 1])
  biased = judge.win_rate(episodes, Speaker(lambda p: "Verdict: A").ctx())
  close(biased, [0.5] * 5)  # a judge that looks at the order alone gives nobody an advantage
  assert np.isnan(judge.win_rate([make.episode("x")], s.ctx())).all()


def test_against_random_asks_for_agreement():
  episodes = [make.episode("x" * n) for n in (1, 2, 3, 4)]
  out = judge.against_random(episodes, Speaker(compare).ctx())
  ref = int(np.flatnonzero(out == 0)[0])
  assert out.tolist() == [float(np.sign(i - ref)) for i in range(4)]
  one_order = judge.against_random(episodes, Speaker(lambda p: "Verdict: A").ctx())
  assert sorted(one_order) == [-1, -1, -1, 0]
  assert np.isnan(judge.against_random(episodes, Speaker(lambda p: "?").ctx())).sum() == 3


# --- a scalar model -------------------------------------------------------------------------------


def test_model_scores_tokens_or_a_template():
  asked = []

  def value(role, texts):
    asked.append((role, texts))
    return [float("nan") if len(t) > 8 else float(len(t)) for t in texts]

  ctx = run.Context(step=0, seed=0, tokenizer=text_lib.byte(), value=value)
  episodes = [make.episode("ab"), make.episode("a|b" * 3)]
  close(model.score(episodes, ctx), [4, NAN])  # the last token is predicted, not read
  assert ctx.faults == {"too_long": 1} and asked[-1][0] == "reward_model"
  np.testing.assert_array_equal(asked[-1][1][0], [0, 1, 2, 0])
  close(model.score(episodes, ctx, template="{prompt}:{response}", role="rm", answer_only="|"),
        [NAN, 3])
  assert bytes(asked[-1][1][0].tolist()) == b"q:b" and ctx.faults["no_answer_part"] == 1
  model.score([make.episode("ab", answer=7)], ctx, template="{prompt}{answer}:{response}")
  assert bytes(asked[-1][1][0].tolist()) == b"q7:ab"
  with pytest.raises(config.ConfigError, match="needs a template"):
    model.score(episodes, ctx, answer_only="|")
  with pytest.raises(config.ConfigError, match="no role of this run"):
    model.score(episodes, run.Context(step=0, seed=0, tokenizer=None))


def test_agreement_is_being_on_the_same_side():
  episodes = [make.episode() for _ in range(5)]
  said, true = make.given([0.9, 0.4, 0.5, 0.2, NAN]), make.given([1.0, 1.0, 0.0, 0.0, 1.0])
  close(model.agreement(episodes, None, reward=said, truth=true), [1, 0, 0, 1, NAN])
  close(model.agreement(episodes, None, reward=said, truth=true, threshold=0.3),
        [1, 1, 0, 1, NAN])
