"""Seats, views, fouls, draws; baselines that live over steps."""

import dataclasses

import jax
import numpy as np
import pytest

from rljax import types
from rljax.config import ConfigError
from rljax.data import memory
from rljax.envs import games
from rljax.rollouts import versus
from tests.rollouts import fake

KEY = jax.random.key(0)


def first_legal(context, seed):
  """Plays the lowest empty field of the last board it has read."""
  board = context.rstrip(":").split(":")[-1][-9:]
  return str(board.index("."))


def run(reply, *, name="tictactoe", samplers=None, tasks=1, **kwargs):
  samplers = samplers or {"policy": fake.Sampler(reply)}
  given = games.tasks(name=name, size=tasks)
  kwargs = {"group_size": 1, "turn_tokens": 2, **kwargs}
  return versus.versus(samplers, list(given), KEY, env=games.play(name=name), **kwargs), samplers


def test_both_seats_see_the_board_and_only_their_own_words():
  (x, o), _ = run(first_legal)
  assert x.turns[0].text == "X.........:" and o.turns[0].text == "OX........:"
  assert [t.text for t in x.turns if t.role == "assistant"] == ["0", "2", "4", "6"]
  assert [t.text for t in o.turns if t.role == "assistant"] == ["1", "3", "5"]
  assert x.turns[2].text == "XXO.......:"
  assert (x.info["return"], o.info["return"]) == (1.0, -1.0)
  assert x.status == o.status == types.STOP and x.group == o.group == 0
  assert [e.info["seat"] for e in (x, o)] == [0, 1] and x.info["game"] == "tictactoe"
  assert x.info["columns"] == {"seat_B": 0, "game_B": 0}


def test_an_illegal_move_ends_the_game_and_is_paid():
  (x, o), _ = run(lambda c, s: "0" if c[0] == "X" else "0")
  assert (x.info["return"], o.info["return"]) == (0.5, -1.5) and o.info["foul"] == 1
  (x, o), _ = run(lambda c, s: "z")
  assert (x.info["return"], o.info["return"]) == (-1.5, 0.5) and o.num_actions == 0


def test_all_games_advance_together():
  _, samplers = run(first_legal, tasks=3, group_size=2)
  assert [len(c[0]) for c in samplers["policy"].calls] == [6] * 7  # seven moves, twelve episodes


def test_seats_rotate_and_roles_can_differ():
  samplers = {"a": fake.Sampler(first_legal), "b": fake.Sampler(first_legal)}
  episodes, _ = run(None, samplers=samplers, seats=("a", "b"), group_size=2)
  assert [(e.info["role"], e.info["seat"]) for e in episodes] == [
      ("a", 0), ("b", 1), ("b", 0), ("a", 1)]
  fixed, _ = run(None, samplers=samplers, seats=("a", "b"), group_size=2, alternate=False)
  assert [e.info["role"] for e in fixed] == ["a", "b", "a", "b"]
  kept, _ = run(None, samplers=samplers, seats=("a", "b"), group_size=2, record=("b",))
  assert [(e.info["role"], e.info["seat"]) for e in kept] == [("b", 1), ("b", 0)]
  assert len(samplers["a"].calls[0][0]) == 1  # one call per role, of the games that it moves in


def test_a_scripted_player_fills_a_seat_and_differs_from_game_to_game():
  episodes, _ = run(first_legal, seats=("policy", games.uniform), group_size=8)
  assert len(episodes) == 8 and [e.info["seat"] for e in episodes] == [0, 1] * 4
  assert len({e.turns[0].text for e in episodes if e.info["seat"] == 1}) > 1
  again, _ = run(first_legal, seats=("policy", games.uniform), group_size=8)
  assert [e.info["return"] for e in again] == [e.info["return"] for e in episodes]


def test_cards_are_dealt_by_the_seed_and_hidden_from_the_other():
  episodes, _ = run(lambda c, s: "b", name="kuhn", group_size=30)
  first = [e for e in episodes if e.info["seat"] == 0]
  second = [e for e in episodes if e.info["seat"] == 1]
  cards = [a.turns[0].text[0] + b.turns[0].text[0] for a, b in zip(first, second)]
  assert len(set(cards)) >= 5 and all(a != b for a, b in cards)
  assert all(abs(e.info["return"]) == 2 for e in episodes)


