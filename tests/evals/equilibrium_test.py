"""The exact value of an averaged policy, and what baselines per seat do to uniform TicTacToe."""

import json

import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import memory, text
from rljax.envs import games
from rljax.evals import equilibrium
from rljax.rewards import run

TOKENIZER = text.char(alphabet="JQKpb:")
# First player of Kuhn's equilibrium with alpha = 1/3, second player's only one: P(bet).
OPTIMAL = {"J:": 1 / 3, "Q:": 0.0, "K:": 1.0, "Jpb:": 0.0, "Qpb:": 2 / 3, "Kpb:": 1.0,
           "Jp:": 1 / 3, "Qp:": 0.0, "Kp:": 1.0, "Jb:": 0.0, "Qb:": 1 / 3, "Kb:": 1.0}


def context(step, bets, legal=0.9):
  """A policy that bets so often in each information set, and says something illegal in 10 %."""
  def score(role, prefixes, continuations):
    assert role == "policy"
    out = []
    for prefix, said in zip(prefixes, continuations):
      seen = TOKENIZER.decode(prefix)
      seen = seen[seen.rindex(":", 0, -1) + 2:] if seen.count(":") > 1 else seen
      p = bets[seen] if TOKENIZER.decode(said) == "b" else 1 - bets[seen]
      out.append((np.array([np.log(max(legal * p, 1e-30))]), None))
    return out
  return run.Context(step, 0, TOKENIZER, score=score)


def test_contexts_are_what_a_seat_has_read_and_said():
  found = equilibrium.contexts(games.Kuhn())
  assert set(found) == set(OPTIMAL)
  assert found["Q:"] == ("Q:", ["p", "b"]) and found["Qpb:"][0] == "Q:pQpb:"
  assert found["Kb:"][0] == "Kb:"


def test_an_equilibrium_and_an_average():
  m = equilibrium.averaged(name="kuhn", start=1)
  state, episodes = m.update(m.init(), ["e"], context(0, OPTIMAL))
  got = m.metrics(state)
  assert episodes == ["e"] and got["nash_conv"] == pytest.approx(0.0, abs=1e-9)
  assert got["illegal"] == pytest.approx(0.1) and got["chips"] > 0.1
  half = dict.fromkeys(OPTIMAL, 0.5)
  state, _ = m.update(json.loads(json.dumps(state)), [], context(1, half))  # the average begins
  assert m.metrics(state)["nash_conv"] == pytest.approx(0.9167, abs=1e-4)
  state, _ = m.update(state, [], context(2, OPTIMAL))
  got = m.metrics(state)
  assert 0.1 < got["nash_conv"] < 0.9 and got["last_nash_conv"] == pytest.approx(0.0, abs=1e-9)
  assert state["mean"]["Q:"] == pytest.approx([0.75, 0.25])


def test_it_looks_every_so_often():
  m = equilibrium.averaged(name="kuhn", every=2)
  state, _ = m.update(m.init(), [], context(0, OPTIMAL))
  assert m.update(state, [], context(1, {}))[0] == state
  assert m.update(state, [], context(2, OPTIMAL))[0]["n"] == 2


def test_one_clear_error():
  with pytest.raises(ConfigError, match="no game 'chess'"):
    equilibrium.averaged(name="chess")
  long = run.Context(0, 0, text.byte(), score=None)
  m = equilibrium.averaged(name="kuhn")
  m.update(m.init(), [], context(0, OPTIMAL))
  tokenizer = type("T", (), {"encode": lambda self, t: np.zeros(2, int)})()
  with pytest.raises(ConfigError, match="single tokens"):
    m.update(m.init(), [], run.Context(0, 0, tokenizer, score=long.score))


def test_baselines_of_uniform_tictactoe():
  """A baseline per seat removes the first mover's 0.2968 and a tenth of E[A^2]; a shared one, which
  sees both signs, and none at all do not (SPIRAL, https://arxiv.org/abs/2506.24119)."""
  game, rs, rewards = games.TicTacToe(), np.random.default_rng(0), []
  for _ in range(3000):
    state = game.starts()[0][1]
    while legal := game.legal(state):
      state = game.apply(state, legal[rs.integers(len(legal))])
    rewards += game.returns(state)
  task = types.Task("t", "p")
  turn = types.Turn("assistant", np.array([2], np.int32))
  episodes = [types.Episode(task, (turn,), scores={"reward": r}, info={
      "game": "tictactoe", "seat": i % 2}) for i, r in enumerate(rewards)]

  def left(by):
    m, out = memory.baselines(by=by, decay=0.99), []
    state = m.init()
    for at in range(0, len(episodes), 200):
      state, some = m.update(state, episodes[at:at + 200])
      out += [e.scores["reward"] - e.info["columns"]["baseline_B"] for e in some]
    out = np.array(out[600:])  # burn-in
    return [out[seat::2].mean() for seat in (0, 1)], np.mean(out ** 2)
  second = np.mean(np.square(rewards[600:]))
  means, square = left(("game", "seat"))
  assert max(map(abs, means)) < 0.05 and square / second == pytest.approx(0.90, abs=0.03)
  means, square = left(("game",))
  assert means == pytest.approx([0.2968, -0.2968], abs=0.04)
  assert square / second == pytest.approx(1.0, abs=0.02)
