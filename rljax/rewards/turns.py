"""Attempts that are judged and paid one by one (`rljax.rollouts.revise`)."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rljax.data import pairs
from rljax.types import Episode


def alone(episode: Episode, number: int) -> Episode | None:
  """The prompt and the policy's turn of this number, as an episode; None where there is none."""
  said = [t for t in episode.turns if t.role == "assistant"]
  if not -len(said) <= number < len(said):
    return None
  return dataclasses.replace(episode, turns=(episode.turns[0], said[number]))


def attempt(episodes: Sequence[Episode], ctx, *, grade: Callable, number: int = 0) -> np.ndarray:
  """What `grade` says of one attempt, float [B]; 0 where it was not made.

  Args:
    grade: leaf of a reward, such as `rewards.verify:task_verifier`.
    number: of the attempt, from 0; -1 is the last one.
  """
  found = [(i, e) for i, e in enumerate(alone(e, number) for e in episodes) if e is not None]
  out = np.zeros(len(episodes))
  if found:
    out[[i for i, _ in found]] = grade([e for _, e in found], ctx)
  return out


def paid(episodes: Sequence[Episode], *, first: float = 1.0, later: float = 1.0,
         bonus: float = 0.0, kl: tuple[float, float] = (1.0, 1.0),
         scores: tuple[str, str] = ("first", "last")) -> list[Episode]:
  """Pays two attempts, each for itself: SCoRe, https://arxiv.org/abs/2409.12917, section 4.

  The first gets first * r1 + later * r2, the second r2 + bonus (r2 - r1): what the second attempt
  wins over the first is never paid to the first, which would learn to be wrong. Stage I is
  `first=0, later=0` with a large weight of the first attempt's KL; stage II `bonus=10`.

  Args:
    later: share of the second attempt's own reward that the first is paid, too.
    bonus: alpha.
    kl: column `kl_weight_BT`, what the KL's coefficient is multiplied by in each attempt.
    scores: names of r1 and r2 among the scores. NaN: the episode cannot be paid, its reward is NaN.
  """
  out = []
  for e in episodes:
    r1, r2 = (float(e.scores[name]) for name in scores)
    rewards = iter((first * r1 + later * r2, r2 + bonus * (r2 - r1)))
    turns = tuple(dataclasses.replace(t, reward=t.reward + next(rewards, 0.0))
                  if t.role == "assistant" else t for t in e.turns)
    if np.isnan(r1 + r2):
      turns, e = e.turns, dataclasses.replace(e, scores={**e.scores, "reward": float("nan")})
    out.append(pairs.with_turn_columns(dataclasses.replace(e, turns=turns), kl_weight_BT=kl))
  return out


def corrected(episodes: Sequence[Episode], *, scores: tuple[str, str] = ("first", "last")
              ) -> list[Episode]:
  """Those whose first attempt is wrong and whose second is right: what STaR imitates."""
  return [e for e in episodes if e.scores[scores[0]] < 0.5 <= e.scores[scores[1]]]
