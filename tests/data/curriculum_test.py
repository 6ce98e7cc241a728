"""Curricula: known answers on simulated learners, states that go through JSON, clear refusals."""

import json

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import curriculum, mixture, tasks


def task_set(categories, each=5):
  return [types.Task(id=f"{c}-{i}", prompt="x", answer="1", verifier="", info={"category": c})
          for c in categories for i in range(each)]


def through_json(state):
  return json.loads(json.dumps(state))


def run(c, updates, rewards_of, k=32, n=8, seed=0):
  """Draws and updates; the state and the categories drawn per step (5 tasks per category)."""
  state, drawn, rs = c.init(), [], np.random.default_rng(seed)
  for step in range(updates):
    indices, state = c.draw(state, seed, k)
    drawn.append([i // 5 for i in indices])
    rewards = [(rs.random(n) < rewards_of(i // 5, step)).astype(float).tolist() for i in indices]
    state = through_json(c.update(state, indices, rewards))
  return state, drawn


def test_shuffled_sees_every_task_once_per_epoch_and_resumes_anywhere():
  c = curriculum.shuffled(range(7))
  state, seen = c.init(), []
  for k in (3, 5, 13):
    drawn, state = c.draw(state, 0, k)
    seen += drawn
  assert [sorted(seen[i:i + 7]) for i in (0, 7, 14)] == [list(range(7))] * 3
  assert seen[:7] != seen[7:14]
  again, _ = c.draw({"cursor": 8}, 0, 13)
  assert again == seen[8:21]
  assert c.draw(c.init(), 1, 7)[0] != seen[:7]


def test_ordered():
  c = curriculum.ordered(range(3))
  drawn, state = c.draw(c.init(), 0, 4)
  assert drawn == [0, 1, 2, 0] and c.draw(state, 0, 1)[0] == [1]


def test_rewards_by_task():
  assert curriculum.by_task([9, 4, 6], [0, 0, 1, 5], [1.0, 0.0, float("nan"), 1.0]) == [
      [1.0, 0.0], [], []]


@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_of_equal_length(reverse):
  c = curriculum.blocks(task_set(["10", "2", "3"]), steps=9, reverse=reverse)
  _, drawn = run(c, 11, lambda c, t: 0.5)
  want = [1, 1, 1, 2, 2, 2, 0, 0, 0]  # by value: 2, 3, 10
  want = want[::-1] if reverse else want
  assert [set(d) for d in drawn] == [{x} for x in [*want, want[-1], want[-1]]]


def test_the_bandit_prefers_what_is_half_solved():
  """Arms that are solved 2 %, 50 % and 98 % of the time: after 50 updates the second leads."""
  accuracy = (0.02, 0.5, 0.98)
  c = curriculum.bandit(task_set("abc"), temperature=0.4)
  state, drawn = run(c, 50, lambda c, t: accuracy[c])
  m = c.metrics(state)
  assert m["p/b"] > 2 * max(m["p/a"], m["p/c"]) and m["min_p"] == min(m["p/a"], m["p/c"])
  # The expected |A| of 8 samples is near 2 sqrt(p (1 - p)), somewhat less: the std is their own.
  assert state["q"]["b"] == pytest.approx(1.0, abs=0.1)
  assert np.mean([x == 1 for d in drawn[-20:] for x in d]) > 0.5


def test_the_bandit_follows_learners_that_cross_one_half_in_order():
  when = (20, 60, 100)
  curve = lambda c, t: 1 / (1 + np.exp(-(t - when[c]) / 4))
  c = curriculum.bandit(task_set("abc"), temperature=0.2)
  state, leaders, rs = c.init(), [], np.random.default_rng(1)
  for t in range(120):
    indices, state = c.draw(state, 0, 48)
    state = c.update(state, indices, [(rs.random(8) < curve(i // 5, t)).astype(float)
                                      for i in indices])
    leaders.append(max(c.metrics(state).items(), key=lambda kv: kv[1] * (kv[0] != "min_p"))[0])
  assert [leaders[t] for t in when] == ["p/a", "p/b", "p/c"]


def test_one_update_by_hand():
  """Groups (1, 0, 0, 0): |A| = sqrt(3), 1/sqrt(3) three times; an equal group counts as 0."""
  c = curriculum.bandit(task_set("ab"), lr=0.5, eps=0.0)
  state = c.update(c.init(), [0, 1], [[1.0, 0, 0, 0], [1.0, 1, 1, 1]])
  assert state["q"]["a"] == pytest.approx(0.5 * np.mean([3**0.5] + [3**-0.5] * 3 + [0] * 4))
  assert state["q"]["b"] == 0
  held = curriculum.bandit(task_set("ab"), unsampled="hold")
  again = c.update(state, [5], [[0.0, 0.0]])
  assert again["q"]["a"] == state["q"]["a"] / 2
  assert held.update(state, [5], [[0.0, 0.0]])["q"]["a"] == state["q"]["a"]
  plain = curriculum.bandit(task_set("ab"), lr=1.0, std=False)
  assert plain.update(plain.init(), [0], [[1.0, 0.0]])["q"]["a"] == 0.5
  progress = curriculum.bandit(task_set("ab"), lr=1.0, gain="progress")
  state = progress.update(progress.init(), [0], [[0.0, 0.0]])
  assert state["q"]["a"] == 0 and progress.update(state, [0], [[1.0, 0.0]])["q"]["a"] == 0.5
  assert c.update(c.init(), [0], [[]])["q"]["a"] == 0  # nothing could be scored


def test_what_the_bandit_says_of_itself():
  c = curriculum.bandit(task_set(["10", "2"]), lr=1.0, eps=0.0)
  assert c.metrics(c.init()) == {"min_p": 0.5, "p/2": 0.5, "p/10": 0.5, "level": 6.0}
  m = c.metrics(c.update(c.init(), [0, 5], [[1.0, 1, 1, 1], [1.0, 0, 0, 1]]))
  p = np.exp(1) / (1 + np.exp(1))  # Q: 0 for the solved category "10", 1 for "2"
  want = {"p/2": p, "p/10": 1 - p, "p_half": p, "min_p": 1 - p, "level": 2 * p + 10 * (1 - p)}
  assert m == pytest.approx(want)
  assert "level" not in (m := curriculum.bandit(task_set("ab")).metrics(c.init() | {
      "q": {"a": 0.0, "b": 0.0}})) and m["min_p"] == 0.5


def test_two_keys_make_pairs_and_a_floor_keeps_every_arm():
  some = [types.Task(id=str(i), prompt="", answer="", verifier="",
                     info={"kind": "ab"[i % 2], "level": i // 2}) for i in range(6)]
  c = curriculum.bandit(some, keys=("kind", "level"), temperature=0.01, floor=0.05)
  state = c.update(c.init(), [2], [[1.0, 0.0]])
  assert c.metrics(state)["level"] == pytest.approx(1.0, abs=0.2)
  assert sorted(state["q"]) == ["a/0", "a/1", "a/2", "b/0", "b/1", "b/2"]
  assert c.metrics(state)["min_p"] == pytest.approx(0.05)


def test_the_band_leaves_out_what_is_solved_or_hopeless():
  accuracy = (0.0, 0.5, 1.0)
  c = curriculum.band(task_set("abc"), retry=0.0)
  state, drawn = run(c, 6, lambda c, t: accuracy[c], k=5)
  assert sorted(sum(drawn[:3], [])) == [0] * 5 + [1] * 5 + [2] * 5  # each once
  assert {x for d in drawn[3:] for x in d} == {1}
  assert c.metrics(state)["inside"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("make", [
    curriculum.bandit, curriculum.band, lambda t: curriculum.blocks(t, steps=5)])
def test_draws_depend_on_seed_and_state_alone(make):
  c = make(task_set("abc"))
  state, _ = run(c, 3, lambda c, t: 0.5)
  assert c.draw(state, 0, 40)[0] == c.draw(through_json(state), 0, 40)[0]
  assert c.draw(state, 0, 40)[0] != c.draw(state, 1, 40)[0]


@pytest.mark.parametrize("make, message", [
    (lambda: curriculum.bandit([types.Task("t7", "", "", "")]), "t7 lacks category"),
    (lambda: curriculum.bandit(task_set("ab"), gain="x"), "gain='x'"),
    (lambda: curriculum.bandit(task_set("ab"), floor=0.6), "floor=0.6"),
    (lambda: curriculum.blocks(task_set("ab"), steps=3, order=("a", "c")), "not of the categories"),
    (lambda: curriculum.band(task_set("ab"), low=0.9, high=0.1), "low=0.9"),
])
def test_refusals(make, message):
  with pytest.raises(ConfigError, match=message):
    make()


def test_a_mixture_names_its_sets():
  sets = {str(n): lambda n=n: tasks.addition(digits=n, size=3) for n in (1, 2)}
  mixed = mixture.mixture(sets=sets)
  assert len(mixed) == 6 and [t.info["category"] for t in mixed] == ["1"] * 3 + ["2"] * 3
  assert len({t.id for t in mixed}) == 6 and mixed[4].prompt == sets["2"]()[1].prompt
