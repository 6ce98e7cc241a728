"""Revision, proposing and solving, trees."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import collate, curriculum
from rljax.rollouts import propose_solve, revise, tree
from tests.rollouts import fake

KEY = jax.random.key(0)
TASKS = [types.Task("a", "A:"), types.Task("b", "B:")]


def roles(t):
  return [turn.role for turn in t.turns]


# --- revise ---------------------------------------------------------------------------------------


def second(context, seed):
  return "second" if "again" in context else f"first{seed[1]}"


def test_two_attempts_with_a_word_between():
  sampler = fake.Sampler(second)
  episodes = revise.revise({"policy": sampler}, TASKS, KEY, group_size=2)
  assert [roles(e) for e in episodes] == [["user", "assistant", "tool", "assistant"]] * 4
  assert [t.text for t in episodes[1].turns[1:]] == [
      "first1", "\nThere may be an error above. Solve it again:\n", "second"]
  assert [e.group for e in episodes] == [0, 0, 1, 1] and episodes[0].status == types.STOP
  assert len(sampler.calls) == 2 and sampler.calls[0][2] != sampler.calls[1][2]
  assert revise.revise({"policy": sampler}, TASKS, KEY, group_size=1, attempts=3)[0].info[
      "turns"] == 3
  assert revise.revise({"other": sampler}, TASKS, KEY, role="other")[0].info["role"] == "other"


def test_feedback_may_depend_on_the_attempt_and_may_end_it():
  def judge(task, text, attempt):
    return "" if text == "first0" else f"again {attempt}:"
  a, b = revise.revise({"policy": fake.Sampler(second)}, TASKS[:1], KEY, group_size=2,
                       feedback=judge)
  assert a.info["turns"] == 1 and a.status == types.STOP and b.turns[2].text == "again 0:"


def test_an_attempt_that_was_cut_is_not_revised():
  e, = revise.revise({"policy": fake.Sampler(second)}, TASKS[:1], KEY, group_size=1, turn_tokens=3)
  assert e.status == types.LENGTH and e.info["turns"] == 1 and e.response == "fir"
  e, = revise.revise({"policy": fake.Sampler(second, response=8)}, TASKS[:1], KEY, group_size=1)
  assert e.response == "firs"  # half of limits.response


def test_feedback_as_a_message_and_without_room():
  e, = revise.revise({"policy": fake.Sampler(second)}, TASKS[:1], KEY, group_size=1, message=True,
                     feedback="again")
  assert e.turns[2].text == "\nuser: again\nassistant: "
  with pytest.raises(ConfigError, match="limits.observation"):
    revise.revise({"policy": fake.Sampler(second, observation=0)}, TASKS, KEY)


# --- propose and solve ----------------------------------------------------------------------------


def problem(request, text):
  if text == "bad":
    return None
  if text == "worse":
    raise RuntimeError("cannot run it")
  return types.Task("new", text, answer=len(text))


def propose(reply, **kwargs):
  sampler = fake.Sampler(reply)
  kwargs = {"group_size": 3, "proposals": 2, **kwargs}
  return propose_solve.propose_solve({"policy": sampler, "solver": sampler}, TASKS, KEY,
                                     validate=problem, **kwargs), sampler


def proposer(context, seed):
  if context in ("A:", "B:"):
    return {("A:", 0): "bad", ("B:", 0): "worse"}.get((context, seed[1]), f"what is {context}")
  return f"it is {seed[1]}"


def test_valid_proposals_are_answered():
  episodes, sampler = propose(proposer, solver="solver")
  asked, answers = episodes[:4], episodes[4:]
  assert [e.info["valid"] for e in asked] == [False, True, False, True]
  assert [e.status for e in asked] == [types.STOP, types.STOP, types.ERROR, types.STOP]
  assert [e.group for e in episodes] == [0, 0, 1, 1, 3, 3, 3, 5, 5, 5]
  assert [e.info["proposal"] for e in answers] == [1] * 3 + [3] * 3
  assert {e.info["role"] for e in answers} == {"solver"}
  assert answers[0].task.prompt == "what is A:" and answers[0].response == "it is 0"
  assert [len(c[0]) for c in sampler.calls] == [4, 6] and len(set(sampler.calls[1][1])) == 6
  assert [e.info["columns"]["role_B"] for e in episodes] == [0] * 4 + [1] * 6
  collate.collate(episodes, shapes=collate.Shapes(16, 400, 40))


def test_scores_of_proposed_tasks_do_not_confuse_the_curriculum():
  episodes, _ = propose(proposer)
  found = curriculum.by_task([7, 9], [e.group for e in episodes], [1.0] * len(episodes))
  assert [set(r) for r in found] == [{1.0}, {1.0}]


def test_limits_of_proposals_and_answers():
  episodes, _ = propose(proposer, propose_tokens=6, solve_tokens=4)
  assert episodes[1].response == "what i" and episodes[1].status == types.LENGTH
  assert {e.response for e in episodes[4:]} == {"it i"}
  long, _ = propose(lambda c, s: "x" * 150 if c in ("A:", "B:") else "y")
  sampler = fake.Sampler(lambda c, s: "x" * 150, prompt=100)
  out = propose_solve.propose_solve({"policy": sampler}, TASKS, KEY, validate=problem)
  assert len(long) > len(out) == 2 and not out[0].info["valid"] and "limits.prompt" in out[0].info[
      "error"]


def test_problems_among_the_requests_are_answered_once():
  mixed = [TASKS[0], types.Task("c", "C?", info={"solve": True}), TASKS[1],
           types.Task("c", "C?", info={"solve": True})]
  sampler = fake.Sampler(proposer)
  out = propose_solve.propose_solve({"policy": sampler}, mixed, KEY, validate=problem, proposals=2,
                                    group_size=3)
  asked, answers, direct = out[:4], out[4:10], out[10:]
  assert [e.group for e in asked] == [0, 0, 2, 2] and {e.group for e in answers} == {5, 7}
  assert [e.group for e in direct] == [1, 3] and all("proposal" not in e.info for e in direct)
  assert [e.response for e in direct] == ["it is 1", "it is 3"]  # equal problems, other noise
  assert {e.info["columns"]["role_B"] for e in direct} == {1}


@pytest.mark.parametrize("settings", [{"greedy": True}, {"temperature": 0.0}])
def test_a_greedy_estimate_is_refused(settings):
  with pytest.raises(ConfigError, match="greedy"):
    propose(proposer, settings=settings)
  sampler = fake.Sampler(proposer)
  sampler.defaults = settings
  with pytest.raises(ConfigError, match="greedy"):
    propose_solve.propose_solve({"policy": sampler}, TASKS, KEY, validate=problem)


# --- trees ----------------------------------------------------------------------------------------


def step(context, seed):
  return f"s{seed[1] % 1000}\n" if context.count("\n") < 2 else "done"


def grow(reply=step, **kwargs):
  sampler = fake.Sampler(reply)
  kwargs = {"depth": 3, "branch": 2, **kwargs}
  return tree.tree({"policy": sampler}, TASKS, KEY, **kwargs), sampler


def test_leaves_share_the_steps_of_their_common_path():
  episodes, sampler = grow()
  assert [len(c[0]) for c in sampler.calls] == [4, 8, 16]
  assert [e.group for e in episodes] == [0] * 8 + [1] * 8
  assert [e.info["path"] for e in episodes[:3]] == [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
  a, b, c = ([t.text for t in e.turns[1:]] for e in episodes[:3])
  assert a[:2] == b[:2] and a[0] == c[0] and a[1] != c[1]
  assert all(e.status == types.STOP and e.info["turns"] == 3 for e in episodes)
  assert episodes[0].turns[1] is episodes[1].turns[1]
  assert len(set(sampler.calls[2][1])) == 16  # every step has randomness of its own


def test_a_step_ends_at_its_stop_string_and_depth_ends_the_rest():
  episodes, _ = grow(lambda c, s: "a;b", stop=(";",), depth=2)
  assert {e.response for e in episodes} == {"a;a;"} and episodes[0].status == types.LENGTH
  assert {e.response for e in grow(lambda c, s: "abcdef", step_tokens=2, depth=2)[0]} == {"abab"}
  early, _ = grow(lambda c, s: "end", depth=3)
  assert [e.info["path"] for e in early[:2]] == [(0,), (1,)]  # an answer that ended is a leaf


def test_width_keeps_the_best_or_draws():
  def largest(tasks, texts):
    return [int(t.split("\n")[-2][1:]) for t in texts]
  episodes, sampler = grow(width=1, value=largest)
  assert [len(c[0]) for c in sampler.calls] == [4, 4, 4]
  everything, _ = grow()
  firsts = {int(e.turns[1].text[1:]) for e in everything if e.group == 0}
  assert {int(e.turns[1].text[1:]) for e in episodes if e.group == 0} == {max(firsts)}
  drawn, _ = grow(width=2, branch=3)
  assert collections.Counter(e.group for e in drawn) == {0: 6, 1: 6}
  again, _ = grow(width=2, branch=3)
  assert [e.info["path"] for e in again] == [e.info["path"] for e in drawn]


def test_episodes_of_all_rollouts_keep_one_logp_per_token():
  episodes = grow()[0] + propose(proposer)[0] + revise.revise(
      {"policy": fake.Sampler(second)}, TASKS, KEY)
  for e in episodes:
    for t in e.turns:
      if t.role == "assistant":
        assert len(t.tokens) == len(t.logp) == len(t.raw_logp) > 0
        assert np.array_equal(t.logp, -np.arange(1, len(t.tokens) + 1))
    assert dataclasses.asdict(e)["status"]
