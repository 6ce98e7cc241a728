"""Pairs for a reward model, made from the policy's own samples: one that a rule accepts, and one
that is wrong. Leaves for `updates.<name>.derive`: (episodes, ctx) -> episodes."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng, types
from rljax.rewards import run
from rljax.types import Episode

_NUMBER = re.compile(r"\d+")


def near_miss(text: str, draws: np.random.Generator) -> str:
  """The text with another last number, and another earlier one if it has one; all else stays.

  Length and style stay too: a number keeps its count of digits, its sign and its decimal places. A
  text without a number comes back as it is.

  Args:
    draws: decides which earlier number changes, and to what.
  """
  found = [m for m in _NUMBER.finditer(text) if text[m.start() - 1:m.start()] != "."]
  if not found:
    return text
  changed = [found[-1]]
  if len(found) > 1:
    changed.insert(0, found[draws.integers(len(found) - 1)])
  for m in reversed(changed):
    text = text[:m.start()] + _other(m[0], draws) + text[m.end():]
  return text


def _other(number: str, draws, reach: int = 5) -> str:
  """A number of as many digits, at most `reach` away (its first digit is 0 only if it is one)."""
  n, low = int(number), 10 ** (len(number) - 1) if len(number) > 1 else 0
  near = [x for x in range(max(low, n - reach), min(10 ** len(number), n + reach + 1)) if x != n]
  return str(near[draws.integers(len(near))]).zfill(len(number))


def verified_pairs(episodes: Sequence[Episode], ctx, *, rule: Callable, template: str,
                   rewrite: Callable | None = near_miss, answer: Callable | None = None,
                   tries: int = 3) -> list[Episode]:
  """Cooper: per prompt the first sample that the rule accepts, over the same sample made wrong.

  github.com/ZJU-REAL/cooper. The rewrite counts if its answer can be read and differs from the
  sample's. A prompt without a verified sample or a counted rewrite gives no pair, and is counted
  ("no_positive", "no_negative").

  Args:
    episodes: several per prompt; those that failed take no part.
    rule: reward leaf; 1 = certainly right. It should be precise, it need not find all.
    template: how the reward model reads a response, as in `rewards.model:score`; its last field is
      {response}, which ends the text.
    rewrite: leaf of `(text, generator) -> text`; None = the first sample that the rule rejects.
    answer: leaf of `(text) -> answer or None`; None = the text itself is compared.
    tries: of the rewrite.

  Returns:
    chosen, rejected, chosen, ... as the reward model reads them.
  """
  scores = np.asarray(rule(episodes, ctx), np.float64)
  groups: dict[int, list[tuple[Episode, float]]] = {}
  for e, s in zip(episodes, scores, strict=True):
    if e.status != types.ERROR and np.isfinite(s):
      groups.setdefault(e.group, []).append((e, s))
  out = []
  for group in groups.values():
    positive = next((e for e, s in group if s >= 1.0), None)
    if positive is None:
      run.count(ctx, "no_positive")
      continue
    if rewrite is None:
      negative = next((e.response for e, s in group if s < 1.0), None)
    else:
      negative = _rewritten(positive, ctx, rewrite, answer or (lambda text: text), tries)
    if negative is None:
      run.count(ctx, "no_negative")
      continue
    out += [read(positive, text, template, ctx.tokenizer)
            for text in (positive.response, negative)]
  return out


def _rewritten(positive, ctx, rewrite, answer, tries) -> str | None:
  for k in range(tries):
    draws = rng.host(ctx.seed, "rewrite", ctx.step, positive.task.id, k)
    text = rewrite(positive.response, draws)
    found = answer(text)
    if text != positive.response and found is not None and found != answer(positive.response):
      return text
  return None


def read(episode: Episode, text: str, template: str, tokenizer) -> Episode:
  """An episode in which `text` answers what the template shows before it.

  Raises:
    ValueError: the template does not end with {response}.
  """
  before, mark, after = template.rpartition("{response}")
  if not mark or after:
    raise ValueError(f"the template {template!r} does not end with {{response}}")
  shown = before.format(prompt=episode.prompt, answer=episode.task.answer)
  turns = (types.Turn("user", tokenizer.encode(shown), text=shown),
           types.Turn("assistant", tokenizer.response(text), text=text))
  info = {k: v for k, v in episode.info.items() if k != "columns"}
  return types.Episode(episode.task, turns, group=episode.group, info=info)
