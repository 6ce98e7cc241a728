"""Confidence rewards against a scorer whose log-probabilities are known."""

import dataclasses

import numpy as np
import pytest

from rljax import config
from rljax.data import text as text_lib
from rljax.rewards import confidence, run
from tests.rewards import make

close = np.testing.assert_allclose
BYTES = text_lib.byte()


def scorer(logp):
  """ctx whose `score` gives logp(prefix, continuation) and an entropy of 2 per token."""
  def score(role, prefixes, continuations):
    assert role in ("policy", "teacher")
    out = []
    for p, c in zip(prefixes, continuations, strict=True):
      values = np.asarray(logp(BYTES.decode(p), BYTES.decode(c)), np.float32)
      out.append((np.broadcast_to(values, len(c)), np.full(len(c), 2.0)))
    return out
  return run.Context(step=0, seed=0, tokenizer=BYTES, score=score)


def spoken(text, answer="42", group=0):
  return make.episode(text, tokens=BYTES.encode(text), answer=answer, group=group)


def test_certainty():
  ctx = scorer(lambda p, c: -float(len(c)))
  episodes = [spoken("ab"), spoken("abc")]
  close(confidence.certainty(episodes, ctx), [-2, -2])
  close(confidence.certainty(episodes, ctx, kind="logp"), [-2, -3])
  ctx = dataclasses.replace(ctx, uniform_kl=lambda role, p, c: [np.arange(len(x)) for x in c])
  close(confidence.certainty(episodes, ctx, kind="self_certainty"), [0.5, 1])
  with pytest.raises(config.ConfigError, match="'entropy', 'logp' or"):
    confidence.certainty(episodes, ctx, kind="prob")


def test_relative_perplexity():
  ctx = scorer(lambda p, c: {"\n": -2.0, "?": -0.5}.get(p, -1.0))
  close(confidence.relative_perplexity([spoken("a")], ctx), [1 - np.exp(-1)])
  close(confidence.relative_perplexity([spoken("a")], ctx, context="?"), [1 - np.exp(0.5)])
  far = scorer(lambda p, c: -900.0 if p == "\n" else -1.0)
  close(confidence.relative_perplexity([spoken("a")], far), [1])
  near = scorer(lambda p, c: -1.0 if p == "\n" else -900.0)
  close(confidence.relative_perplexity([spoken("a")], near), [-1])
  with pytest.raises(config.ConfigError, match="at least one token"):
    confidence.relative_perplexity([spoken("a")], ctx, context="")


def test_reference_gain():
  def logp(prefix, answer):
    assert answer == "42"
    return {"": [-3, -3, -3], "x": [-1, -2, -3], "y": [-1, -1, -3]}[prefix[3:].rstrip("#")]

  ctx = scorer(logp)
  episodes = [spoken("x#7"), spoken("y#"), spoken("no tag")]
  close(confidence.reference_gain(episodes, ctx, floor=-9.0), [1, 4 / 3, -9])
  p = np.exp
  close(confidence.reference_gain(episodes, ctx, form="prob"),
        [(p(-1) + p(-2) - 2 * p(-3)) / 3, (2 * p(-1) - 2 * p(-3)) / 3, 0])
  # Only the second token of the answer differs in the group, so only it counts.
  close(confidence.reference_gain(episodes, ctx, weights="variance"), [1, 2, 0], atol=1e-4)
  with pytest.raises(config.ConfigError, match="weights 'all'"):
    confidence.reference_gain(episodes, ctx, weights="all")


def test_episodes_of_several_turns_are_refused():
  e = spoken("a")
  bad = type(e)(e.task, e.turns + e.turns)
  with pytest.raises(config.ConfigError, match="one prompt and one response"):
    confidence.certainty([bad], scorer(lambda p, c: 0.0))
