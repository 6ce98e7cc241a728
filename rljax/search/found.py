"""What a search gives: the answer it would stop with, after so many tokens."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from rljax import types
from rljax.rollouts import dialogue

# (tasks, texts said so far) -> one number per text: how good each is, in [0, 1] where it says so.
Value = Callable[[Sequence[types.Task], Sequence[str]], Sequence[float]]


@dataclasses.dataclass(frozen=True)
class Found:
  """tokens: generated for the task so far, all tries and roll-outs included. text: its answer.
  accepted: the search ended with it, sure enough."""

  tokens: int
  text: str
  accepted: bool = False


def at(found: Sequence[Found], budget: int) -> str | None:
  """The answer after at most `budget` tokens; None before the first."""
  f = last(found, budget)
  return f and f.text


def last(found: Sequence[Found], budget: int) -> Found | None:
  """What the search said last, of what cost at most `budget` tokens; None before the first."""
  return next((f for f in reversed(found) if f.tokens <= budget), None)


def confidence(d: dialogue.Dialogue) -> float:
  """The mean probability of its tokens, exp(mean log p); 0 for none."""
  logp = [t.logp for t in d.turns if t.role == "assistant" and t.logp is not None and len(t.logp)]
  return float(np.exp(np.mean(np.concatenate(logp)))) if logp else 0.0
