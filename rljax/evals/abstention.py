"""Does a policy ask for help where it does not know? Asking is read as abstaining."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax import rng, types
from rljax.types import Episode


def measure(episodes: Sequence[Episode], problems: int, ctx, *, verifier: Callable, closed: str,
            base: str = "ref", samples: int = 10, tokens: int = 0, key: str = "calls",
            score: str = "correct") -> dict[str, float]:
  """MASH's read-out, https://arxiv.org/abs/2510.01152, of episodes that could call a tool.

  `pass_at_1`: accuracy; `search`: share of episodes with a call, n > 0; `productivity`: mean of
  accuracy / (1 + n); `parametric`: mean of accuracy where n = 0, and 0 elsewhere; `precision`:
  accuracy among n = 0; `searched`: accuracy among n > 0. `closed` and `closed_base`: how right the
  policy and `base` are when they must answer at once, a(q), over `samples` answers. With A(a) the
  share of n > 0 where a(q), rounded to tenths, is a: `abs_0` = A(0) and `gap` = A(0) - A(1) by the
  base's a(q), `own_abs_0` and `own_gap` by the policy's own. NaN where there is no such question.

  Args:
    episodes: scored, as many per problem. problems: how many there are; one whose prompt was too
      long has no episodes and is left out.
    verifier: leaf of a reward, which grades the answers given at once.
    closed: what the policy is made to begin with, "<answer>".
    base: role of the policy before training.
    tokens: most tokens of such an answer; 0 = the run's limit.
    key: entry of `Episode.info`, the calls n. score: name of the score.
  """
  del problems
  right = np.array([e.scores[score] >= 1.0 - 1e-6 for e in episodes], float)
  calls = np.array([int(e.info.get(key, 0)) for e in episodes])
  asked, mean = calls > 0, lambda x: float(np.mean(x)) if len(x) else float("nan")
  out = {"pass_at_1": mean(right), "search": mean(asked), "productivity": mean(right / (1 + calls)),
         "parametric": mean(right * ~asked), "precision": mean(right[~asked]),
         "searched": mean(right[asked])}
  for role, name, prefix in (("policy", "closed", "own_"), (base, "closed_base", "")):
    known = _at_once(episodes, ctx, role, verifier, closed, samples, tokens)
    level = np.round([known[e.task.id] for e in episodes], 1)
    a = {k: mean(asked[level == k]) for k in (0.0, 1.0)}
    out |= {name: mean(list(known.values())), f"{prefix}abs_0": a[0.0],
            f"{prefix}gap": a[0.0] - a[1.0]}
  return out


def _at_once(episodes, ctx, role, verifier, closed, samples, tokens) -> dict[str, float]:
  """a(q) by the task's id: how often a role is right that has to begin with `closed`."""
  asked = {e.task.id: e for e in episodes}
  begin = ctx.tokenizer.encode(closed)
  table = [(e, k) for e in asked.values() for k in range(samples)]
  settings = {"max_tokens": tokens} if tokens else {}
  done = ctx.sample(role, [np.concatenate([e.turns[0].tokens, begin]) for e, _ in table],
                    [(rng.number(e.task.id), k) for e, k in table], **settings)
  said = [Episode(e.task, (e.turns[0], types.Turn(
      "assistant", c.tokens, text=closed + ctx.tokenizer.decode(c.tokens))), status=c.status)
          for (e, _), c in zip(table, done)]
  right = np.nan_to_num(np.asarray(verifier(said, ctx), float)) >= 1.0 - 1e-6
  return dict(zip(asked, right.reshape(-1, samples).mean(axis=1).tolist()))
