"""Rewards of those who set problems, by how others solve them (`rollouts.propose_solve`)."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax import config, types
from rljax.types import Episode


def learnability(rate: float) -> float:
  """0 if nobody solves it, else 1 - rate: 0 again if all do. https://arxiv.org/abs/2505.03335."""
  return 0.0 if rate == 0 else 1.0 - rate


def rates(episodes: Sequence[Episode], solved: Sequence[float]) -> dict[int, float]:
  """By the number of a proposal, the mean of `solved` over the answers to it; NaN counts as 0."""
  found: dict[int, list[float]] = {}
  for e, x in zip(episodes, solved, strict=True):
    if is_estimate(e):
      found.setdefault(e.info["proposal"], []).append(0.0 if np.isnan(x) else float(x))
  return {number: float(np.mean(x)) for number, x in found.items()}


def is_proposal(e: Episode) -> bool:
  return "valid" in e.info


def is_estimate(e: Episode) -> bool:
  """Whether it is an answer to a proposal of the same step."""
  return "proposal" in e.info and not is_proposal(e)


@types.whole  # a proposal and its answers are in different groups
def outcome(episodes: Sequence[Episode], ctx, *, solved: Callable, form: str = "learnable"
            ) -> np.ndarray:
  """Of an answer what `solved` says; of a proposal what it is worth as a problem; float [B].

  Args:
    solved: leaf of a reward in [0, 1], asked for answers only.
    form: "learnable", `learnability` of the mean over its answers; "valid", 1 for any problem. A
      proposal that is no problem has 0.

  Raises:
    ConfigError: an unknown form.
  """
  if form not in ("learnable", "valid"):
    raise config.ConfigError(f"propose:outcome: form={form!r}; learnable or valid")
  out = np.zeros(len(episodes))
  answers = [i for i, e in enumerate(episodes) if not is_proposal(e)]
  if answers:
    out[answers] = solved([episodes[i] for i in answers], ctx)
  rate = rates(episodes, out)
  for i, e in enumerate(episodes):
    if is_proposal(e) and e.info["proposal"] in rate:
      out[i] = 1.0 if form == "valid" else learnability(rate[e.info["proposal"]])
  return out


def formatted(episodes: Sequence[Episode], ctx, *, form: Callable) -> np.ndarray:
  """1 for a proposal that became a problem, and an answer of which `form(task, text)` holds."""
  del ctx
  return np.array([float(e.info["valid"] if is_proposal(e) else form(e.task, e.response))
                   for e in episodes])


def without_estimates(episodes: Sequence[Episode]) -> list[Episode]:
  """A select: drops the answers that only tell what a proposal is worth."""
  return [e for e in episodes if not is_estimate(e)]
