"""Games and problems of other packages behind `Env`: OpenSpiel, TextArena, reasoning-gym."""

import contextlib
import copy
import dataclasses
import json
import random
import threading
from typing import Any

from rljax import config, rng
from rljax.data import tasks as tasks_lib
from rljax.envs import base, games


def _package(name: str, pip: str):
  import importlib
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError:
    raise config.ConfigError(f"this environment needs the package {pip}: pip install {pip}"
                             ) from None


# --- OpenSpiel ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SpielState:
  """text: OpenSpiel's own serialisation of the history."""

  text: str
  seed: int


class OpenSpiel(base.Env):
  """See `open_spiel`."""

  def __init__(self, name: str, foul: float):
    pyspiel = _package("pyspiel", "open_spiel")
    try:
      self._game = pyspiel.load_game(name)
    except pyspiel.SpielError as e:
      raise config.ConfigError(f"open_spiel: {e}") from None
    kind = self._game.get_type()
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
      raise config.ConfigError(f"open_spiel: {name} is no game of turns")
    self._text = ("information_state_string" if kind.provides_information_state_string
                  else "observation_string")
    self.name, self.players, self._foul = name, self._game.num_players(), foul

  def reset(self, task, seed):
    return self._after_chance(self._game.new_initial_state(), seed)[:2]

  def _after_chance(self, state, seed):
    while state.is_chance_node():
      actions, p = zip(*state.chance_outcomes())
      generator = rng.host(seed, "chance", len(state.history()))
      state.apply_action(actions[int(generator.choice(len(p), p=p))])
    text = "" if state.is_terminal() else getattr(state, self._text)(state.current_player()) + "\n"
    return SpielState(state.serialize(), seed), text, state

  def _load(self, state):
    return self._game.deserialize_state(state.text)

  def seat(self, state):
    return max(self._load(state).current_player(), 0)

  def legal(self, state):
    loaded = self._load(state)
    return [loaded.action_to_string(a) for a in loaded.legal_actions()]

  def step(self, state, text):
    loaded, said = self._load(state), games.action_in(text)
    seat = loaded.current_player()
    names = {loaded.action_to_string(a): a for a in loaded.legal_actions()}
    if said not in names:
      share = -self._foul / max(self.players - 1, 1)
      rewards = [self._foul if p == seat else share for p in range(self.players)]
      return state, "", True, {"reward": _paid(rewards), "foul": seat}
    loaded.apply_action(names[said])
    state, observation, loaded = self._after_chance(loaded, state.seed)
    if not loaded.is_terminal():
      return state, observation, False, {}
    return state, "", True, {"reward": _paid(loaded.returns()), "foul": -1}


def open_spiel(*, name: str, foul: float = -1.5) -> base.Env:
  """A game of turns of OpenSpiel, such as "kuhn_poker" or "connect_four".

  A seat reads its information state (or the observation, where a game has no other) and says an
  action by OpenSpiel's name for it.

  Args:
    name: with parameters in OpenSpiel's form, "leduc_poker(players=3)".
    foul: paid for an action that does not exist; the others share as much. It ends the game.

  Raises:
    ConfigError: the package is missing, or the game unknown or not one of turns.
  """
  return OpenSpiel(name, foul)


def _paid(rewards):
  return float(rewards[0]) if len(rewards) == 1 else tuple(map(float, rewards))


# --- TextArena ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ArenaState:
  """env: TextArena's object, never changed in place; player: who is to move."""

  env: Any
  player: int
  turns: int
  seed: int


class TextArena(base.Env):
  """See `textarena`."""

  _lock = threading.Lock()  # its games draw from the one generator of Python's random module

  def __init__(self, name: str, players: int):
    self._arena = _package("textarena", "textarena")
    self.name, self.players = name, players
    self._id = name if name.endswith("-raw") else name + "-raw"  # messages, not a growing text
    try:
      self._arena.make(self._id)
    except (ValueError, KeyError) as e:
      raise config.ConfigError(f"textarena: {e}") from None

  @contextlib.contextmanager
  def _random(self, *seed):
    with self._lock:
      before = random.getstate()
      random.seed(json.dumps(seed))
      try:
        yield
      finally:
        random.setstate(before)

  def reset(self, task, seed):
    env = self._arena.make(self._id)
    with self._random(seed):
      env.reset(num_players=self.players, seed=seed)
      player, messages = env.get_observation()
    return ArenaState(env, player, 0, seed), _messages(messages, player)

  def seat(self, state):
    return state.player

  def step(self, state, text):
    env = copy.deepcopy(state.env)
    with self._random(state.seed, state.turns):
      done, info = env.step(text)
      if done:
        rewards, _ = env.close()
        paid = [rewards.get(p, 0.0) for p in range(self.players)]
        return (dataclasses.replace(state, env=env, turns=state.turns + 1), "", True,
                {"reward": _paid(paid)})
      player, messages = env.get_observation()
    return ArenaState(env, player, state.turns + 1, state.seed), _messages(messages, player), \
        False, {}


def _messages(messages, player) -> str:
  """What others said since this player's last turn; its own words it has said itself."""
  if isinstance(messages, str):
    return messages
  lines = [text.strip() if sender < 0 else f"[Player {sender}] {text.strip()}"
           for sender, text, *_ in messages if sender != player]
  return "\n".join(lines) + "\n"


def textarena(*, name: str, players: int = 2) -> base.Env:
  """A game of TextArena by its id, such as "SimpleNegotiation-v0"; its rewards at the end.

  Args:
    players: how many; 1 for a game for one (then for `rljax.rollouts.multi_turn`).

  Raises:
    ConfigError: the package is missing, or it has no such game.
  """
  return TextArena(name, players)


# --- reasoning-gym --------------------------------------------------------------------------------


class ReasoningGym(base.Env):
  """See `reasoning_gym`."""

  def __init__(self, name: str, settings: dict, feedback: str, tries: int):
    self.name, self._feedback, self._tries = name, feedback, tries
    spec = {"name": name, "config": settings, "size": 1 << 20, "seed": 0}
    self._spec = json.dumps(spec, sort_keys=True)
    try:
      tasks_lib.gym_dataset(self._spec)
    except ValueError as e:
      raise config.ConfigError(str(e)) from None

  def reset(self, task, seed):
    index = task.info.get("index", rng.number(task.id)) % (1 << 20)
    return (index, 0), tasks_lib.gym_dataset(self._spec)[index]["question"] + "\n"

  def step(self, state, text):
    index, tried = state
    data = tasks_lib.gym_dataset(self._spec)
    score = float(data.score_answer(games.action_in(text), data[index]))
    done = score >= 1.0 or tried + 1 >= self._tries
    return (index, tried + 1), "" if done else self._feedback, done, {
        "reward": score if done else 0.0, "tries": tried + 1}


def reasoning_gym(*, name: str, settings: dict | None = None, tries: int = 1,
                  feedback: str = "\nThat is not right. Try again.\n") -> base.Env:
  """Problem `task.info["index"]` of a reasoning-gym data set, scored by its own judge.

  `rljax.data.tasks.reasoning_gym` has the same problems as tasks for a single turn; this one
  answers a wrong attempt with `feedback` until `tries` are used up.

  Args:
    name: of the data set. settings: its own, without seed and size.

  Raises:
    ConfigError: the package is missing, or it refuses the name or the settings.
  """
  return ReasoningGym(name, dict(settings or {}), feedback, tries)