def test_too_many_turns_or_too_few_tokens_are_a_draw():
  (x, o), _ = run(first_legal, max_turns=4)
  assert x.status == o.status == types.LENGTH and x.info["return"] == o.info["return"] == 0
  short = {"policy": fake.Sampler(first_legal, response=4)}
  (x, o), _ = run(None, samplers=short)
  assert x.status == types.LENGTH and x.num_actions == o.num_actions == 4


def test_a_broken_environment_is_an_error_of_its_own_game():
  class Broken(games.Play):
    def step(self, state, text):
      if state.state == "........." and text == "1":
        raise RuntimeError("broke")
      return super().step(state, text)
  env = Broken(games.TicTacToe(), "tictactoe", (-1.5, 0.5))
  sampler = fake.Sampler(lambda c, s: str(s[1]) if c.endswith(".........:") else first_legal(c, s))
  episodes = versus.versus({"policy": sampler}, list(games.tasks(name="t", size=1)), KEY, env=env,
                           group_size=2)
  assert [e.status for e in episodes] == [types.STOP] * 2 + [types.ERROR] * 2


def test_refusals():
  with pytest.raises(ConfigError, match="no role 'nobody'"):
    run(first_legal, seats=("policy", "nobody"))
  with pytest.raises(ConfigError, match="1 seats"):
    run(first_legal, seats=("policy",))


def test_baselines_are_kept_per_key_and_reach_the_batch():
  episodes, _ = run(first_legal, tasks=2)
  episodes = [dataclasses.replace(e, scores={"reward": e.info["return"]}) for e in episodes]
  m = memory.baselines(by=("game", "seat"), decay=0.5)
  state, out = m.update(m.init(), episodes)
  assert state == {"tictactoe/0": 0.75, "tictactoe/1": -0.75}
  assert [e.info["columns"]["baseline_B"] for e in out] == [0.0, 0.0, 0.5, -0.5]
  _, again = m.update(state, episodes)
  assert again[0].info["columns"]["baseline_B"] == 0.75
  shared = memory.baselines(by=(), decay=0.5, start=1.0)
  assert shared.update({}, episodes)[1][0].info["columns"]["baseline_B"] == 1.0


def test_an_episode_that_says_nothing_moves_no_baseline():
  (x, o), _ = run(lambda c, s: "z")
  m = memory.baselines(by=("seat",), decay=0.0)
  scored = [dataclasses.replace(e, scores={"reward": 1.0}) for e in (x, o)]
  assert m.update({}, scored)[0] == {"0": 1.0, "1": 0.0}
  failed = [dataclasses.replace(e, status=types.ERROR) for e in scored]
  assert m.update({}, failed)[0] == {"0": 0.0, "1": 0.0}


def test_uniform_play_by_rollouts_agrees_with_the_exact_value():
  def reply(context, seed):
    board = context.rstrip(":").split(":")[-1][-9:]
    free = [i for i, c in enumerate(board) if c == "."]
    return str(np.random.default_rng([*seed, len(free)]).choice(free))
  episodes, _ = run(reply, group_size=800)
  first = np.array([e.info["return"] for e in episodes if e.info["seat"] == 0])
  assert abs(np.mean(first == 1) - 0.5849) < 0.06 and abs(np.mean(first == 0) - 0.1270) < 0.04


def test_demonstrations_show_a_scripted_player_from_either_seat():
  sampler = fake.Sampler(None)
  tasks = list(games.tasks(name="t", size=6))
  env = games.play(name="tictactoe")
  episodes = versus.demonstrations({"policy": sampler}, tasks, KEY, env=env, player=games.uniform)
  assert [e.info["seat"] for e in episodes] == [0, 1] * 3 and not sampler.calls
  assert [e.group for e in episodes] == list(range(6))
  for e in episodes:
    said = [t for t in e.turns if t.role == "assistant"]
    assert all(len(t.tokens) == 1 and t.logp is None for t in said)
    assert e.info["foul"] == -1 and e.status == types.STOP and len(said) >= 2
  assert len({e.turns[0].text + e.response for e in episodes}) > 4
  ended = versus.demonstrations({"policy": sampler}, tasks[:1], KEY, env=env, player=games.uniform,
                                end_token=True)
  assert ended[0].turns[1].tokens[-1] == 1 and len(ended[0].turns[1].tokens) == 2
