"""Searches as rollouts, and what a tree teaches; with a fake policy and a fake value head."""

import jax
import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.rollouts import searched, tree
from tests.rollouts import fake
from tests.search import search_test

KEY = jax.random.key(0)
TASKS = [types.Task("t", "go:", answer="abc", info={"gold": "abc"}), types.Task("u", "go:")]
STEPS = {"depth": 3, "branch": 4, "step_tokens": 4}


def roles(reply=search_test.spell):
  """A policy, and a role whose head knows how much of an answer is right."""
  policy, judge = fake.Sampler(reply), fake.Sampler(None)
  judge.value = lambda texts: np.array([search_test.prefix([None], [
      judge.tokenizer.decode(t).partition(":")[2]])[0] for t in texts])
  return {"policy": policy, "judge": judge}


def search(name="mcts", budget=200, **kwargs):
  some = roles()
  kwargs = {"value": "judge", "options": STEPS if name in searched.GUIDED else {}, **kwargs}
  out = searched.searched(some, TASKS, KEY, budget=budget, search=name, **kwargs)
  assert not some["policy"].held
  return out


@pytest.mark.parametrize("name", searched.SEARCHES)
def test_every_search_answers_within_its_budget(name):
  out = search(name)
  assert [e.group for e in out] == [0, 1] and [e.task for e in out] == TASKS
  assert all(0 < e.info["tokens"] <= 200 and e.status == types.STOP for e in out)
  if name in ("mcts", "beam"):
    assert {e.response for e in out} == {"a\nb\nc"}
  assert [e.info["accepted"] for e in out] == [name == "mcts"] * 2


def test_samples_groups_and_an_empty_hand():
  two = search("vote", group_size=2, value="")
  assert [e.group for e in two] == [0, 0, 1, 1]
  nothing = search(budget=1)  # the first iteration costs more
  assert all(e.status == types.LENGTH and e.response == "" and e.info["tokens"] == 0
             for e in nothing)
  for bad in ({"name": "astar"}, {"value": ""}, {"name": "beam", "value": ""}):
    with pytest.raises(ConfigError, match="need a value"):
      search(**bad)


def test_a_search_does_not_see_the_answers(monkeypatch):
  seen = []
  monkeypatch.setitem(searched.SEARCHES, "vote", lambda samplers, tasks, key, **kw: (
      seen.extend(tasks), [[] for _ in tasks])[1])
  search("vote")
  assert all(t.answer is None and not t.info and not t.demo and not t.verifier for t in seen)
  assert [t.id for t in seen] == ["t", "u"]
  real = tree.mcts.grow
  monkeypatch.setattr(tree.mcts, "grow", lambda samplers, tasks, key, **kw: (
      seen.extend(tasks), real(samplers, tasks, key, **kw))[1])
  teach(roles())
  assert len(seen) == 4 and all(t.answer is None and not t.info for t in seen)


def teach(some, verify=lambda task, text: float(text == "a\nb\nc"), **kwargs):
  kwargs = {"options": {**STEPS, "accept": 2.0}, "budget": 120, "value": "judge", **kwargs}
  return tree.taught(some, TASKS, KEY, verify=verify, **kwargs)


def test_a_tree_teaches_right_answers_and_what_partial_ones_were_worth():
  some = roles()
  out = teach(some)
  assert not some["policy"].held and {e.group for e in out} == {0, 1}
  said = [e for e in out if e.info["role"] == "policy"]
  assert said and {e.response for e in said} == {"a\nb\nc"}
  assert all(t.logp is not None for e in said for t in e.turns[1:])
  worth = {}
  end = some["policy"].tokenizer.eos_id
  for e in out:
    if e.info["role"] == "value":
      worth[e.response] = e.info["columns"]["target"]
      assert e.turns[-1].tokens[-1] == end
      tokens = np.concatenate([t.tokens for t in e.turns[1:]])
      assert (tokens == end).sum() == 1
  assert worth["a\nb\nc"] == 1.0
  assert worth.get("a\n", 1 / 3) == pytest.approx(1 / 3)
  assert all(v == 0.0 for text, v in worth.items() if text[0] not in "a")
  assert len(teach(roles(), traces=1, pairs=2)) <= 6
  assert not [e for e in teach(roles(), least=1.5) if e.info["role"] == "policy"]


def test_a_tree_without_a_right_answer_teaches_nothing():
  assert teach(roles(), verify=lambda task, text: 0.0) == []


def test_a_partial_answer_without_room_for_an_end_is_left_out():
  def reply(context, seed):
    return "ok" if np.random.SeedSequence(seed[1]).generate_state(1)[0] % 2 else "x" * 9
  some = roles(reply)
  some["policy"].limits["response"] = 4
  out = teach(some, verify=lambda task, text: float(text == "ok"),
              options={"depth": 1, "branch": 4, "step_tokens": 4, "accept": 2.0})
  assert "ok" in {e.response for e in out}
  assert all(sum(len(t.tokens) for t in e.turns[1:]) <= 4 for e in out)
