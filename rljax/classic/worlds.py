"""Tabular worlds: lines, chains, rooms. Each is an exact `Mdp` behind the environment interface."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax import config as config_lib
from rljax.classic import env as env_lib

LEFT, RIGHT, PICK = 0, 1, 2


def build(states: int, actions: int, moves: Callable, *, start: Sequence[float],
          terminal: Sequence[int] = ()) -> env_lib.Mdp:
  """The process whose moves a function lists.

  Args:
    states, actions: how many.
    moves: (state, action) -> [(probability, next state, reward), ...].
    start: probabilities [states].
    terminal: states that end an episode; their moves are not asked for.

  Raises:
    ConfigError: probabilities that do not sum to 1.
  """
  P_SAS, R_SAS = np.zeros((2, states, actions, states))
  ends = np.isin(np.arange(states), terminal)
  for s in range(states):
    for a in range(actions):
      for p, new, reward in [(1.0, s, 0.0)] if ends[s] else moves(s, a):
        P_SAS[s, a, new] += p
        R_SAS[s, a, new] = reward
  start_S = np.asarray(start, float)
  if np.abs(P_SAS.sum(-1) - 1).max() > 1e-9 or abs(start_S.sum() - 1) > 1e-9 or (
      min(P_SAS.min(), start_S.min()) < 0):
    raise config_lib.ConfigError("a world's probabilities must lie in [0, 1] and sum to 1")
  return env_lib.Mdp(P_SAS, R_SAS, start_S, ends)


def line_key(*, cells: int = 10, key: int = 1, slip: float = 0.1, reward: float = 10.0,
             horizon: int = 30) -> env_lib.Env:
  """LineK: fetch a key on one side of a line, then act at the goal, the last cell on the other.

  Actions left, right, pick; a slipping move goes either way with equal probability. Any action at
  the goal with the key pays and ends the episode. States: cell, + `cells` with the key, and the
  end. The start is the cell (cells - 1) // 2 without the key.
  https://arxiv.org/abs/2402.07019 section 5 describes the line of the paper, with 20 cells.

  Args:
    cells: of the line. key: where the key lies.
    slip: probability that a move's direction is random.
    reward: at the goal.
    horizon: steps.
  """
  goal, end = cells - 1, 2 * cells

  def moves(s, a):
    has, at = divmod(s, cells)
    if has and at == goal:
      return [(1.0, end, reward)]
    if a == PICK:
      return [(1.0, cells + at if at == key else s, 0.0)]
    left, right = (has * cells + min(max(at + d, 0), cells - 1) for d in (-1, 1))
    ahead, back = (left, right) if a == LEFT else (right, left)
    return [(1 - slip / 2, ahead, 0.0), (slip / 2, back, 0.0)]

  mdp = build(end + 1, 3, moves, start=np.eye(end + 1)[(cells - 1) // 2], terminal=[end])
  return env_lib.tabular(mdp, horizon=horizon)


def chain(*, right: int = 10, left: int = 0, slip: float = 0.05, distractor: int = 0,
          distractor_reward: float = 0.05, horizon: int = 0) -> env_lib.Env:
  """A goal `right` cells to the right pays 1; a long way to the left nothing, or a distractor.

  Actions left and right; a slipping move goes the other way. State 0 is the leftmost cell, the
  start is the cell `left`; reaching the goal ends the episode, entering the distractor does not.
  The chain of https://openreview.net/forum?id=rgVqH3gjeA (SelfRS, ExploRS).

  Args:
    right: distance of the goal. left: cells to the left of the start; 0 = twice `right`.
    slip: probability of moving the other way.
    distractor: distance of the distractor to the left; 0 = there is none.
    distractor_reward: paid whenever it is entered.
    horizon: steps; 0 = twice `right`.

  Raises:
    ConfigError: a distractor outside of the chain.
  """
  left, horizon = left or 2 * right, horizon or 2 * right
  if not 0 <= distractor <= left:
    raise config_lib.ConfigError(f"distractor={distractor}: the chain has {left} cells on the left")
  goal, trap = left + right, left - distractor if distractor else -1
  pays = {goal: 1.0, **({trap: distractor_reward} if distractor else {})}

  def moves(s, a):
    down, up = max(s - 1, 0), s + 1
    ahead, back = (down, up) if a == LEFT else (up, down)
    return [(p, new, pays.get(new, 0.0)) for p, new in ((1 - slip, ahead), (slip, back))]

  mdp = build(goal + 1, 2, moves, start=np.eye(goal + 1)[left], terminal=[goal])
  return env_lib.tabular(mdp, horizon=horizon)


FOUR_ROOMS = ("#########", "#   #   #", "#S      #", "#   #   #", "## ### ##", "#   #   #",
              "#       #", "#   #  G#", "#########")


def grid(*, plan: Sequence[str] = FOUR_ROOMS, slip: float = 0.1, reward: float = 1.0,
         step_reward: float = 0.0, horizon: int = 60) -> env_lib.Env:
  """Rooms drawn in characters: "#" wall, "S" a possible start (all equally likely), "G" a goal.

  Actions up, right, down, left; a slipping move goes in a random one of the four directions; walls
  stop. Goals end the episode. States are the free cells in reading order.

  Args:
    plan: the drawing, lines of equal length.
    slip: probability that the direction is random.
    reward: on entering a goal. step_reward: of every other step.
    horizon: steps.

  Raises:
    ConfigError: lines of unequal length, or no start or goal.
  """
  if len({len(line) for line in plan}) != 1 or not all(any(c in r for r in plan) for c in "SG"):
    raise config_lib.ConfigError("a grid's plan needs lines of equal length, an S and a G")
  free = [(i, j) for i, line in enumerate(plan) for j, c in enumerate(line) if c != "#"]
  ids = {at: n for n, at in enumerate(free)}
  goals = [n for n, (i, j) in enumerate(free) if plan[i][j] == "G"]
  starts = np.array([plan[i][j] == "S" for i, j in free], float)
  ways = ((-1, 0), (0, 1), (1, 0), (0, -1))

  def moves(s, a):
    i, j = free[s]
    found = [((1 - slip) * (d == a) + slip / 4, ids.get((i + y, j + x), s))
             for d, (y, x) in enumerate(ways)]
    return [(p, new, reward if new in goals else step_reward) for p, new in found]

  mdp = build(len(free), 4, moves, start=starts / starts.sum(), terminal=goals)
  return env_lib.tabular(mdp, horizon=horizon)
