"""How far self-play is from an equilibrium, where a game is small enough to walk through."""

import math

import numpy as np

from rljax import config
from rljax.data import memory
from rljax.envs import game_tree, games


def contexts(game: games.Game) -> dict[str, tuple[str, list[str]]]:
  """Information set -> (all that its seat has read and said so far in `rollouts.versus`, actions).

  The sets are named by their observations. Games with perfect recall have one text for each.
  """
  out: dict[str, tuple[str, list[str]]] = {}

  def walk(state, texts):
    legal = game.legal(state)
    if not legal:
      return
    seat, seen = game.seat(state), game.observe(state)
    here = texts[seat] + seen
    if out.setdefault(seen, (here, legal))[0] != here:
      raise ValueError(f"the information set {seen!r} is reached by {out[seen][0]!r} and {here!r}")
    for action in legal:
      walk(game.apply(state, action), {**texts, seat: here + action})
  for _, state in game.starts():
    walk(state, {0: "", 1: ""})
  return out


def averaged(*, name: str, role: str = "policy", start: int = 0, every: int = 1) -> memory.Memory:
  """A memory: a role's action probabilities, averaged over steps, and what they are worth.

  Self-play with gradients may cycle around the equilibrium that its average comes near. Metrics:
  `nash_conv`, what both seats could gain by best responses to the average; `last_nash_conv`, to
  this step's policy alone; `chips`, what the average wins of a uniform player, mean of both seats;
  `illegal`, this step's probability of anything but a legal action. Every action must be one token.

  Args:
    name: one of `games.GAMES`, read through `games.play` without a prompt.
    start: where the average begins; before it, it is this step's policy.
    every: steps between two looks.

  Raises:
    ConfigError: no such game; (at a step) an action of several tokens.
  """
  if name not in games.GAMES:
    raise config.ConfigError(f"there is no game {name!r} (there is: {', '.join(games.GAMES)})")
  game = games.GAMES[name]()
  sets = contexts(game)

  def look(ctx):
    table = [(text, action) for text, legal in sets.values() for action in legal]
    tokens = [ctx.tokenizer.encode(action) for _, action in table]
    if any(len(t) != 1 for t in tokens):
      raise config.ConfigError(f"equilibrium: actions of {name} must be single tokens")
    empty = ctx.tokenizer.render("")
    found = ctx.score(role, [np.concatenate([empty, ctx.tokenizer.encode(text)])
                             for text, _ in table], tokens)
    chances = iter(math.exp(float(logp.sum())) for logp, _ in found)
    raw = {seen: [next(chances) for _ in legal] for seen, (_, legal) in sets.items()}
    outside = float(np.mean([1.0 - sum(p) for p in raw.values()]))
    return {seen: (np.array(p) / sum(p)).tolist() for seen, p in raw.items()}, outside

  def update(state, episodes, ctx):
    if ctx.step % every and state:
      return state, episodes
    last, outside = look(ctx)
    n = state["n"] + 1 if state and ctx.step > start else 1
    mean = last if n == 1 else {
        seen: (np.array(old) + (np.array(last[seen]) - old) / n).tolist()
        for seen, old in state["mean"].items()}
    return {"n": n, "mean": mean, "last": last, "outside": outside}, episodes

  def metrics(state):
    mean, last = (lambda seen, legal, p=state[k]: p[seen] for k in ("mean", "last"))
    chips = (game_tree.values(game, (mean, game_tree.uniform))[0]
             + game_tree.values(game, (game_tree.uniform, mean))[1]) / 2
    return {"nash_conv": game_tree.nash_conv(game, (mean, mean)), "chips": chips,
            "last_nash_conv": game_tree.nash_conv(game, (last, last)),
            "illegal": state["outside"]}

  return memory.Memory(dict, update, metrics)
