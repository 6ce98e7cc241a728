"""Rewards that depend on how long the policy's answer is, in its own tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rljax import types


def soft_overlong(episodes: Sequence[types.Episode], ctx: Any = None, *, max_tokens: int,
                  buffer: int, factor: float = 1.0) -> np.ndarray:
  """r = -factor clip((L - (max_tokens - buffer)) / buffer, 0, 1), L = tokens the policy produced.

  DAPO's soft overlong punishment, https://arxiv.org/abs/2503.14476 equation 13: 0 up to
  max_tokens - buffer, then linear down to -factor at max_tokens. To be added to the task's reward.
  TRL's `get_soft_overlong_punishment` is this with factor 1; verl's goes on beyond the limit.

  Args:
    episodes: L counts their assistant tokens, end tokens included, over all turns.
    ctx: unused.
    max_tokens: the limit on L.
    buffer: width of the linear part, in tokens.
    factor: the largest penalty.

  Raises:
    ValueError: not 0 < buffer <= max_tokens.
  """
  if not 0 < buffer <= max_tokens:
    raise ValueError(f"soft_overlong needs 0 < buffer <= max_tokens, not {buffer} and {max_tokens}")
  length = np.array([e.num_actions for e in episodes], np.float64)
  over = np.clip((length - (max_tokens - buffer)) / buffer, 0.0, 1.0)
  return (0.0 - factor * over).astype(np.float32)
