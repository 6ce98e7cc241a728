"""A reward model: a role with a scalar head, asked through `ctx.value`."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax import config
from rljax.rewards import run
from rljax.types import Episode


def score(episodes: Sequence[Episode], ctx: run.Context, *, role: str = "reward_model",
          template: str = "", answer_only: str = "") -> np.ndarray:
  """The scalar head's output at the last action, where `objectives.reward_model` trains it.

  That is the position from which the last token (the end token) is predicted, so this token itself
  is not read. `ctx.value(role, [int32 ids of one text, ...])` gives one number per text.

  Args:
    role: a role whose model has a scalar head.
    template: how the role reads an episode, with the fields {prompt}, {response} and {answer}, the
      task's; it is encoded by the run's tokenizer, without an end token. "" = the very tokens of
      the episode but the last.
    answer_only: with a template, {response} is what follows the last occurrence of this text; a
      response without it scores NaN ("no_answer_part").

  Returns:
    float64 [B]; NaN also where the text does not fit the role's model ("too_long").

  Raises:
    ConfigError: the run has no such role with a scalar head; `answer_only` without a template.
  """
  if ctx.value is None:
    raise config.ConfigError(f"reward model {role!r}: no role of this run has a scalar head")
  if answer_only and not template:
    raise config.ConfigError("rewards.model:score: answer_only needs a template")
  out = np.full(len(episodes), np.nan)
  texts, rows = [], []
  for i, e in enumerate(episodes):
    ids = _ids(e, ctx, template, answer_only)
    if ids is None:
      run.count(ctx, "no_answer_part")
    else:
      texts.append(ids)
      rows.append(i)
  if rows:
    values = np.asarray(ctx.value(role, texts), np.float64)
    run.count(ctx, "too_long", int(np.isnan(values).sum()))
    out[rows] = values
  return out


def agreement(episodes: Sequence[Episode], ctx, *, reward: Callable, truth: Callable,
              threshold: float = 0.5) -> np.ndarray:
  """1 where `reward` and `truth` are on the same side of the threshold, else 0: with a weight of 0,
  how right a reward model is about the samples of the policy it trains."""
  said, true = (np.asarray(r(episodes, ctx), np.float64) for r in (reward, truth))
  out = ((said >= threshold) == (true >= threshold)).astype(np.float64)
  return np.where(np.isfinite(said) & np.isfinite(true), out, np.nan)


def _ids(episode, ctx, template, answer_only):
  if not template:
    return np.concatenate([t.tokens for t in episode.turns])[:-1]
  before, mark, after = episode.response.rpartition(answer_only) if answer_only else (
      "", "x", episode.response)
  if not mark:
    return None
  return ctx.tokenizer.encode(template.format(
      prompt=episode.prompt, response=after, answer=episode.task.answer))
