"""MASH's world: what is read, what is known, and what no demonstration tells."""

import jax
import numpy as np

from experiments import mash
from rljax import config as config_lib
from rljax import types
from rljax.rollouts import multi_turn
from tests.rollouts import fake

KEY = jax.random.key(0)


def world():
  return config_lib.bind(config_lib.load("configs/papers/mash.py").rollout.env)()


def shown(tasks, count=40):
  sampler = fake.Sampler(None, tokenizer=mash.words(), prompt=4, response=16, observation=20)
  some = [tasks[i] for i in range(count)]
  return some, multi_turn.demonstrations({"policy": sampler}, some, KEY, env=world())


def test_questions_are_about_entities_that_do_not_meet():
  asked, held = list(mash.questions()), list(mash.questions(held=True))
  assert len(asked) == 144 and len(held) == 48
  assert not {t.prompt for t in asked} & {t.prompt for t in held}
  assert len({t.id for t in asked}) == 144
  assert {t.info["kind"] for t in held} == {"K", "U"}
  told = {t.info["turns"][0] for t in (mash.declared()[i] for i in range(3000))}
  said = {turn.split("e")[1].split("v")[0] for turn in told}
  assert max(map(int, said)) == 39  # nothing is told of U
  fact = asked[0]
  assert fact.prompt == "e16r0?" and f"r0{fact.answer}" in told


def test_a_search_returns_the_fact_among_others_and_counts():
  task = mash.questions()[100]
  entity = int(task.prompt[1:].split("r")[0])
  tool = mash.lookup()
  for seed in range(5):
    _, said, failed = tool.call(tool.start(task, seed), task.prompt[:-1])
    assert f"r{task.prompt[-2]}{task.answer}" in said and said.count("e") == 2
    assert not failed
  assert entity >= 40 and tool.call((0, 0), "e5")[1:] == ("none", True)
  assert tool.call((0, 0), "e99r1")[2]


def test_searched_demonstrations_are_read_from_documents_of_their_own():
  tasks = mash.shown(kinds=("K", "U"), given=1, searches=(0.0, 0.8, 0.2))
  some, episodes = shown(tasks, 60)
  twice = 0
  for t, e in zip(some, episodes):
    assert e.status == types.STOP and e.info["answer"] == t.answer and e.info["calls"] >= 1
    assert f"r{t.prompt[-2]}{t.answer}" in e.turns[2].text
    assert e.turns[0].tokens.tolist() == mash.words().encode(f"{t.prompt}<search>").tolist()
    twice += e.info["calls"] == 2
  assert 3 < twice < 25
  entities = [int(t.prompt[1:].split("r")[0]) for t in some]
  true = [t.answer == f"e{e}{mash.value(e, int(t.prompt[-2]))}" for t, e in zip(some, entities)]
  assert np.mean(true) < 0.25  # the world's own values are not shown


def test_known_answers_are_the_worlds_and_the_first_choice_is_hidden():
  some, episodes = shown(mash.shown(kinds=("G3", "K"), given=1, searches=(1.0,)))
  for t, e in zip(some, episodes):
    entity, relation = int(t.prompt[1:].split("r")[0]), int(t.prompt[-2])
    assert t.answer == f"e{entity}{mash.value(entity, relation)}" and entity < 40
    assert e.info["calls"] == 0
    assert len(e.turns[0].tokens) == 4 and len(e.turns[1].tokens) == 3
  some, episodes = shown(mash.shown())
  calls = [e.info["calls"] for e in episodes]
  assert 0.25 < np.mean(calls) < 0.75 and all(len(e.turns[0].tokens) == 3 for e in episodes)


def test_the_search_beyond_the_limit_is_refused_and_counted():
  says = iter(["<search>e50r1</search>"] * 3 + ["<answer>v1</answer>"])
  sampler = fake.Sampler(lambda *_: next(says), tokenizer=mash.words(), prompt=4, response=16,
                         observation=20)
  e, = multi_turn.multi_turn({"policy": sampler}, [mash.questions()[0]], KEY, env=world(),
                             group_size=1)
  texts = [t.text for t in e.turns if t.role == "tool"]
  assert texts[2] == "<information>limit</information>" and e.info["calls"] == 3
  assert e.status == types.STOP and e.info["answer"] == "v1"
