"""Searches with a fake policy: budgets, choices, exact values; the sampler holds nothing after."""

import itertools

import jax
import numpy as np
import pytest

from rljax import types
from rljax.evals import pass_at_k
from rljax.search import beam, found, mcts, sample
from tests.rollouts import fake

KEY = jax.random.key(0)
TASK = types.Task("t", "go:")


def spell(context, seed):
  """One letter per step, right ("abc") in one of two; ends after three."""
  done = context.split(":", 1)[1].count("\n")
  chance = int(np.random.SeedSequence(seed[1]).generate_state(1)[0])
  letter = "abc"[done] if chance % 2 == 0 else "xyz"[chance % 3]
  return f"{letter}\n~" if done < 2 else letter


def prefix(tasks, texts):
  """How much of "a b c" is right so far."""
  return [sum(x == y for x, y in zip(t.split("\n"), "abc")) / 3 for t in texts]


def numbers(context, seed):
  del context
  return {0: "7", 1: "8"}.get(seed[1] % 4, "9")


@pytest.mark.parametrize("budget", [1, 7, 64])
def test_candidates_are_paid_from_the_budget(budget):
  sampler = fake.Sampler(numbers)
  tasks = [TASK, types.Task("u", "go:")]
  for one in sample.best_of_n({"policy": sampler}, tasks, KEY, budget=budget):
    tokens = [f.tokens for f in one]
    assert tokens == sorted(tokens) and tokens[0] == 2  # an answer and its end
    assert budget <= tokens[-1] < budget + 2
  assert not sampler.held


def test_the_best_is_the_first_of_the_highest_value():
  value = lambda tasks, texts: [float(t == "8") for t in texts]
  one, = sample.best_of_n({"policy": fake.Sampler(numbers)}, [TASK], KEY, budget=16, value=value)
  assert [f.text for f in one][:4] == ["7", "8", "8", "8"]
  assert found.at(one, 3) == "7" and found.at(one, 4) == "8" and found.at(one, 1) is None


def test_votes_and_weighted_votes():
  sampler = {"policy": fake.Sampler(numbers)}
  one, = sample.vote(sampler, [TASK], KEY, budget=16)
  assert [f.text for f in one][:4] == ["7", "7", "7", "9"]  # 7, 8, 9, 9
  weigh = lambda tasks, texts: [5.0 if t == "8" else 1.0 for t in texts]
  one, = sample.vote(sampler, [TASK], KEY, budget=16, value=weigh)
  assert [f.text for f in one][1:4] == ["8"] * 3


def test_expected_best_against_all_subsets():
  rs = np.random.default_rng(0)
  reward, gold = rs.normal(size=6), rs.normal(size=6)
  for n in range(1, 7):
    subsets = list(itertools.combinations(range(6), n))
    want = np.mean([gold[max(s, key=lambda i: reward[i])] for s in subsets])
    assert sample.expected_best(reward, gold, n) == pytest.approx(want)
  right = np.array([1, 0, 0, 1, 0], bool)
  assert sample.expected_best(right, right, 3) == pytest.approx(pass_at_k.pass_at_k(right[None], 3))
  with pytest.raises(ValueError, match="1 <= n <= 5"):
    sample.expected_best(right, right, 6)


def test_a_tree_finds_what_single_samples_miss():
  sampler = fake.Sampler(spell)
  trees = mcts.grow({"policy": sampler}, [TASK, types.Task("u", "go:")], KEY, budget=200,
                    value=prefix, depth=3, branch=4, step_tokens=4)
  for t in trees:
    assert t.accepted and t.found[-1].text == "a\nb\nc" and t.found[-1].tokens == t.tokens < 200
    for node in t.root.walk():
      kids = node.children.values()
      assert node.visits >= sum(c.visits for c in kids)
      assert len({c.dialogue.response for c in kids}) == len(kids)
  assert not sampler.held
  again = mcts.mcts({"policy": fake.Sampler(spell)}, [TASK], KEY, budget=200, value=prefix, depth=3,
                    branch=4, step_tokens=4)
  assert again[0] == trees[0].found


