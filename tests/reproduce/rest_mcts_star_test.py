"""ReST-MCTS*'s testbed: chains, flaws that an outcome hides, values of labelled partial answers."""

import json

import jax
import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.data import chains
from rljax.search import mcts
from tests.rollouts import fake
from tests.search import search_test

rest = config_lib.load_file("experiments/rest-mcts-star.py")


def chain(values=(7, 0, 3), prompt="3+4*0+3=", name="t"):
  return types.Task(name, prompt, info={"values": list(values)})


def test_an_outcome_hides_a_wrong_step():
  t = chain()
  right, lucky = "3+4=7;7*0=0;0+3=3", "3+4=9;9*0=0;0+3=3"
  assert rest.outcome(t, right) == rest.outcome(t, lucky) == rest.outcome(t, "3") == 1.0
  assert rest.outcome(t, right[:-1] + "4") == rest.outcome(t, right + ";") == 0.0
  assert rest.outcome(t, "") == 0.0 and not rest.flawed(t, right)
  assert all(rest.flawed(t, x) for x in (lucky, "3", "7;0;3", right + ";0+3=3"))


def test_tasks_of_the_config():
  tasks = config_lib.bind(config_lib.load("configs/papers/rest-mcts-star.py").tasks)()
  t = tasks[0]
  assert [s[-1] for s in t.demo.split(";")] == [str(v) for v in t.info["values"]]
  assert len(t.info["values"]) == 5 and t.demo.startswith(t.prompt[:3] + "=")
  assert rest.outcome(t, t.demo) == 1.0 and not rest.flawed(t, t.demo)
  assert t.verifier == "experiments/rest-mcts-star.py:outcome"
  lucky = np.mean([any(op + d == "*0" for op, d in chains.TERM.findall(tasks[i].prompt))
                   for i in range(500)])
  assert 0.05 < lucky < 0.3  # there are chains in which a wrong step is forgotten


def test_a_partial_answer_is_worth_what_a_tree_says():
  assert [rest.worth(k, 0, 3) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])
  assert rest.worth(1, 1, 3) == pytest.approx(1 / 9) and rest.worth(0, 1, 3) == 0.0
  root = mcts.Node(search_test.Ended(""))
  search_test.chain(root, "1", "2", "3", "right")
  for right, wrong in ((0, 1), (1, 1), (2, 1), (3, 1), (2, 2)):
    path = [str(k + 1) for k in range(right)] + [f"x{k}" for k in range(wrong)]
    node = search_test.chain(root, *path)
    values = mcts.process_values(root, lambda task, text: text == "right")
    assert values[node] == pytest.approx(rest.worth(right, wrong, 4)), (right, wrong)


def test_a_mistake_is_followed_by_right_steps_from_it():
  draws = np.random.default_rng(0)
  t = chain(values=(2, 4, 2), prompt="3+4-3+3=")
  assert rest.worked_out(t, 0, draws) == ["3+4=2", "2-3=4", "4+3=2"]
  for _ in range(20):
    first, *later = rest.worked_out(t, 1, draws)
    a = int(first[-1])
    assert first != "3+4=2" and first[:4] == "3+4="
    assert later == [f"{a}-3={(a - 3) % 5}", f"{(a - 3) % 5}+3={a % 5}"]
  assert rest.worked_out(t, 3, draws)[:2] == ["3+4=2", "2-3=4"]


def test_labelled_pairs():
  tasks = config_lib.bind(config_lib.load("configs/papers/rest-mcts-star.py").tasks)()
  sampler = fake.Sampler(None)
  some = [tasks[i] for i in range(60)]
  out = rest.labelled({"reward_model": sampler}, some, jax.random.key(0), settings={})
  assert len(out) == 120
  offsets = set()
  for good, bad in zip(out[::2], out[1::2]):
    assert (good.info["source"], bad.info["source"]) == ("chosen", "rejected")
    assert good.response == good.task.demo and not rest.flawed(good.task, good.response)
    assert rest.flawed(bad.task, bad.response)
    assert good.turns[-1].tokens.tolist() == [sampler.tokenizer.eos_id]
    assert good.info["turn_columns"]["return_BT"] == pytest.approx([k / 5 for k in range(6)])
    right, wrong = good.response.split(";"), bad.response.split(";")
    at = [x != y for x, y in zip(right, wrong)].index(True)
    told = bad.info["turn_columns"]["return_BT"]
    assert told[:at + 1] == pytest.approx([k / 5 for k in range(at + 1)])
    assert all(v == pytest.approx(rest.worth(at, k, 5)) for k, v in enumerate(told[at:]))
    assert told[-1] < at / 5 + 1e-9
    assert right[at][:-1] == wrong[at][:-1]  # miscalculated, not misread
    offsets.add((int(wrong[at][-1]) - int(right[at][-1])) % 5)
    for step, after in zip(wrong[at:], wrong[at + 1:]):
      assert step[-1] == after[0]  # what follows, follows from the mistake
  assert offsets == {1, 2, 3, 4}


def episode(text, correct, **info):
  turns = (types.Turn("user", np.zeros(1, np.int32)),
           types.Turn("assistant", np.zeros(3, np.int32), text=text))
  return types.Episode(chain(), turns, scores={"correct": correct}, info=info)


def test_what_an_outcome_filter_keeps():
  m = rest.kept()
  assert m.metrics(m.init()) == {"traces": 0.0, "flawed": 0.0}
  right, lucky = "3+4=7;7*0=0;0+3=3", "3+4=9;9*0=0;0+3=3"
  some = [episode(right, 1.0), episode(lucky, 1.0, role="policy"), episode("3+4=9", 0.0),
          episode(lucky, 1.0, role="value")]
  state, same = m.update(m.init(), some)
  assert same == some and m.metrics(state) == {"traces": 2.0, "flawed": 0.5}
  state, _ = m.update(json.loads(json.dumps(state)), some[:1])
  assert m.metrics(state) == {"traces": 3.0, "flawed": pytest.approx(1 / 3)}


def test_measure():
  some = [episode("", 1.0, tokens=40, accepted=True), episode("", 0.0, tokens=80, accepted=True),
          episode("", 1.0, tokens=60, accepted=False)]
  for i, e in enumerate(some):
    object.__setattr__(e, "group", i)
  got = rest.measure(some, 3, None)
  assert got == pytest.approx({"pass_at_1": 2 / 3, "tokens": 60.0, "accepted": 2 / 3,
                               "precision": 0.5})
  plain = episode("", 1.0)
  assert rest.measure([plain], 1, None)["tokens"] == 3 and np.isnan(
      rest.measure([plain], 1, None)["precision"])
