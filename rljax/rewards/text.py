"""Rewards that read only the text of the response."""

import functools
import re
from collections.abc import Sequence

import numpy as np

from rljax import config
from rljax.types import Episode


def format_match(episodes: Sequence[Episode], ctx, *, pattern: str) -> np.ndarray:
  """1 where the whole response matches the regular expression, else 0; "." matches newlines too.

  Python's engine backtracks: nested repeats such as "(a+)+" can take exponential time.

  Returns:
    float32 [B].

  Raises:
    ConfigError: `pattern` is not a regular expression.
  """
  del ctx  # needs no model
  compiled = _compile(pattern)
  return np.array([compiled.fullmatch(e.response) is not None for e in episodes], np.float32)


@functools.cache
def _compile(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern, re.DOTALL)
  except re.error as e:
    raise config.ConfigError(
        f"format_match: {pattern!r} is not a regular expression: {e}") from None