def test_a_tree_stops_at_its_budget_and_when_nothing_is_new():
  low = lambda tasks, texts: [0.1] * len(texts)
  grow = lambda budget, **kw: mcts.grow({"policy": fake.Sampler(spell)}, [TASK], KEY, value=low,
                                        budget=budget, depth=3, step_tokens=4, **kw)[0]
  tree = grow(20)
  assert tree.accepted is None and 20 <= tree.tokens < 20 + 3 * 2 + 3 * 2 and tree.best().ended
  done = grow(10_000, branch=1, rollout=0)
  assert done.tokens < 10_000 and done.iterations == 3 and done.root.closed


def test_bad_values_are_clipped():
  for bad in (7.0, float("nan"), -3.0):
    tree = mcts.grow({"policy": fake.Sampler(spell)}, [TASK], KEY, budget=20, depth=3,
                     step_tokens=4, value=lambda tasks, texts, v=bad: [v] * len(texts))[0]
    assert all(0.0 <= n.value <= 1.0 for n in tree.root.walk())


def test_selection_is_uct():
  root = mcts.Node(None, visits=5)
  for name, value, visits in (("a", 0.5, 4), ("b", 0.2, 1)):
    root.children[name] = mcts.Node(None, root, value, visits)
  score = lambda v, n: v + 0.7 * np.sqrt(2 * np.log(5) / n)
  assert score(0.2, 1) > score(0.5, 4)
  assert mcts._select(root, 0.7, KEY) is root.children["b"]
  assert mcts._select(root, 0.0, KEY) is root.children["a"]
  root.children["c"] = mcts.Node(None, root, 0.9, 0)  # 1.9: before all that were visited
  assert mcts._select(root, 0.7, KEY) is root.children["c"]


class Ended(types.Transcript):
  """A dialogue that has ended, for trees made by hand."""

  def __init__(self, text):
    self.status, self.task = types.STOP, TASK
    self.turns = (types.Turn("assistant", np.zeros(1, np.int32), text=text),)


def chain(root, *steps):
  for step in steps:
    root.children.setdefault(step, mcts.Node(Ended(step), root))
    root = root.children[step]
  return root


def test_process_values_by_hand():
  right = lambda task, text: text == "right"
  root = mcts.Node(Ended(""))
  end = chain(root, "1", "2", "right")
  wrong, early = chain(root, "1", "wrong"), chain(root, "off")
  values = mcts.process_values(root, right)
  steps = [values[n] for n in end.path()[1:]]
  assert steps == pytest.approx([1 / 3, 2 / 3, 1])
  assert values[wrong] == pytest.approx(1 / 9) and values[early] == 0.0
  below = chain(wrong, "deeper")  # m is inherited, the value sinks on
  assert mcts.process_values(root, right)[below] == pytest.approx(max(0, 1 / 9 - (8 / 9) / 3))
  assert mcts.process_values(chain(mcts.Node(Ended("")), "no").parent, right) == {}


def test_a_beam_keeps_the_best_and_begins_again():
  sampler, tasks = fake.Sampler(spell), [TASK, types.Task("u", "go:")]
  found_ = beam.beam({"policy": sampler}, tasks, KEY, budget=60, value=prefix, width=1, branch=4,
                     depth=3, step_tokens=4)
  for one in found_:
    assert [f.text for f in one[:3]] == ["a\n", "a\nb\n", "a\nb\nc"]
    assert {f.text for f in one[3:]} == {"a\nb\nc"}  # an ended answer stays the answer
    assert len(one) > 3 and one[-2].tokens < 60 <= one[-1].tokens
  assert not sampler.held
  low = lambda tasks, texts: [-prefix([None], [t])[0] for t in texts]  # all are clipped to 0
  wide = beam.beam({"policy": sampler}, [TASK], KEY, budget=1, value=low, width=8, branch=8,
                   depth=3, step_tokens=4)
  assert len(wide[0]) == 1 and wide[0][0].tokens == 16 and not sampler.held
