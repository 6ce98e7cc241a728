"""Rewards that are wrong on purpose: random, inverted, flipped per question, a wrong majority's.

They wrap a correct reward (a leaf) or replace it. Randomness comes from (seed, step, task, sample),
so a resumed run draws the same, and nothing is drawn again inside the epochs of an update.
Evaluations have a verifier of their own and are never corrupted.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng
from rljax.rewards import verify
from rljax.types import Episode


def random_reward(episodes: Sequence[Episode], ctx, *, rate: float = 0.5) -> np.ndarray:
  """1 with probability `rate`, whatever the response says; drawn per response.

  https://arxiv.org/abs/2507.10532 section 4 (two trials with rate 0.5).

  Returns:
    float32 [B].
  """
  seen: collections.Counter = collections.Counter()
  out = np.zeros(len(episodes), np.float32)
  for b, e in enumerate(episodes):
    n = seen[e.task.id]
    seen[e.task.id] += 1
    out[b] = rng.host(ctx.seed, "random reward", ctx.step, e.task.id, n).random() < rate
  return out


def inverted(episodes: Sequence[Episode], ctx, *, reward: Callable = verify.task_verifier
             ) -> np.ndarray:
  """1 - reward, for a reward in [0, 1]. https://arxiv.org/abs/2507.10532 section 4.

  Returns:
    float32 [B].
  """
  return 1.0 - reward(episodes, ctx)


def flipped(episodes: Sequence[Episode], ctx, *, rate: float,
            reward: Callable = verify.task_verifier, answer: Callable | None = None) -> np.ndarray:
  """1 - reward for all responses of a question with probability `rate`, drawn once per question.

  Question-wise flips of https://arxiv.org/abs/2505.22653: the expected group-normalised policy
  gradient is (1 - 2 rate) times the clean one. A draw per response would only make rewards sparser.

  Args:
    episodes: responses of one `group` share the draw.
    rate: flip probability of a question in a step.
    reward: a reward of 0 or 1.
    answer: text -> answer, or None where there is none; responses without an answer (also those cut
      by the length limit) score 0 and are never flipped. None judges by the length limit alone.

  Returns:
    float32 [B].
  """
  values = np.asarray(reward(episodes, ctx), np.float32)
  for b, e in enumerate(episodes):
    if e.status != "stop" or (answer is not None and answer(e.response) is None):
      values[b] = 0.0
    elif rng.host(ctx.seed, "flip", ctx.step, e.task.id).random() < rate:
      values[b] = 1.0 - values[b]
  return values


def wrong_vote(episodes: Sequence[Episode], ctx, *, reward: Callable = verify.task_verifier
               ) -> np.ndarray:
  """1 for the responses that equal their group's most frequent one where that one is wrong, else 0.

  "mv-incorrect" of https://arxiv.org/abs/2507.10532: the label is the majority's, on the items
  whose vote is wrong. Texts are compared stripped; of equally frequent ones the first seen counts.

  Returns:
    float32 [B].
  """
  right = np.asarray(reward(episodes, ctx), np.float32)
  groups: dict[int, list[int]] = {}
  for b, e in enumerate(episodes):
    groups.setdefault(e.group, []).append(b)
  out = np.zeros(len(episodes), np.float32)
  for rows in groups.values():
    texts = [episodes[b].response.strip() for b in rows]
    label = collections.Counter(texts).most_common(1)[0][0]
    wrong = right[rows[texts.index(label)]] < 1
    out[rows] = [float(wrong and t == label) for t in texts]
  return out
