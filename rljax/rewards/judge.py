"""A generative judge: a role that writes a verdict, read by a parser that does not guess.

The judge may be the policy itself (self-rewarding) or any other role. What it writes is never
trained on. A verdict that cannot be read is counted ("judge_unparsed") and scores `unparsed`.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from rljax import config, rng
from rljax.rewards import run
from rljax.types import Episode

SCORE = ("Judge the answer to the question from {low:g} (worst) to {high:g} (best).\n\n"
         "Question: {prompt}\n\nAnswer: {response}\n\nEnd with \"Score: \" and the number.\n")
COMPARE = ("Which answer to the question is better?\n\nQuestion: {prompt}\n\nAnswer A: {first}\n\n"
           "Answer B: {second}\n\n"
           "End with \"Verdict: A\" or \"Verdict: B\" (\"Verdict: C\" = tie).\n")

_SAID = r"[\s*:=]*(?:\\boxed\{|<answer>|\[\[?|\()?\s*"
_SCORE = re.compile(
    r"(?i)\b(?:score|rating|grade)\b(?:\s+(?:is|of))?" + _SAID + r"(-?[0-9]+(?:\.[0-9]+)?)")
_BARE_SCORE = re.compile(
    r"\s*(?:\\boxed\{|<answer>|\[\[?)?\s*(-?[0-9]+(?:\.[0-9]+)?)\s*(?:\}|</answer>|\]\]?)?"
    r"\s*(?:/\s*[0-9]+)?\s*\.?\s*")
_VERDICT = re.compile(r"(?i:\b(?:verdict|winner|choice|better(?:\s+answer)?)\b(?:\s+is)?)"
                      + _SAID + r"(?:(?i:answer|response|assistant)\s+)?([ABC])\b(?!')")
_BARE_VERDICT = re.compile(r"\s*(?:\\boxed\{|<answer>|\[\[?)?\s*([ABC])\s*"
                           r"(?:\}|</answer>|\]\]?)?\s*\.?\s*")


def read_score(text: str, low: float, high: float) -> float:
  """The number after the last "score", or the only thing on the last line; NaN if there is none.

  A number outside [low, high] is no score: a judge that writes 95 of 10 has not understood.
  """
  found = [m[1] for m in _SCORE.finditer(text)]
  bare = _BARE_SCORE.fullmatch(_last_line(text))
  number = float(found[-1] if found else bare[1] if bare else "nan")
  return number if low <= number <= high else float("nan")


def read_verdict(text: str) -> str:
  """"A", "B" or "C" (tie): the last one named, or alone on the last line; "" if there is none."""
  found = [m[1] for m in _VERDICT.finditer(text)]
  bare = _BARE_VERDICT.fullmatch(_last_line(text))
  return found[-1] if found else bare[1] if bare else ""


def _last_line(text):
  lines = [x for x in text.strip().splitlines() if x.strip()]
  return lines[-1] if lines else ""


def pointwise(episodes: Sequence[Episode], ctx: run.Context, *, role: str = "judge",
              template: str = SCORE, low: float = 0.0, high: float = 10.0, votes: int = 1,
              unparsed: float = float("nan"), temperature: float = 1.0, max_tokens: int = 0
              ) -> np.ndarray:
  """The mean of the scores a judge writes, scaled to [0, 1].

  Args:
    role: who judges. template: fields {prompt}, {response}, {low}, {high}.
    low, high: the scale it is told. votes: verdicts per response; those that can be read count.
    unparsed: reward where none can be read; NaN = could not be scored.
    temperature, max_tokens: of the judge; 0 tokens = the run's limit.

  Returns:
    float64 [B].

  Raises:
    ConfigError: no sampler, low >= high, votes below 1, or an unknown field in the template.
  """
  if low >= high or votes < 1:
    raise config.ConfigError(f"judge: low < high and votes >= 1, not {low}, {high} and {votes}")
  prompts = [_fill(template, prompt=e.prompt, response=e.response, low=low, high=high)
             for e in episodes]
  texts = _ask(ctx, role, [p for p in prompts for _ in range(votes)], temperature, max_tokens)
  scores = np.array([read_score(t, low, high) for t in texts]).reshape(len(episodes), votes)
  run.count(ctx, "judge_unparsed", int(np.isnan(scores).sum()))
  known = np.isfinite(scores)
  mean = np.where(known, scores, 0).sum(1) / np.maximum(known.sum(1), 1)
  return np.where(known.any(1), (mean - low) / (high - low), unparsed)


def prefer(prompts: Sequence[str], firsts: Sequence[str], seconds: Sequence[str],
           ctx: run.Context, *, role: str = "judge", template: str = COMPARE,
           both_orders: bool = True, temperature: float = 1.0, max_tokens: int = 0) -> np.ndarray:
  """How much the first answer of each pair is preferred: 1, 0, or 0.5 for a tie; [pairs, orders].

  Column 1 (with `both_orders`) is the verdict on the swapped pair, told from the first answer's
  side again; NaN where a verdict cannot be read.
  """
  orders = [(firsts, seconds), (seconds, firsts)][:1 + both_orders]
  asked = [_fill(template, prompt=p, first=a, second=b)
           for x, y in orders for p, a, b in zip(prompts, x, y, strict=True)]
  verdicts = [read_verdict(t) for t in _ask(ctx, role, asked, temperature, max_tokens)]
  points = {"A": 1.0, "B": 0.0, "C": 0.5, "": float("nan")}
  values = np.array([points[v] for v in verdicts], np.float64).reshape(len(orders), -1)
  run.count(ctx, "judge_unparsed", int(np.isnan(values).sum()))
  values[1:] = 1 - values[1:]
  return values.T


def win_rate(episodes: Sequence[Episode], ctx: run.Context, *, role: str = "judge",
             template: str = COMPARE, both_orders: bool = True, opponents: int = 0,
             temperature: float = 1.0, max_tokens: int = 0) -> np.ndarray:
  """The share of comparisons inside its group that a response wins (a tie is half).

  Args:
    opponents: each response meets the next `opponents` of its group in a circle; 0 = all others.
    both_orders: each pair is judged in both orders, and the two verdicts are averaged.

  Returns:
    float64 [B]; NaN where no verdict can be read.
  """
  groups: dict[int, list[int]] = {}
  for i, e in enumerate(episodes):
    groups.setdefault(e.group, []).append(i)
  pairs = sorted({tuple(sorted((rows[k], rows[(k + d) % len(rows)])))
                  for rows in groups.values() for k in range(len(rows))
                  for d in range(1, min(opponents or len(rows), len(rows) - 1) + 1)})
  first, second = ([episodes[p[s]] for p in pairs] for s in (0, 1))
  out, count = np.zeros(len(episodes)), np.zeros(len(episodes))
  if not pairs:
    return np.full(len(episodes), np.nan)
  wins = prefer([e.prompt for e in first], [e.response for e in first],
                [e.response for e in second], ctx, role=role, template=template,
                both_orders=both_orders, temperature=temperature, max_tokens=max_tokens)
  for (a, b), row in zip(pairs, wins):
    known = row[np.isfinite(row)]
    out[a] += known.sum()
    out[b] += (1 - known).sum()
    count[[a, b]] += len(known)
  return np.where(count > 0, out / np.maximum(count, 1), np.nan)


def against_random(episodes: Sequence[Episode], ctx: run.Context, *, role: str = "judge",
                   template: str = COMPARE, temperature: float = 1.0, max_tokens: int = 0
                   ) -> np.ndarray:
  """+1 if a response beats a random member of its group in both orders, else -1; that member 0.

  BRPO of Writing-Zero, https://arxiv.org/abs/2506.00103: ties and disagreement count as -1.

  Returns:
    float64 [B].
  """
  groups: dict[int, list[int]] = {}
  for i, e in enumerate(episodes):
    groups.setdefault(e.group, []).append(i)
  out, rows, refs = np.zeros(len(episodes)), [], []
  for members in groups.values():
    draw = rng.host(ctx.seed, "judge reference", ctx.step, episodes[members[0]].task.id)
    ref = members[int(draw.integers(len(members)))]
    rows += [i for i in members if i != ref]
    refs += [ref] * (len(members) - 1)
  if rows:
    wins = prefer([episodes[i].prompt for i in rows], [episodes[i].response for i in rows],
                  [episodes[i].response for i in refs], ctx, role=role, template=template,
                  temperature=temperature, max_tokens=max_tokens)
    out[rows] = np.where((wins == 1).all(1), 1.0, -1.0)
    out[[i for i, w in zip(rows, wins) if np.isnan(w).all()]] = np.nan
  return out


def _fill(template, **fields):
  try:
    return template.format(**fields)
  except (KeyError, IndexError, ValueError) as e:
    raise config.ConfigError(f"judge: template {template[:60]!r} cannot be filled ({e}); "
                             f"its fields are {', '.join(fields)}") from None


def _ask(ctx, role, prompts, temperature, max_tokens) -> list[str]:
  if ctx.sample is None:
    raise config.ConfigError("judge: this run has no sampler for rewards")
  settings = {"temperature": temperature, **({"max_tokens": max_tokens} if max_tokens else {})}
  sample: Callable = ctx.sample
  ids = [ctx.tokenizer.render(p) for p in prompts]
  done = sample(role, ids, [(rng.number("judge"), i) for i in range(len(ids))], **settings)
  return [ctx.tokenizer.decode(c.tokens) for c in done]
