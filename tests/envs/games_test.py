"""Known values of small games, rules against OpenSpiel's, views that hide what they must."""

import pickle

import numpy as np
import pytest

from rljax import rng, types
from rljax.config import ConfigError
from rljax.envs import external, game_tree, games, worlds

UNIFORM = (game_tree.uniform, game_tree.uniform)


def test_tictactoe_under_uniform_play():
  results = game_tree.outcomes(games.TicTacToe(), UNIFORM)
  assert {r[0]: round(p, 4) for r, p in results.items()} == {1.0: 0.5849, -1.0: 0.2881, 0.0: 0.127}


def test_kuhn_known_values():
  game = games.Kuhn()
  assert np.allclose(game_tree.values(game, UNIFORM), (0.125, -0.125))
  assert abs(game_tree.nash_conv(game, UNIFORM) - 0.9167) < 5e-5


@pytest.mark.parametrize("alpha", [0.0, 0.2, 1 / 3])
def test_kuhn_equilibria_have_the_value_minus_one_eighteenth(alpha):
  """Kuhn's family of equilibria: bluff with the jack at alpha, bet the king at three times that."""
  bets = {"J:": alpha, "Q:": 0.0, "K:": 3 * alpha, "Jpb:": 0.0, "Qpb:": alpha + 1 / 3, "Kpb:": 1.0,
          "Jp:": 1 / 3, "Qp:": 0.0, "Kp:": 1.0, "Jb:": 0.0, "Qb:": 1 / 3, "Kb:": 1.0}

  def policy(observation, legal):
    return [1 - bets[observation], bets[observation]]
  game = games.Kuhn()
  assert np.isclose(game_tree.values(game, (policy, policy))[0], -1 / 18)
  assert abs(game_tree.nash_conv(game, (policy, policy))) < 1e-12
  bets["Jp:"] = 0.6  # off the equilibrium there is something to gain
  assert game_tree.nash_conv(game, (policy, policy)) > 0.05


@pytest.mark.parametrize("ours,theirs", [("kuhn", "kuhn_poker"), ("leduc", "leduc_poker")])
def test_values_agree_with_openspiel(ours, theirs):
  pyspiel = pytest.importorskip("pyspiel", reason="open_spiel is not installed")
  from open_spiel.python import policy as policies
  from open_spiel.python.algorithms import expected_game_score, exploitability
  game, mine = pyspiel.load_game(theirs), games.GAMES[ours]()
  uniform = policies.UniformRandomPolicy(game)
  values = expected_game_score.policy_value(game.new_initial_state(), [uniform, uniform])
  assert np.allclose(game_tree.values(mine, UNIFORM), values)
  assert np.isclose(game_tree.nash_conv(mine, UNIFORM), exploitability.nash_conv(game, uniform))


