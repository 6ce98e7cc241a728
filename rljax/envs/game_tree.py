"""Exact values of small games for two: expected results, best responses, NashConv.

A policy is a function `(observation, legal actions) -> probabilities`, in the order of the actions.
"""

from collections.abc import Callable, Sequence

from rljax.envs import games

Policy = Callable[[str, Sequence[str]], Sequence[float]]


def uniform(observation: str, legal: Sequence[str]) -> list[float]:
  """Every legal action alike."""
  del observation
  return [1 / len(legal)] * len(legal)


def outcomes(game: games.Game, policies: tuple[Policy, Policy]) -> dict[tuple, float]:
  """Probability of each pair of returns when the seats follow these policies."""
  known: dict = {}

  def walk(state):
    if state in known:
      return known[state]
    legal, out = game.legal(state), {}
    if not legal:
      out = {game.returns(state): 1.0}
    else:
      for action, p in zip(legal, policies[game.seat(state)](game.observe(state), legal)):
        for result, q in walk(game.apply(state, action)).items() if p else ():
          out[result] = out.get(result, 0.0) + p * q
    known[state] = out
    return out

  total: dict[tuple, float] = {}
  for p, state in game.starts():
    for result, q in walk(state).items():
      total[result] = total.get(result, 0.0) + p * q
  return total


def values(game: games.Game, policies: tuple[Policy, Policy]) -> tuple[float, float]:
  """Expected return of each seat."""
  results = outcomes(game, policies).items()
  return tuple(sum(p * returns[seat] for returns, p in results) for seat in (0, 1))


def best_response(game: games.Game, seat: int, other: Policy) -> float:
  """The most that `seat` can expect against this policy, knowing it.

  It maximises once per information set, over all states that it cannot tell apart; observations
  must therefore tell all that the seat has ever seen (perfect recall).
  """
  def value(weighted):
    total, sets = 0.0, {}
    while weighted:
      weight, state = weighted.pop()
      legal = game.legal(state)
      if not legal:
        total += weight * game.returns(state)[seat]
      elif game.seat(state) == seat:
        sets.setdefault(game.observe(state), []).append((weight, state))
      else:
        chances = other(game.observe(state), legal)
        weighted += [(weight * p, game.apply(state, a)) for a, p in zip(legal, chances) if p]
    for states in sets.values():
      total += max(value([(w, game.apply(s, a)) for w, s in states])
                   for a in game.legal(states[0][1]))
    return total

  return value(list(game.starts()))


def nash_conv(game: games.Game, policies: tuple[Policy, Policy]) -> float:
  """What both seats together could gain by a best response; 0 at an equilibrium, never below."""
  now = values(game, policies)
  return sum(best_response(game, seat, policies[1 - seat]) - now[seat] for seat in (0, 1))
