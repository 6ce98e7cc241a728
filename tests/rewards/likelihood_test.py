"""The reference's likelihood by hand: forms, a missing tag, an empty reference."""

import types as pytypes

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.data import text
from rljax.rewards import likelihood

TOKENIZER = text.char(alphabet="0123456789# ")


def episode(said, answer="12"):
  turns = (types.Turn("user", TOKENIZER.encode("3 4")),
           types.Turn("assistant", TOKENIZER.encode(said), text=said))
  return types.Episode(types.Task(id="t", prompt="3 4", answer=answer), turns)


def context(seen):
  def score(role, prefixes, continuations):
    seen.extend((role, TOKENIZER.decode(p), TOKENIZER.decode(c)) for p, c in
                zip(prefixes, continuations))
    return [(np.log([0.5, 0.25, 0.8])[:len(c)], None) for c in continuations]
  return pytypes.SimpleNamespace(tokenizer=TOKENIZER, score=score)


def test_forms_by_hand_and_what_is_scored():
  wanted = {"prob": 0.1, "avgprob": 1.55 / 3, "logprob": np.log(0.1), "avglogprob": np.log(0.1) / 3}
  for form, value in wanted.items():
    seen = []
    got = likelihood.reference_likelihood([episode("7 #99#1")], context(seen), form=form)
    np.testing.assert_allclose(got, [value])
    assert seen == [("policy", "3 47 #", "12")]  # its own answer, 99#1, is cut off


def test_without_a_tag_the_reward_is_zero_or_a_finite_floor():
  for form, value in {"prob": 0.0, "avgprob": 0.0, "logprob": -12.0, "avglogprob": -4.0}.items():
    got = likelihood.reference_likelihood([episode("77")], context([]), form=form, floor=-4.0)
    np.testing.assert_allclose(got, [value])


def test_errors():
  with pytest.raises(config_lib.ConfigError, match="empty"):
    likelihood.reference_likelihood([episode("#", answer="")], context([]))
  with pytest.raises(config_lib.ConfigError, match="one of prob"):
    likelihood.reference_likelihood([episode("#")], context([]), form="odds")
