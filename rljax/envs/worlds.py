"""Two small worlds of text: a frozen lake to cross, and a bargain about things.

Observations are compact, one character a field, so that a character model can play them.
"""

import collections
import dataclasses
import itertools

from rljax import config, rng
from rljax.envs import base, games

# --- a frozen lake --------------------------------------------------------------------------------

_MOVES = {"u": (-1, 0), "d": (1, 0), "l": (0, -1), "r": (0, 1)}
_ACROSS = {"u": "lr", "d": "lr", "l": "ud", "r": "ud"}


@dataclasses.dataclass(frozen=True)
class LakeState:
  """rows: the map, "." ice, "H" hole, "G" goal; row, column of the walker; steps taken."""

  rows: tuple[str, ...]
  row: int
  column: int
  steps: int
  seed: int


class Lake(base.Env):
  """See `frozen_lake`."""

  name = "frozen_lake"

  def __init__(self, size: int, holes: float, slip: float, max_steps: int):
    self._size, self._holes, self._slip, self._max = size, holes, slip, max_steps

  def reset(self, task, seed):
    rows = task.info.get("map") or self._draw(task.id)
    state = LakeState(tuple(rows), 0, 0, 0, seed)
    return state, _lake_text(state)

  def legal(self, state):
    return list(_MOVES)

  def step(self, state, text):
    action = games.action_in(text).lower()
    if action not in _MOVES:
      return state, "", True, {"reward": 0.0, "reached": False, "foul": 0}
    generator = rng.host(state.seed, "slip", state.steps)
    if generator.random() < self._slip:
      action = _ACROSS[action][int(generator.integers(2))]
    size_r, size_c = len(state.rows), len(state.rows[0])
    row = min(max(state.row + _MOVES[action][0], 0), size_r - 1)
    column = min(max(state.column + _MOVES[action][1], 0), size_c - 1)
    state = dataclasses.replace(state, row=row, column=column, steps=state.steps + 1)
    field = state.rows[row][column]
    done = field in "HG" or state.steps >= self._max
    info = {"reward": float(field == "G"), "reached": field == "G", "steps": state.steps}
    return state, "" if done else _lake_text(state), done, info

  def _draw(self, name):
    """The first map of this name that can be crossed."""
    for attempt in itertools.count():
      generator = rng.host(0, "lake", name, attempt)
      field = [["H" if generator.random() < self._holes else "." for _ in range(self._size)]
               for _ in range(self._size)]
      field[0][0], field[-1][-1] = ".", "G"
      rows = tuple("".join(row) for row in field)
      if distance(rows) is not None:
        return rows


def distance(rows: tuple[str, ...]) -> int | None:
  """Fewest steps from the upper left corner to a goal; None if there is no way."""
  queue, seen = collections.deque([(0, 0, 0)]), {(0, 0)}
  while queue:
    row, column, n = queue.popleft()
    if rows[row][column] == "G":
      return n
    for dr, dc in _MOVES.values():
      r, c = row + dr, column + dc
      if (0 <= r < len(rows) and 0 <= c < len(rows[0]) and rows[r][c] != "H"
          and (r, c) not in seen):
        seen.add((r, c))
        queue.append((r, c, n + 1))
  return None


def _lake_text(state):
  rows = [row if i != state.row else row[:state.column] + "A" + row[state.column + 1:]
          for i, row in enumerate(state.rows)]
  return "/".join(rows) + ":"


def frozen_lake(*, size: int = 4, holes: float = 0.2, slip: float = 0.0,
                max_steps: int = 20) -> base.Env:
  """Walk from the upper left to the goal with u, d, l, r; 1 at the goal, 0 in a hole or too late.

  As Gymnasium's FrozenLake: with probability `slip` a step goes to either side instead (2/3 there).
  The map is `task.info["map"]` (rows), else drawn from the task's id, so all samples of a task
  walk the same map; it can always be crossed.

  Args:
    size: rows and columns. holes: share of the fields. max_steps: then the walk is over.

  Raises:
    ConfigError: a size, share or probability that makes no lake.
  """
  if size < 2 or not 0 <= holes <= 0.6 or not 0 <= slip <= 1:
    raise config.ConfigError(f"frozen_lake: size={size}, holes={holes}, slip={slip}")
  return Lake(size, holes, slip, max_steps)


