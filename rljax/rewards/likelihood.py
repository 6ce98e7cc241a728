"""How likely the policy finds the reference answer after its own reasoning."""

from collections.abc import Sequence

import numpy as np

from rljax import config
from rljax.rollouts import reference
from rljax.types import Episode

FORMS = {
    "prob": lambda logp: np.exp(logp.sum()),
    "avgprob": lambda logp: np.exp(logp).mean(),
    "logprob": lambda logp: logp.sum(),
    "avglogprob": lambda logp: logp.mean(),
}


def reference_likelihood(episodes: Sequence[Episode], ctx, *, form: str = "logprob",
                         tag: str = "#", floor: float = -10.0, role: str = "policy") -> np.ndarray:
  """R(z) from the token log-probabilities l_t of a* (end token included) given prompt and z.

  prob exp(sum l), avgprob mean exp(l), logprob sum l, avglogprob mean l: VeriFree
  (https://arxiv.org/abs/2505.21493), RLPR (https://arxiv.org/abs/2506.18254) and the log forms of
  "Likelihood-based reward designs for general LLM reasoning". float64: the product of probabilities
  stays above 0 here where float32 underflows. JEPO (https://arxiv.org/abs/2503.19618) takes
  "logprob" and `rljax.objectives.likelihood:jepo_advantage`.

  Args:
    episodes: z is what the assistant said up to and with the tag, whatever stands behind it.
    form: see above.
    tag: end of the reasoning. Without it the reward is 0 (prob, avgprob), `floor` per token of a*
      (logprob) or `floor` (avglogprob): finite, so that it can enter an advantage.
    role: whose likelihood.

  Returns:
    float64 [B].

  Raises:
    ConfigError: an unknown form, or a task with an empty reference.
  """
  if form not in FORMS:
    raise config.ConfigError(f"reference_likelihood: form must be one of {', '.join(FORMS)}, "
                             f"found {form!r}")
  mark = ctx.tokenizer.encode(tag)
  prefixes, references, rows = [], [], []
  out = np.zeros(len(episodes))
  for b, e in enumerate(episodes):
    if not len(str(e.task.answer)):
      raise config.ConfigError(f"task {e.task.id}: its reference answer is empty")
    answer = ctx.tokenizer.response(str(e.task.answer))
    said = np.concatenate([t.tokens for t in e.turns if t.role == "assistant"])
    end = reference.tag_end(said, mark)
    if end < 0:
      out[b] = {"logprob": floor * len(answer), "avglogprob": floor}.get(form, 0.0)
      continue
    before = [t.tokens for t in e.turns if t.role != "assistant"]
    prefixes.append(np.concatenate([*before, said[:end]]))
    references.append(answer)
    rows.append(b)
  for b, (logp, _) in zip(rows, ctx.score(role, prefixes, references) if rows else []):
    out[b] = FORMS[form](np.asarray(logp, np.float64))
  return out
