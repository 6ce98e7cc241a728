"""How sure a model is: of a response, of the reference answer. Nothing here reads the task's answer
as a verifier does; all of it can be gamed, and a run should log accuracy beside it.
"""

from collections.abc import Sequence

import numpy as np

from rljax import config
from rljax.rewards import shaping
from rljax.rollouts import reference
from rljax.types import Episode


def _spans(episodes):
  """(what stands before, what the assistant said) of episodes of one prompt, as token ids."""
  out = []
  for e in episodes:
    roles = [t.role == "assistant" for t in e.turns]
    if roles != sorted(roles) or not 0 < sum(roles) < len(roles):
      raise config.ConfigError(
          f"task {e.task.id}: this reward reads episodes of one prompt and one response")
    out.append(tuple(np.concatenate([t.tokens for t, r in zip(e.turns, roles) if r == side])
                     for side in (False, True)))
  return out


def certainty(episodes: Sequence[Episode], ctx, *, kind: str = "entropy", role: str = "policy"
              ) -> np.ndarray:
  """Mean over the response's tokens of -H_t ("entropy"), log p(y_t) ("logp") or KL(U || p_t)
  ("self_certainty").

  Negative entropy as the only reward: https://arxiv.org/abs/2505.15134. Self-certainty, U the
  uniform distribution over the vocabulary: https://arxiv.org/abs/2502.18581,
  https://arxiv.org/abs/2505.19590.

  Returns:
    float64 [B].

  Raises:
    ConfigError: an unknown kind, or episodes of several turns.
  """
  if kind not in ("entropy", "logp", "self_certainty"):
    raise config.ConfigError(
        f"certainty: kind is 'entropy', 'logp' or 'self_certainty', found {kind!r}")
  before, said = zip(*_spans(episodes)) if episodes else ((), ())
  if kind == "self_certainty":
    return np.array([np.mean(kl) for kl in ctx.uniform_kl(role, before, said)], np.float64)
  found = ctx.score(role, before, said)
  return np.array([-np.mean(h) if kind == "entropy" else np.mean(l) for l, h in found], np.float64)


def relative_perplexity(episodes: Sequence[Episode], ctx, *, context: str = "\n",
                        role: str = "policy") -> np.ndarray:
  """clip((ppl(a) - ppl(a|q)) / ppl(a), -1, 1): how much the question explains the response.

  R_SA of "Self-Aligned Reward: Towards Effective and Efficient Reasoners" (ICLR 2026). ppl is exp
  of the mean negative log-probability of the response's tokens; only the lower limit can bind.

  Args:
    context: what stands in place of the question for ppl(a); at least one token.

  Returns:
    float64 [B].

  Raises:
    ConfigError: an empty context, or episodes of several turns.
  """
  blank = ctx.tokenizer.encode(context)
  if not len(blank):
    raise config.ConfigError("relative_perplexity: the context needs at least one token")
  spans = _spans(episodes)
  said = [a for _, a in spans] * 2
  found = ctx.score(role, [q for q, _ in spans] + [blank] * len(spans), said)
  mean = np.array([np.mean(l, dtype=np.float64) for l, _ in found]).reshape(2, -1)
  # (e^-b - e^-a) / e^-b, without either exponential.
  return np.clip(-np.expm1(np.minimum(mean[1] - mean[0], 1.0)), -1, 1)


def reference_gain(episodes: Sequence[Episode], ctx, *, tag: str = "#", weights: str = "none",
                   form: str = "logprob", role: str = "policy", floor: float = 0.0) -> np.ndarray:
  """How much the reasoning z helps the reference answer a*: sum_j w_j (g(j|z) - g(j|no z)) / sum w.

  form "prob" with equal weights: RLPR's gain before clipping, https://arxiv.org/abs/2506.18254.
  form "logprob" with weights "variance": R3 of DRO, https://arxiv.org/abs/2506.13351, w_j the
  standard deviation over the group of log p(a*_j), and "no z" the prompt and the tag alone.

  Args:
    episodes: z is what the assistant said up to and with the tag. tag: the end of the reasoning.
    weights: "none" or "variance". form: g is p or log p.
    floor: reward without a tag.

  Returns:
    float64 [B].

  Raises:
    ConfigError: an unknown form or weighting.
  """
  if weights not in ("none", "variance") or form not in ("prob", "logprob"):
    raise config.ConfigError(f"reference_gain: form {form!r}, weights {weights!r}")
  mark, out = ctx.tokenizer.encode(tag), np.full(len(episodes), float(floor))
  rows, prefixes, blanks, answers = [], [], [], []
  for b, (before, said) in enumerate(_spans(episodes)):
    end = reference.tag_end(said, mark)
    if end >= 0:
      rows.append(b)
      prefixes.append(np.concatenate([before, said[:end]]))
      blanks.append(np.concatenate([before, mark]))
      answers.append(ctx.tokenizer.response(str(episodes[b].task.answer)))
  if not rows:
    return out
  found = ctx.score(role, prefixes + blanks, answers + answers)
  logp = [np.asarray(l, np.float64) for l, _ in found]
  shape = np.exp if form == "prob" else np.asarray
  gains = [shape(x) - shape(y) for x, y in zip(logp, logp[len(rows):])]
  place = {b: k for k, b in enumerate(rows)}
  for members in shaping.groups(episodes).values():
    mine = [place[b] for b in members if b in place]
    if not mine:
      continue
    w = np.ones(len(gains[mine[0]]))
    if weights == "variance":
      w = np.std([logp[k] for k in mine], axis=0) + 1e-6
    for k in mine:
      out[rows[k]] = np.sum(w * gains[k]) / w.sum()
  return out
