"""Absolute Zero: what enters the buffers, is shown, is solved; whitening by task and role."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from rljax import advantages, types
from rljax import config as config_lib
from rljax.data import collate, minilist
from rljax.rewards import propose

azr = config_lib.load_file("experiments/absolute-zero.py")
KINDS = minilist.KINDS


def asked(memory, state, kinds=KINDS, times=2, seed=0):
  tasks = list(minilist.requests(kinds=kinds)) * times
  return memory.tasks(state, tasks, np.random.default_rng(seed))


def proposed(request, text, number, right=1, of=2):
  """The episodes of a proposal and its answers, `right` of them with a positive reward."""
  task = minilist.validate(request, text)
  out = [types.Episode(request, (), scores={"reward": 0.1},
                       info={"proposal": number, "valid": task is not None})]
  for i in range(of if task else 0):
    out.append(types.Episode(task, (), scores={"reward": 1.0 if i < right else -0.5},
                             info={"proposal": number}))
  return out


def test_the_first_step_asks_for_the_identity_alone():
  memory = azr.buffers()
  tasks = asked(memory, memory.init())
  assert [t.prompt for t in tasks[:6]] == [
      "PDrevrev|314>314;", "Drevrev|314>", "PArevrev|314>314;", "Arevrev>314|", "PIrevrev|",
      "I314>314;01>01;12>12;"]
  assert len({t.id for t in tasks}) == 12
  assert azr.buffers(examples=0).tasks(memory.init(), tasks[:1], np.random.default_rng(0))[
      0].prompt == "PD"


def test_proposals_enter_once_and_are_solved_newest_first():
  memory = azr.buffers()
  state = memory.init()
  request = asked(memory, state)[0]
  episodes = [*proposed(request, "inc|12", 0), *proposed(request, "inc|12", 1),
              *proposed(request, "bad", 2), *proposed(request, "dbldup|9", 3, right=0),
              *proposed(request, "revrev|314", 4, right=2)]
  state, out = memory.update(state, episodes)
  state = json.loads(json.dumps(state))
  assert state["kept"]["deduction"][1:] == [["inc", ["12"]], ["dbldup", ["9"]]]
  assert state["new"] == {"deduction": 2, "abduction": 0, "induction": 0}
  assert {e.info["columns"]["type_B"] for e in out} == {0.0}
  found = memory.metrics(state)
  assert found["duplicates"] == 2 and found["size"] == 5 and found["valid"] == 4 / 5
  assert found["unique"] == 2 / 4 and found["learnable"] == 2 / 5  # rates 1/2, 1/2, 0, 1
  assert found["rate"] == pytest.approx(0.5) and found["ops"] == pytest.approx(6 / 4)
  assert found["entropy"] == pytest.approx(1.5 * np.log(2))  # 1/2, 1/4, 1/4
  assert [found[f"rate_{q}"] for q in ("0", "0.5", "1")] == [0.25, 0.5, 0.25]
  tasks = asked(memory, state, times=3)
  solve = [t for t in tasks if t.info["solve"] and t.info["kind"] == "deduction"]
  assert [t.prompt for t in solve[:2]] == ["Ddbldup|9>", "Dinc|12>"]
  assert solve[2].prompt in ("Ddbldup|9>", "Dinc|12>", "Drevrev|314>")
  assert minilist.verify(solve[0], "88") == 1.0
  shown = next(t.prompt for t in tasks if not t.info["solve"])
  assert sorted(shown[2:-1].split(";")) == ["dbldup|9>88", "inc|12>23", "revrev|314>314"]
  programs = {t.info["program"] for t in asked(memory, state, times=40)
              if t.info["kind"] == "induction" and not t.info["solve"]}
  assert programs == {"revrev", "inc", "dbldup"}
  state, _ = memory.update(state, proposed(request, "bad", 0))
  assert not any(state["new"].values()) and memory.metrics(state)["valid"] == 0.0


def test_one_kind_alone():
  memory = azr.buffers(kinds=("deduction",))
  tasks = asked(memory, memory.init(), kinds=("deduction",))
  assert {t.info["kind"] for t in tasks} == {"deduction"}


def test_whitening_is_apart_for_kinds_and_roles():
  draws, rows = np.random.default_rng(0), 24
  turns = lambda n: (types.Turn("user", np.zeros(1, np.int32)),
                     types.Turn("assistant", np.ones(n, np.int32)))
  episodes = [types.Episode(types.Task(str(i), ""), turns(1 + i % 4), group=i, scores={
      "reward": 5.0 * (i % 6) + float(draws.normal()) * (i % 6 != 3)}, info={
          "columns": {"type_B": float(i % 3), "role_B": float(i % 6 // 3)}}) for i in range(rows)]
  batch = collate.collate(episodes, shapes=collate.Shapes(rows, 8, 4))
  batch = types.Batch(**{k: getattr(batch, k) for k in batch.__dataclass_fields__})
  config = config_lib.load("configs/papers/absolute-zero.py")
  advantage = config_lib.bind(config.updates.policy.advantage)
  adv_BT, mask_BT = np.asarray(advantage(batch).adv_BT), np.asarray(batch.mask_BT)
  for kind in range(3):
    for role in range(2):
      own = np.array([i % 3 == kind and i % 6 // 3 == role for i in range(rows)])
      values = adv_BT[own][mask_BT[own] > 0]
      if (kind, role) == (0, 1):  # i % 6 == 3: a constant reward
        assert not values.any()
      else:
        assert values.mean() == pytest.approx(0, abs=1e-5)
        assert values.std(ddof=1) == pytest.approx(1, abs=1e-3)
  all_BT = np.asarray(advantages.whiten(advantages.returns(batch)).adv_BT)
  assert abs(all_BT[::6][mask_BT[::6] > 0].mean()) > 0.5 and jnp.isfinite(all_BT).all()


def test_estimates_do_not_train():
  request = types.Task("r", "PD", info={"kind": "deduction"})
  some = proposed(request, "inc|1", 0)
  assert propose.without_estimates(some) == some[:1]
