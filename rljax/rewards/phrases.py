"""Rewards for how a response sounds: key phrases of reasoning, whatever the answer is."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax.types import Episode

WINDOW = 20  # words; repeated windows of this length are what the penalty counts


def reasoning_patterns(episodes: Sequence[Episode], ctx, *, phrases: Sequence[str],
                       full: int = 40, repetition: bool = True, marker: str = "") -> np.ndarray:
  """RPR: r = min(1, distinct phrases present / full) - share of repeated 20-grams, at least 0.

  https://arxiv.org/abs/2505.22653 section 5 (40 phrases, full = 40; the released code has full =
  20). Presence counts, not frequency, and case does not matter. Correctness is not used.

  Args:
    episodes: their responses.
    phrases: what to look for.
    full: number of phrases that earns 1.
    repetition: subtract the share of windows of 20 words that occurred before (0 below 20 words).
    marker: responses without this text (the mark of an answer) score 0; "" asks for none.

  Returns:
    float32 [B].
  """
  del ctx
  return np.array([_patterns(e.response, phrases, full, repetition, marker) for e in episodes],
                  np.float32)


def _patterns(text, phrases, full, repetition, marker):
  if marker not in text:
    return 0.0
  lower = text.lower()
  score = min(1.0, sum(p.lower() in lower for p in phrases) / full)
  return max(0.0, score - (repeated_share(text.split()) if repetition else 0.0))


def repeated_share(words: Sequence[str], window: int = WINDOW) -> float:
  """Share of the windows of `window` words that are copies of an earlier one; 0 if too short."""
  grams = [tuple(words[i:i + window]) for i in range(len(words) - window + 1)]
  return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def calibrated(episodes: Sequence[Episode], ctx, *, reward: Callable, patterns: Callable,
               threshold: float = 0.5, weight: float = 0.1) -> np.ndarray:
  """A reward model's score, raised where it is low: min(1, s + weight r_RPR) below it.

  https://arxiv.org/abs/2505.22653 section 6. Scores of `threshold` and above stay as they are.

  Args:
    episodes: what both rewards score.
    reward: the noisy score in [0, 1]. patterns: `reasoning_patterns`, say.

  Returns:
    float32 [B].
  """
  score = np.asarray(reward(episodes, ctx), np.float32)
  raised = np.minimum(1.0, score + weight * np.asarray(patterns(episodes, ctx), np.float32))
  return np.where(score < threshold, raised, score)
