"""The mean score of a policy's responses, and how often they beat those of another role."""

from collections.abc import Sequence

import numpy as np

from rljax import types
from rljax.types import Episode


def measure(episodes: Sequence[Episode], problems: int, ctx, *, score: str = "correct",
            opponent: str = "") -> dict[str, float]:
  """`score`: the mean over the policy's responses; `best`: the mean of the best of each group.

  With an opponent, also `win_rate`: the probability that a response scores higher than one of the
  opponent's to the same prompt, ties one half, averaged over prompts; and `opponent`, its mean
  score. `unscored` counts responses without a finite score, which are left out.

  Args:
    episodes: scored; `info["role"]` says who wrote them, if several did (`single_turn:sides`).
    problems: how many there are; unused, a prompt that was too long has no score.
    score: name of the score.
    opponent: a role; "" = all responses are the policy's.
  """
  del ctx
  groups: dict[int, tuple[list, list]] = {}
  unscored = 0
  for e in episodes:
    value = float(e.scores.get(score, np.nan))
    if e.status == types.ERROR or not np.isfinite(value):
      unscored += 1
      continue
    theirs = bool(opponent) and e.info.get("role") == opponent
    groups.setdefault(e.group, ([], []))[int(theirs)].append(value)
  own = [a for a, _ in groups.values() if a]
  out = {"unscored": float(unscored)}
  if own:
    out |= {"score": float(np.mean(np.concatenate(own))), "best": float(np.mean([*map(max, own)]))}
  met = [(np.array(a), np.array(b)) for a, b in groups.values() if a and b]
  if met:
    wins = [np.mean(0.5 * (1.0 + np.sign(a[:, None] - b[None, :]))) for a, b in met]
    out |= {"win_rate": float(np.mean(wins)),
            "opponent": float(np.mean(np.concatenate([b for _, b in met])))}
  return out