# --- a bargain ------------------------------------------------------------------------------------

TOTAL = 10  # what all things together are worth, to either side


@dataclasses.dataclass(frozen=True)
class Bargain:
  """counts of the things; values[seat] of one of each; the standing offer: what its maker keeps."""

  counts: tuple[int, ...]
  values: tuple[tuple[int, ...], tuple[int, ...]]
  offer: tuple[int, ...] | None = None
  turns: int = 0


class Negotiation(base.Env):
  """See `negotiation`."""

  name = "negotiation"
  players = 2

  def __init__(self, max_turns: int, zero_sum: bool, foul: tuple[float, float]):
    self._max, self._zero_sum, self._foul = max_turns, zero_sum, foul

  def reset(self, task, seed):
    generator = rng.host(seed, "things")
    counts = tuple(int(x) for x in generator.integers(1, 4, size=3))
    worths = [v for v in itertools.product(range(TOTAL + 1), repeat=3)
              if sum(a * b for a, b in zip(v, counts)) == TOTAL]
    values = tuple(worths[int(generator.integers(len(worths)))] for _ in range(2))
    state = Bargain(counts, values)
    return state, self._text(state)

  def seat(self, state):
    return state.turns % 2

  def legal(self, state):
    offers = ["o" + "".join(map(str, kept))
              for kept in itertools.product(*(range(n + 1) for n in state.counts))]
    return (["a"] if state.offer else []) + offers

  def step(self, state, text):
    action, seat = games.action_in(text), self.seat(state)
    if action not in self.legal(state):
      rewards = self._foul if seat == 0 else self._foul[::-1]
      return state, "", True, {"reward": tuple(rewards), "foul": seat, "agreed": False}
    if action == "a":
      return state, "", True, {"reward": self._split(state, seat), "foul": -1, "agreed": True}
    state = dataclasses.replace(state, offer=tuple(map(int, action[1:])), turns=state.turns + 1)
    if state.turns >= self._max:
      return state, "", True, {"reward": (0.0, 0.0), "foul": -1, "agreed": False}
    return state, self._text(state), False, {}

  def _split(self, state, accepting):
    kept = state.offer
    rest = tuple(n - k for n, k in zip(state.counts, kept))
    worth = lambda seat, things: sum(v * n for v, n in zip(state.values[seat], things)) / TOTAL
    own = [worth(seat, rest if seat == accepting else kept) for seat in (0, 1)]
    return (own[0] - own[1], own[1] - own[0]) if self._zero_sum else tuple(own)

  def _text(self, state):
    digits = lambda xs: "".join("T" if x == TOTAL else str(x) for x in xs)
    offer = digits(state.offer) if state.offer else "-"
    return f"{digits(state.counts)}/{digits(state.values[self.seat(state)])}/{offer}:"


def negotiation(*, max_turns: int = 6, zero_sum: bool = False,
                foul: tuple[float, float] = (-1.5, 0.5)) -> base.Env:
  """Two sides divide three kinds of things; each knows its own values alone.

  As "deal or no deal", https://arxiv.org/abs/1706.05125: 1 to 3 of each kind, all of them worth 10
  to either side. A turn reads counts/own values/standing offer and says "o" and what the speaker
  keeps of each ("o102"), or "a", which accepts. Returns: the share of the 10 that one gets.

  Args:
    max_turns: of both sides; without a deal by then both get 0.
    zero_sum: returns are one's share minus the other's.
    foul: paid for an unreadable or impossible turn, and to the other; it ends the talk.
  """
  return Negotiation(max_turns, zero_sum, tuple(foul))
