"""How good a reward model is on given responses: accuracy, best of N, calibration, by category."""

import collections
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import types
from rljax.types import Episode


def credit(chosen: Sequence[float], rejected: Sequence[float]) -> float:
  """Best of N: the share of chosen responses among those with the highest score.

  RewardBench 2, https://arxiv.org/abs/2506.01937: with one chosen of four, a tie of two at the top
  earns 1/2 and four equal scores 1/4, which is chance.
  """
  top = max(*chosen, *rejected)
  right = sum(s == top for s in chosen)
  return right / (right + sum(s == top for s in rejected))


def pairwise(chosen: Sequence[float], rejected: Sequence[float]) -> float:
  """Share of (chosen, rejected) pairs in the right order; a tie counts one half."""
  gap = np.asarray(chosen, float)[:, None] - np.asarray(rejected, float)[None, :]
  return float(np.mean(0.5 * (1.0 + np.sign(gap))))


def measure(episodes: Sequence[Episode], problems: int, ctx, *, score: str = "score",
            bins: int = 5) -> dict[str, float]:
  """What a reward model's scores of given responses say (`rollouts.dataset:responses`).

  `accuracy` and `best_of_n` are means over prompts (they are the same for pairs). Calibration is
  that of Bradley-Terry, p = sigmoid(chosen - rejected), over all pairs: `brier` (1 - p)^2,
  `log_loss` -log p, and `calibration_error`, the mean distance between confidence max(p, 1 - p) and
  accuracy in `bins` equal bins of confidence, weighted by their pairs. Tables are named
  `by_category/<category>/<column>` and `by_confidence/<bin>/<column>`. Prompts whose
  `info["id"]` is "ref:<n>" or "tied:<n>" (RewardBench 2's Ties) also give `ties/<part>`.

  Args:
    episodes: scored; `info["source"]` says "chosen" or "rejected"; the group is the prompt.
    problems: number of prompts asked for.
    score: name of the score; a prompt with a response that has none or failed is left out and
      counted.
    bins: of confidence, between 1/2 and 1.
  """
  del ctx
  groups: dict[int, list[Episode]] = {}
  for e in episodes:
    groups.setdefault(e.group, []).append(e)
  accuracies, credits, gaps, categories = [], [], [], collections.defaultdict(list)
  tied: dict[str, dict[str, list]] = {}
  for group in groups.values():
    sides = [[e.scores[score] for e in group if e.info["source"] == side]
             for side in ("chosen", "rejected")]
    failed = any(e.status == types.ERROR for e in group)
    if failed or not np.isfinite([s for side in sides for s in side]).all():
      continue
    accuracies.append(pairwise(*sides))
    credits.append(credit(*sides))
    gaps += [c - r for c in sides[0] for r in sides[1]]
    kind, _, number = str(group[0].task.info.get("id", "")).partition(":")
    if kind in ("ref", "tied") and number:
      tied.setdefault(number, {})[kind] = sides
    if "category" in group[0].task.info:
      name = group[0].task.info["category"].replace("/", "_")
      categories[name].append((accuracies[-1], credits[-1]))
  out = {"prompts": float(len(accuracies)), "unscored": float(problems - len(accuracies))}
  if not accuracies:
    return out
  out |= {"accuracy": float(np.mean(accuracies)), "best_of_n": float(np.mean(credits)),
          **calibration(np.asarray(gaps), bins)}
  for name, found in sorted(categories.items()):
    accuracy, best = np.mean(found, axis=0)
    out |= {f"by_category/{name}/accuracy": float(accuracy),
            f"by_category/{name}/best_of_n": float(best),
            f"by_category/{name}/prompts": float(len(found))}
  if tied:
    out |= {f"ties/{name}": number for name, number in ties(tied).items()}
  if categories:
    out["category_mean"] = float(np.mean([np.mean(f, axis=0)[1] for f in categories.values()]))
  return out


def ties(found: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> dict[str, float]:
  """RewardBench 2's score for prompts with several equally right answers.

  https://arxiv.org/abs/2506.01937. A question comes twice: with one right answer ("ref") and with
  several ("tied"). A prompt counts as accurate if its worst right answer is above its best wrong
  one, by `gap` > 0; `spread` is best right - worst right. `score` = 0.3 tied_accuracy + 0.3
  ref_accuracy + 0.2 preferred + 0.2 preferred_hard + 0.01 margin, with preferred the share of
  questions whose tied gap exceeds the spread, preferred_hard the same with the smaller gap of both
  forms, and margin the mean of tanh(that gap / spread - 1). At most 1.01; without a question in
  both forms the last three are 0. Where all right answers score the same, margin counts 1, 0 or -1
  as the gap is above, at or below 0.

  Args:
    found: question -> form -> (scores of right answers, scores of wrong ones).
  """
  gap = lambda sides: min(sides[0]) - max(sides[1])
  accuracy = {form: float(np.mean([gap(q[form]) > 0 for q in found.values() if form in q] or [0.0]))
              for form in ("ref", "tied")}
  both = [q for q in found.values() if "ref" in q and "tied" in q]
  spread = np.array([max(q["tied"][0]) - min(q["tied"][0]) for q in both])
  plain = np.array([gap(q["tied"]) for q in both])
  hard = np.minimum(plain, [gap(q["ref"]) for q in both]) if both else plain
  ratio = np.where(hard > 0, np.inf, np.where(hard < 0, -np.inf, 1.0))  # of a spread of 0
  margin = np.tanh(np.divide(hard, spread, out=ratio, where=spread > 0) - 1.0)
  mean = lambda x: float(np.mean(x)) if both else 0.0
  out = {"ref_accuracy": accuracy["ref"], "tied_accuracy": accuracy["tied"],
         "preferred": mean(plain > spread), "preferred_hard": mean(hard > spread),
         "margin": mean(margin)}
  weights = (0.3, 0.3, 0.2, 0.2, 0.01)
  return {"score": float(np.dot(weights, list(out.values()))), **out}


def calibration(gaps: np.ndarray, bins: int) -> dict[str, float]:
  """Of P(chosen better) = sigmoid(gap), for score differences chosen - rejected, float [n]."""
  p = 0.5 * (1.0 + np.tanh(0.5 * gaps))
  confidence, right = np.maximum(p, 1.0 - p), 0.5 * (1.0 + np.sign(gaps))
  place = np.minimum(((confidence - 0.5) * 2.0 * bins).astype(int), bins - 1)
  out = {"brier": float(np.mean((1.0 - p) ** 2)),
         "log_loss": float(np.mean(np.logaddexp(0.0, -gaps)))}
  error, tables = 0.0, {}
  for b in range(bins):
    inside = place == b
    if inside.any():
      said, true = float(confidence[inside].mean()), float(right[inside].mean())
      error += inside.mean() * abs(said - true)
      low, high = 0.5 + 0.5 * b / bins, 0.5 + 0.5 * (b + 1) / bins
      name = f"by_confidence/{low:.2f}-{high:.2f}"
      tables |= {f"{name}/accuracy": true, f"{name}/confidence": said,
                 f"{name}/pairs": float(inside.sum())}
  return {**out, "calibration_error": float(error), **tables}
