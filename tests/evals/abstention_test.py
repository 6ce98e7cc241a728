"""The abstention read-out on episodes written by hand."""

import numpy as np
import pytest

from rljax import types
from rljax.data import text
from rljax.evals import abstention
from rljax.rewards import run

TOKENIZER = text.char(alphabet="abkux?")


def grade(episodes, ctx):
  return np.array([float(e.response == "xa") for e in episodes])


def episode(name, calls, correct):
  return types.Episode(types.Task(name, name), (types.Turn("user", TOKENIZER.encode(name)),),
                       scores={"correct": correct}, info={"calls": calls})


def context(policy_knows="k"):
  """The base knows "k" always and "b" in half of the samples; the policy what is told."""
  def sample(role, prompts, seeds, **settings):
    assert settings == {"max_tokens": 3} and all(TOKENIZER.decode(p)[-1] == "x" for p in prompts)
    known = {"policy": policy_knows, "ref": "k"}[role]
    asked = [(TOKENIZER.decode(p)[0], seed) for p, (_, seed) in zip(prompts, seeds)]
    says = ["a" if q in known or (q == "b" and seed % 2) else "u" for q, seed in asked]
    return [type("C", (), {"tokens": TOKENIZER.response(s), "status": types.STOP}) for s in says]
  return run.Context(0, 0, TOKENIZER, sample=sample)


def measured(ctx, some):
  return abstention.measure(some, 3, ctx, verifier=grade, closed="x", tokens=3)


def test_calls_are_read_as_abstentions():
  some = [episode("k", 0, 1.0), episode("k", 1, 1.0), episode("u", 1, 1.0), episode("u", 2, 1.0),
          episode("u", 0, 0.0), episode("b", 0, 1.0)]
  got = measured(context(), some)
  assert got == pytest.approx({
      "pass_at_1": 5 / 6, "search": 0.5, "productivity": (1 + 1 / 2 + 1 / 2 + 1 / 3 + 1) / 6,
      "parametric": 2 / 6, "precision": 2 / 3, "searched": 1.0, "closed": 0.5, "closed_base": 0.5,
      "abs_0": 2 / 3, "gap": 2 / 3 - 1 / 2, "own_abs_0": 2 / 3, "own_gap": 2 / 3 - 1 / 2})
  learned = measured(context("ku"), some)  # the policy has learned "u": its own read-out differs
  assert learned["closed"] == pytest.approx(2.5 / 3) and learned["gap"] == got["gap"]
  assert np.isnan(learned["own_abs_0"]) and np.isnan(learned["own_gap"])


def test_nothing_asked_and_nothing_known():
  got = measured(context(""), [episode("u", 0, 0.0)])
  assert np.isnan(got["searched"]) and got["precision"] == 0.0 and got["abs_0"] == 0.0
