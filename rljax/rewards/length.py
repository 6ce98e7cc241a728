"""Rewards that depend on how long the policy's answer is, in its own tokens.

L counts the tokens the policy produced over all turns, end tokens included; C is 1 where the reward
`correct` is at least 0.5. Group statistics are over `Episode.group`. Each function says what it
does with wrong answers: paying for short wrong ones collapses the length.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rljax import config, types
from rljax.rewards import shaping, verify


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


def _read(episodes, ctx, correct):
  """(L, C, NaN where C is unknown), float64 [B]."""
  right = np.asarray(correct(episodes, ctx), np.float64)
  length = np.array([e.num_actions for e in episodes], np.float64)
  return length, (right >= 0.5).astype(np.float64), np.where(np.isnan(right), np.nan, 0.0)


def linear(episodes: Sequence[types.Episode], ctx: Any = None, *, per_token: float,
           start: int = 0) -> np.ndarray:
  """-per_token max(L - start, 0), right or wrong: PAR's 0.01 per token beyond 300."""
  return np.array([0.0 - per_token * max(e.num_actions - start, 0) for e in episodes], np.float64)


def cosine(episodes: Sequence[types.Episode], ctx: Any = None, *, max_tokens: int,
           correct: Callable = verify.task_verifier, right: tuple = (1.0, 0.5),
           wrong: tuple = (-1.0, -0.5), exceeded: float = -1.0) -> np.ndarray:
  """r = b + (a - b) (1 + cos(pi L / max_tokens)) / 2, https://arxiv.org/abs/2502.03373.

  Args:
    max_tokens: the limit; at or beyond it the reward is `exceeded`.
    correct: what decides which pair holds. right, wrong: (a at L = 0, b at L = max_tokens) of
      right and of wrong answers. The defaults prefer short right and long wrong ones.
    exceeded: reward of an answer that the limit cut.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  a, b = (np.where(C == 1, right[i], wrong[i]) for i in (0, 1))
  r = b + (a - b) * 0.5 * (1 + np.cos(np.pi * np.minimum(L / max_tokens, 1)))
  return np.where(L >= max_tokens, exceeded, r) + unknown


def relative(episodes: Sequence[types.Episode], ctx: Any = None, *,
             correct: Callable = verify.task_verifier) -> np.ndarray:
  """lambda = 0.5 - (L - min) / (max - min) of the group: lambda if C, else min(0, lambda).

  Kimi k1.5, https://arxiv.org/abs/2501.12599. 0 where all lengths are equal.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  out = np.zeros(len(L))
  for rows in shaping.groups(episodes).values():
    low, width = L[rows].min(), np.ptp(L[rows])
    if width:
      out[rows] = 0.5 - (L[rows] - low) / width
  return np.where(C == 1, out, np.minimum(out, 0)) + unknown


def standardised(episodes: Sequence[types.Episode], ctx: Any = None, *,
                 correct: Callable = verify.task_verifier) -> np.ndarray:
  """-2 (sigmoid((L - m) / (s + 1e-5)) - 0.5) on right answers, m and s over the group's right ones.

  Efficient reasoner, https://arxiv.org/abs/2502.04463, as the self-aligned-reward code centres it.
  0 for wrong answers, and where at most one of the group is right.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  out = np.zeros(len(L))
  for rows in map(np.asarray, shaping.groups(episodes).values()):
    rows = rows[C[rows] == 1]
    if len(rows) > 1:
      z = (L[rows] - L[rows].mean()) / (L[rows].std() + 1e-5)
      out[rows] = -np.tanh(z / 2)
  return out + unknown


def pruner(episodes: Sequence[types.Episode], ctx: Any = None) -> np.ndarray:
  """-clip((L - group mean) / L, -1, 1), right or wrong: O1-pruner's term in the same code."""
  L = np.maximum([e.num_actions for e in episodes], 1).astype(np.float64)
  out = np.zeros(len(L))
  for rows in shaping.groups(episodes).values():
    out[rows] = np.clip((L[rows].mean() - L[rows]) / L[rows], -1, 1)
  return out


def target(episodes: Sequence[types.Episode], ctx: Any = None, *, exact: bool = False,
           alpha: float = 3e-4, delta: float = 0.5, correct: Callable = verify.task_verifier
           ) -> np.ndarray:
  """`exact`: C - alpha |n - L|, else C clip(alpha (n - L) + delta, 0, 1).

  n is the length that the prompt asks for, `task.info["target_tokens"]`.
  L1-exact and L1-max, https://arxiv.org/abs/2503.04697.

  Raises:
    ConfigError: a task without a target.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  wanted = [e.task.info.get("target_tokens") for e in episodes]
  if None in wanted:
    raise config.ConfigError("length.target: a task has no info['target_tokens']")
  over = np.asarray(wanted, np.float64) - L
  r = C - alpha * np.abs(over) if exact else C * np.clip(alpha * over + delta, 0, 1)
  return r + unknown


def by_solve_rate(episodes: Sequence[types.Episode], ctx: Any = None, *, beta: float,
                  correct: Callable = verify.task_verifier) -> np.ndarray:
  """-beta L max(p, 1/G), p the share of the group that is right: easy questions pay most.

  ALP, https://arxiv.org/abs/2506.05256. To be added to C.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  out = np.zeros(len(L))
  for rows in shaping.groups(episodes).values():
    out[rows] = 0.0 - beta * L[rows] * max(C[rows].mean(), 1 / len(rows))
  return out + unknown


def within(episodes: Sequence[types.Episode], ctx: Any = None, *, tokens: int,
           correct: Callable = verify.task_verifier) -> np.ndarray:
  """1 if right and L <= tokens, else 0: LASER's bonus, https://arxiv.org/abs/2505.15612."""
  L, C, unknown = _read(episodes, ctx, correct)
  return C * (L <= tokens) + unknown


def shortest_right(episodes: Sequence[types.Episode], ctx: Any = None, *,
                   correct: Callable = verify.task_verifier) -> np.ndarray:
  """-|L - S|, S the group's shortest right answer, its mean length where none is right.

  ShorterBetter, https://arxiv.org/abs/2504.21370. To be weighted, and added to C.
  """
  L, C, unknown = _read(episodes, ctx, correct)
  out = np.zeros(len(L))
  for rows in map(np.asarray, shaping.groups(episodes).values()):
    right = L[rows][C[rows] == 1]
    out[rows] = -np.abs(L[rows] - (right.min() if len(right) else L[rows].mean()))
  return out + unknown
