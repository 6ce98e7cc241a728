"""Board and card games for two, exact and small: rules as pure functions over hashable states.

A `Game` is what `rljax.envs.game_tree` can solve; `Play` puts it behind the `Env` interface. Both
seats read compact text ("X..O.....:") that a character model can learn, and answer with one action;
a larger model may reason first and put the action in \\boxed{} or square brackets.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from rljax import config, rng
from rljax.data import tasks as tasks_lib
from rljax.envs import base
from rljax.types import Task

_MARKED = re.compile(r"\\boxed\{([^{}]*)\}|\[([^\[\]]*)\]")


class Game:
  """Rules. States are hashable and immutable; the chance moves are all in the start.

  `legal` is empty exactly where the game is over, and only there `returns` is defined.
  """

  def starts(self) -> list[tuple[float, tuple]]:
    """Every start with its probability."""
    raise NotImplementedError

  def seat(self, state) -> int:
    raise NotImplementedError

  def legal(self, state) -> list[str]:
    raise NotImplementedError

  def apply(self, state, action: str):
    raise NotImplementedError

  def returns(self, state) -> tuple[float, float]:
    raise NotImplementedError

  def observe(self, state) -> str:
    """All that the seat to move knows: equal texts are one information set."""
    raise NotImplementedError


class TicTacToe(Game):
  """State: nine characters. X begins; actions "0" to "8"; +1, 0, -1."""

  LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))

  def starts(self):
    return [(1.0, "." * 9)]

  def seat(self, state):
    return 0 if state.count("X") == state.count("O") else 1

  def _winner(self, state):
    return next((state[a] for a, b, c in self.LINES if state[a] == state[b] == state[c] != "."), "")

  def legal(self, state):
    return [] if self._winner(state) else [str(i) for i, c in enumerate(state) if c == "."]

  def apply(self, state, action):
    i = int(action)
    return state[:i] + "XO"[self.seat(state)] + state[i + 1:]

  def returns(self, state):
    value = {"X": 1.0, "O": -1.0, "": 0.0}[self._winner(state)]
    return value, 0.0 - value

  def observe(self, state):
    return f"{'XO'[self.seat(state)]}{state}:"


class Kuhn(Game):
  """Kuhn poker: three cards, ante 1, one bet of 1. State: (cards, history); "p" passes, "b" bets.

  Kuhn 1950, "A simplified two-person poker"; the first player's value is -1/18.
  """

  def starts(self):
    return [(1 / 6, (a + b, "")) for a in "JQK" for b in "JQK" if a != b]

  def seat(self, state):
    return len(state[1]) % 2

  def legal(self, state):
    return [] if state[1] in ("pp", "bp", "bb", "pbp", "pbb") else ["p", "b"]

  def apply(self, state, action):
    return state[0], state[1] + action

  def returns(self, state):
    cards, history = state
    if history in ("bp", "pbp"):  # a bet that nobody called
      value = 1.0 if history == "bp" else -1.0
    else:
      high = 1.0 if "JQK".index(cards[0]) > "JQK".index(cards[1]) else -1.0
      value = high * (2.0 if history.endswith("bb") else 1.0)
    return value, 0.0 - value

  def observe(self, state):
    return f"{state[0][self.seat(state)]}{state[1]}:"


class Leduc(Game):
  """Leduc poker: six cards, two rounds, bets of 2 and 4, at most two raises in a round, ante 1.

  Southey et al. 2005, https://arxiv.org/abs/1207.1411. State: (two cards and the public one,
  history of the first round, of the second); "f" folds, "c" checks or calls, "r" bets or raises.
  """

  def starts(self):
    deck = "JJQQKK"
    hands: dict[str, int] = {}
    for i in range(6):
      for j in range(6):
        for k in range(6):
          if len({i, j, k}) == 3:
            hand = deck[i] + deck[j] + deck[k]
            hands[hand] = hands.get(hand, 0) + 1
    return [(n / 120, (hand, "", "")) for hand, n in hands.items()]

  @staticmethod
  def _closed(history):
    return len(history) >= 2 and history[-1] == "c"

  def seat(self, state):
    _, first, second = state
    return len(second if self._closed(first) else first) % 2

  def legal(self, state):
    _, first, second = state
    now = second if self._closed(first) else first
    if "f" in first + second or (self._closed(first) and self._closed(second)):
      return []
    return (["f"] if now.endswith("r") else []) + ["c"] + (["r"] if now.count("r") < 2 else [])

  def apply(self, state, action):
    cards, first, second = state
    return ((cards, first, second + action) if self._closed(first)
            else (cards, first + action, second))

  def returns(self, state):
    cards, *rounds = state
    paid, loser = [1.0, 1.0], None
    for history, bet in zip(rounds, (2.0, 4.0)):
      for i, action in enumerate(history):
        if action == "f":
          loser = i % 2
        elif action == "c":
          paid[i % 2] = paid[1 - i % 2]
        else:
          paid[i % 2] = paid[1 - i % 2] + bet
    if loser is None:
      rank = [10 * (cards[p] == cards[2]) + "JQK".index(cards[p]) for p in (0, 1)]
      if rank[0] == rank[1]:
        return 0.0, 0.0
      loser = int(rank[0] > rank[1])
    value = paid[loser] * (1.0 if loser == 1 else -1.0)
    return value, 0.0 - value

  def observe(self, state):
    cards, first, second = state
    public = f"/{cards[2]}{second}" if self._closed(first) else ""
    return f"{cards[self.seat(state)]}{first}{public}:"


GAMES = {"tictactoe": TicTacToe, "kuhn": Kuhn, "leduc": Leduc}


# --- behind the interface of environments ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Position:
  """Of `Play`: a state of the game, and how many turns were taken."""

  state: tuple | str
  turns: int = 0


class Play(base.Env):
  """A game for two seats; see `play`."""

  players = 2

  def __init__(self, game: Game, name: str, foul: tuple[float, float]):
    self.game, self.name, self._foul = game, name, foul
    self._starts = game.starts()

  def reset(self, task, seed):
    p, states = zip(*self._starts)
    chosen = rng.host(seed, "deal").choice(len(p), p=np.asarray(p) / sum(p))
    position = Position(states[chosen])
    return position, self.game.observe(position.state)

  def seat(self, state):
    return self.game.seat(state.state)

  def legal(self, state):
    return self.game.legal(state.state)

  def step(self, state, text):
    action, seat = action_in(text), self.seat(state)
    if action not in self.game.legal(state.state):
      offender, other = self._foul
      rewards = (offender, other) if seat == 0 else (other, offender)
      return state, "", True, {"reward": rewards, "foul": seat}
    position = Position(self.game.apply(state.state, action), state.turns + 1)
    if self.game.legal(position.state):
      return position, self.game.observe(position.state), False, {}
    rewards = self.game.returns(position.state)
    return position, "", True, {"reward": rewards, "foul": -1}


def action_in(text: str) -> str:
  """The action of a turn: what its last \\boxed{} or [] holds, else all of it."""
  found = _MARKED.findall(text)
  return "".join(found[-1]).strip() if found else text.strip()


def play(*, name: str, foul: tuple[float, float] = (-1.5, 0.5)) -> base.Env:
  """TicTacToe, Kuhn or Leduc poker.

  Args:
    name: one of GAMES.
    foul: paid to whoever makes an illegal or unreadable move, and to the other; it ends the game
      (SPIRAL's values, https://arxiv.org/abs/2506.24119).

  Raises:
    ConfigError: no such game.
  """
  if name not in GAMES:
    raise config.ConfigError(f"there is no game {name!r} (there is: {', '.join(GAMES)})")
  return Play(GAMES[name](), name, tuple(foul))


def uniform(env: base.Env, state, generator: np.random.Generator) -> str:
  """A scripted player that draws one of `env.legal(state)`; a seat of `rljax.rollouts.versus`."""
  return str(generator.choice(env.legal(state)))


def tasks(*, name: str, size: int = 1024, prompt: str = "") -> Sequence[Task]:
  """`size` tasks of one environment, which brings its own observations.

  Args:
    name: part of the ids, so of the randomness.
    prompt: read before the first observation (the rules, say).
  """
  make = lambda i: Task(id=f"{name}/{i}", prompt=prompt, info={"index": i})
  return tasks_lib.TaskSet(make, size)
