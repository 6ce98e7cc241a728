"""Rewards that read only the text of the response."""

import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from rljax import config
from rljax.rewards import pool, run
from rljax.types import Episode


def format_match(episodes: Sequence[Episode], ctx, *, pattern: str, deadline: float = 2.0
                 ) -> np.ndarray:
  """1 where the whole response matches the regular expression, else 0; "." matches newlines too.

  Python's engine backtracks: nested repeats such as "(a+)+" can take exponential time on hostile
  text, and nothing can interrupt them. So responses are matched in the pool.

  Args:
    deadline: processor seconds for one response; a late one is NaN ("sample_timeout").

  Returns:
    float32 [B].

  Raises:
    ConfigError: `pattern` is not a regular expression.
  """
  _compile(pattern)
  until = math.inf if ctx is None else ctx.until
  found = pool.shared().map("rljax.rewards.text:matches", [(e.response,) for e in episodes],
                            deadline=deadline, until=until, pattern=pattern)
  late = [o.error for o in found if o.status != "ok"]
  run.count(ctx, "sample_timeout", len(late), why=f"format_match: {late[0]}" if late else "")
  return np.array([o.value if o.status == "ok" else math.nan for o in found], np.float32)


def silent(episodes: Sequence[Episode], ctx, *, words: tuple[str, ...] = ("hint",),
           key: str = "guided") -> np.ndarray:
  """0, and NaN for an episode with a true info[key] that says one of `words`, in any case.

  An answer that was written with a hint and speaks of it would teach to speak of hints that are not
  there: NaN keeps it out of the update, and faults/hint_mentioned counts it.

  Returns:
    float32 [B].
  """
  said = [bool(e.info.get(key)) and any(w.lower() in e.response.lower() for w in words)
          for e in episodes]
  run.count(ctx, "hint_mentioned", sum(said))
  return np.where(said, math.nan, 0.0).astype(np.float32)


def matches(text: str, *, pattern: str) -> bool:
  """Whether the whole text matches."""
  return _compile(pattern).fullmatch(text) is not None


@functools.cache
def _compile(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern, re.DOTALL)
  except re.error as e:
    raise config.ConfigError(
        f"format_match: {pattern!r} is not a regular expression: {e}") from None