@pytest.mark.parametrize("ours,theirs", [("tictactoe", "tic_tac_toe"), ("leduc", "leduc_poker")])
def test_rules_agree_with_openspiel_on_random_games(ours, theirs):
  pyspiel = pytest.importorskip("pyspiel", reason="open_spiel is not installed")
  mine, game = games.GAMES[ours](), pyspiel.load_game(theirs)
  p, starts = zip(*mine.starts())
  for n in range(60):
    g = rng.host(n, "test")
    a, b = starts[int(g.choice(len(p), p=p))], game.new_initial_state()
    if ours == "leduc":
      used = []
      for card in a[0][:2]:
        used.append(next(2 * "JQK".index(card) + s for s in (0, 1)
                         if 2 * "JQK".index(card) + s not in used))
        b.apply_action(used[-1])
    while mine.legal(a):
      if b.is_chance_node():
        card = "JQK".index(a[0][2])
        b.apply_action(next(c for c, _ in b.chance_outcomes() if c // 2 == card))
      legal = mine.legal(a)
      ids = sorted(b.legal_actions())
      assert len(legal) == len(ids) and mine.seat(a) == b.current_player()
      at = int(g.integers(len(legal)))
      a = mine.apply(a, legal[at])
      b.apply_action(ids[at])
    assert b.is_terminal() and list(mine.returns(a)) == b.returns()


def test_an_information_set_is_what_its_owner_has_seen():
  game = games.Leduc()
  for _, start in game.starts():
    state = game.apply(game.apply(start, "c"), "r")
    assert game.observe(state) == start[0][0] + "cr:"  # no card of the other, no public one yet
    state = game.apply(state, "c")
    assert game.observe(state) == f"{start[0][0]}crc/{start[0][2]}:"


def play_out(env, task, seed, choose):
  state, observation = env.reset(task, seed)
  seen, done, info = [observation], False, {}
  while not done:
    state = pickle.loads(pickle.dumps(state))
    before = pickle.dumps(state)
    after, observation, done, info = env.step(state, choose(state))
    assert pickle.dumps(state) == before  # a step leaves its state alone
    state = after
    seen.append(observation)
  return seen, info


def uniform(env, seed):
  generator = np.random.default_rng(seed)
  return lambda state: games.uniform(env, state, generator)


ENVS = {
    "tictactoe": lambda: games.play(name="tictactoe"), "kuhn": lambda: games.play(name="kuhn"),
    "leduc": lambda: games.play(name="leduc"), "negotiation": worlds.negotiation,
    "frozen_lake": lambda: worlds.frozen_lake(slip=0.5),
    "open_spiel": lambda: external.open_spiel(name="leduc_poker"),
}


@pytest.mark.parametrize("name", ENVS)
def test_every_game_ends_repeats_by_its_seed_and_pickles(name):
  if name == "open_spiel":
    pytest.importorskip("pyspiel", reason="open_spiel is not installed")
  env, task = ENVS[name](), types.Task("a", "")
  runs = [play_out(env, task, seed, uniform(env, seed)) for seed in (1, 1, 2, 3, 4, 5)]
  assert runs[0] == runs[1] and any(r != runs[0] for r in runs[2:])
  reward = runs[0][1]["reward"]
  assert len(reward) == env.players if env.players > 1 else isinstance(reward, float)


@pytest.mark.parametrize("name", ENVS)
def test_nonsense_is_a_foul_of_whoever_said_it(name):
  if name == "open_spiel":
    pytest.importorskip("pyspiel", reason="open_spiel is not installed")
  env = ENVS[name]()
  state, _ = env.reset(types.Task("a", ""), 0)
  _, _, done, info = env.step(state, "no such move")
  assert done and info["foul"] == 0
  if env.players > 1:
    assert info["reward"][0] == -1.5 and info["reward"][1] > 0


def test_the_price_of_a_foul_is_a_knob():
  state, _ = (env := games.play(name="kuhn", foul=(-3.0, 1.0))).reset(types.Task("a", ""), 0)
  assert env.step(state, "?")[3]["reward"] == (-3.0, 1.0)
  state, _ = (env := worlds.negotiation(foul=(-2.0, 0.0))).reset(types.Task("a", ""), 0)
  assert env.step(state, "?")[3]["reward"] == (-2.0, 0.0)


def test_actions_may_stand_in_brackets_behind_words():
  assert games.action_in("I think [3], no: \\boxed{4}") == "4"
  assert games.action_in("\\boxed{4}, or rather [ 5 ]") == "5"
  assert games.action_in(" b\n") == "b"


def test_unknown_games_are_refused():
  with pytest.raises(ConfigError, match="tictactoe"):
    games.play(name="go")
  pytest.importorskip("pyspiel", reason="open_spiel is not installed")
  with pytest.raises(ConfigError, match="open_spiel"):
    external.open_spiel(name="no_such_game")
  with pytest.raises(ConfigError, match="no game of turns"):
    external.open_spiel(name="matrix_rps")


# --- worlds ---------------------------------------------------------------------------------------


def test_a_lake_is_crossed_by_its_shortest_way():
  env = worlds.frozen_lake()
  task = types.Task("a", "", info={"map": ["..H", "H..", "..G"]})
  state, text = env.reset(task, 0)
  assert text == "A.H/H../..G:"
  for action in "rdrd":
    state, text, done, info = env.step(state, action)
  assert done and info["reward"] == 1.0 and info["steps"] == 4 == worlds.distance(tuple(
      task.info["map"]))
  state, _ = env.reset(task, 0)
  state, text, done, _ = env.step(state, "u")
  assert text == "A.H/H../..G:" and not done  # the shore
  assert env.step(state, "d")[2:] == (True, {"reward": 0.0, "reached": False, "steps": 2})


def test_lakes_are_drawn_by_the_task_and_can_be_crossed():
  env = worlds.frozen_lake(size=5, holes=0.5)
  texts = {env.reset(types.Task(f"t{i}", ""), seed)[1] for i in range(20) for seed in (0, 1)}
  assert len(texts) == 20
  for text in texts:
    assert worlds.distance(tuple(text[:-1].replace("A", ".").split("/"))) is not None
  assert "H" not in worlds.frozen_lake(holes=0.0).reset(types.Task("t", ""), 0)[1]
  with pytest.raises(ConfigError):
    worlds.frozen_lake(holes=0.9)


def test_slips_go_sideways_as_often_as_they_should():
  env = worlds.frozen_lake(size=9, holes=0.0, slip=0.5)
  task = types.Task("t", "")
  ends = []
  for seed in range(400):
    state, _ = env.reset(task, seed)
    state = worlds.dataclasses.replace(state, row=4, column=4)
    after = env.step(state, "r")[0]
    ends.append((after.row - 4, after.column - 4))
  share = {e: ends.count(e) / 400 for e in set(ends)}
  assert set(share) == {(0, 1), (1, 0), (-1, 0)} and abs(share[0, 1] - 0.5) < 0.08


def test_walks_end():
  env = worlds.frozen_lake(holes=0.0, max_steps=3)
  seen, info = play_out(env, types.Task("t", ""), 0, lambda state: "u")
  assert info["steps"] == 3 and info["reward"] == 0.0


def test_a_bargain_is_paid_by_ones_own_values():
  env = worlds.negotiation()
  state = worlds.Bargain((1, 2, 3), ((10, 0, 0), (1, 3, 1)))
  assert env._text(state) == "123/T00/-:"
  state, text, done, _ = env.step(state, "o100")
  assert text == "123/131/100:" and not done and env.seat(state) == 1
  _, _, done, info = env.step(state, "a")
  assert done and info["agreed"] and info["reward"] == (1.0, 0.9)
  assert worlds.negotiation(zero_sum=True).step(state, "a")[3]["reward"] == pytest.approx(
      (0.1, -0.1))


def test_no_deal_is_worth_nothing():
  env = worlds.negotiation(max_turns=2)
  _, info = play_out(env, types.Task("t", ""), 0, lambda state: "o000")
  assert info == {"reward": (0.0, 0.0), "foul": -1, "agreed": False}


def test_things_are_worth_ten_to_either_side():
  for seed in range(20):
    state, _ = worlds.negotiation().reset(types.Task("t", ""), seed)
    assert all(sum(v * n for v, n in zip(vs, state.counts)) == 10 for vs in state.values)


# --- other packages -------------------------------------------------------------------------------


def test_textarena_games_run_behind_the_interface():
  pytest.importorskip("textarena", reason="textarena is not installed")
  env = external.textarena(name="TicTacToe-v0")
  state, text = env.reset(types.Task("t", ""), 0)
  assert "You are Player 0" in text and env.seat(state) == 0
  copy = pickle.loads(pickle.dumps(state))
  state, text, done, _ = env.step(state, "[4]")
  assert env.seat(state) == 1 and "You are Player 1" in text and "[Player 0] [4]" in text
  assert env.step(copy, "[4]")[1] == text
  state, text, _, _ = env.step(state, "[0]")
  assert "[Player 1] [0]" in text and "[Player 0]" not in text  # not its own words again
  for move in ("[3]", "[1]"):
    state, _, done, _ = env.step(state, move)
  _, _, done, info = env.step(state, "[5]")
  assert done and info["reward"] == (1.0, -1.0)
  with pytest.raises(ConfigError):
    external.textarena(name="NoSuchGame-v0")


def test_reasoning_gym_judges_and_lets_try_again():
  pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
  env = external.reasoning_gym(name="chain_sum", tries=2)
  state, question = env.reset(types.Task("t", "", info={"index": 3}), 0)
  from rljax.data import tasks
  answer = tasks.gym_dataset(env._spec)[3]["answer"]
  after, text, done, info = env.step(state, "no idea")
  assert not done and "Try again" in text and info["reward"] == 0.0
  assert env.step(after, answer)[2:] == (True, {"reward": 1.0, "tries": 2})
  assert external.reasoning_gym(name="chain_sum").step(state, "no idea")[2]
  with pytest.raises(ConfigError, match="did you mean"):
    external.reasoning_gym(name="chain_sun")
