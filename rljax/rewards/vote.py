"""Majority votes as labels: of the own group, or of another view of the same problem.

Two tasks are views of one problem when they share `Task.info["pair"]` and differ in
`Task.info["view"]` (`rljax.data.planted.two_views`). Advantages stay per group, hence per view.
"""

import collections
from collections.abc import Callable, Sequence

import numpy as np

from rljax import config, types
from rljax.types import Episode


@types.whole
def agreement(episodes: Sequence[Episode], ctx, *, of: str = "own",
              answer: Callable | None = None) -> np.ndarray:
  """1 where a response's answer is the majority's, else 0.

  `of="own"`: r_i = 1[ans(y_i) = vote(group)] (TTRL, https://arxiv.org/abs/2504.16084).
  `of="other"`: the vote is that of the other view, Co-Reward, https://arxiv.org/abs/2508.00410
  equation 4. Empty answers do not vote and score 0; of equally frequent answers the first seen
  wins; a group without any answer gives no label, and reward 0 to all.

  Args:
    episodes: whole groups; with "other" both views of every problem.
    answer: text -> answer, or None or "" where there is none; default the stripped text.

  Returns:
    float32 [B].

  Raises:
    ConfigError: an unknown `of`, or a problem with one view only.
  """
  del ctx
  answers, labels = _labels(episodes, of, answer)
  return np.array([float(bool(a) and a == l) for a, l in zip(answers, labels)], np.float32)


@types.whole
def vote_accuracy(episodes: Sequence[Episode], ctx, *, of: str = "own",
                  answer: Callable | None = None) -> np.ndarray:
  """1 where the label of `agreement` is the task's answer: a diagnostic, with weight 0.

  Returns:
    float32 [B].
  """
  del ctx
  _, labels = _labels(episodes, of, answer)
  return np.array([float(l == str(e.task.answer)) for e, l in zip(episodes, labels)], np.float32)


@types.whole
def common_answer(episodes: Sequence[Episode], ctx, *,
                  answer: Callable | None = None) -> np.ndarray:
  """1 for the responses with the most frequent answer of the whole batch: its mean shows collapse.

  A diagnostic, with weight 0.

  Returns:
    float32 [B].
  """
  del ctx
  answers = _answers(episodes, answer)
  top = collections.Counter(answers).most_common(1)[0][0]
  return np.array([float(a == top) for a in answers], np.float32)


def _answers(episodes, answer):
  read = answer or (lambda text: text.strip())
  return [read(e.response) or "" for e in episodes]


def _labels(episodes, of, answer) -> tuple[list[str], list[str | None]]:
  """The answer of each response, and the label it is compared with."""
  if of not in ("own", "other"):
    raise config.ConfigError(f"agreement: of must be 'own' or 'other', found {of!r}")
  answers = _answers(episodes, answer)
  counts: dict[int, collections.Counter] = {}
  views: dict[object, dict[object, int]] = {}  # pair -> view -> group
  for e, a in zip(episodes, answers):
    count = counts.setdefault(e.group, collections.Counter())
    if a:
      count[a] += 1
    if of == "other":
      views.setdefault(e.task.info.get("pair"), {})[e.task.info.get("view")] = e.group
  votes = {g: c.most_common(1)[0][0] if c else None for g, c in counts.items()}
  if of == "own":
    return answers, [votes[e.group] for e in episodes]
  source = {}
  for pair, by_view in views.items():
    if len(by_view) != 2 or pair is None:
      raise config.ConfigError(
          f"agreement of='other': problem {pair!r} has {len(by_view)} views in the batch, not 2 "
          "(adjacent tasks, an ordered curriculum and an even number of prompts give both)")
    (_, first), (_, second) = by_view.items()
    source[first], source[second] = second, first
  return answers, [votes[source[e.group]] for e in episodes]
