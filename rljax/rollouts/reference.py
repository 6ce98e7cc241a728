"""The policy reasons, then the reference answer is put in place of its own."""

from collections.abc import Mapping, Sequence

import numpy as np

from rljax import rng, types
from rljax.data import pairs
from rljax.rollouts import single_turn


def spliced(samplers: Mapping, tasks: Sequence[types.Task], key, *, group_size: int = 8,
            tag: str = "#", reasoning: int = 0, role: str = "policy", env=None,
            settings: dict | None = None) -> list[types.Episode]:
  """Samples a reasoning z up to and with `tag`, then appends `task.answer` and the end token.

  Two assistant turns: z, with the sampler's log-probabilities, and the reference a*, without. The
  column `reference` holds the number of tokens of a*, 0 where z never reached the tag (the episode
  then is z alone, cut). The tag and a* are encoded apart, so no token spans both.

  Args:
    samplers, tasks, key, group_size, role, settings: as in `single_turn.single_turn`.
    tag: text that ends the reasoning.
    reasoning: limit on the tokens of z; 0 = limits.response. z and a* together must fit
      limits.response.
  """
  del env
  sampler = samplers[role]
  tokenizer, mark = sampler.tokenizer, sampler.tokenizer.encode(tag)
  prompts = [tokenizer.render(t.prompt) for t in tasks]
  pairs_of = [(i, g) for i in range(len(tasks)) for g in range(group_size)]
  seeds = [(rng.number(tasks[i].id), g) for i, g in pairs_of]
  settings = {**({"max_tokens": reasoning} if reasoning else {}), **(settings or {})}
  done = sampler.generate([prompts[i] for i, _ in pairs_of], seeds, key,
                          media=[tasks[i].media for i, _ in pairs_of], **settings)
  episodes = []
  for (i, _), c in zip(pairs_of, done):
    end = tag_end(c.tokens, mark)
    n = len(c.tokens) if end < 0 else end
    turns = [types.Turn("user", prompts[i], text=single_turn.text_of(tasks[i].prompt),
                        media=tasks[i].media),
             types.Turn("assistant", c.tokens[:n], c.logp[:n], tokenizer.decode(c.tokens[:n]))]
    status, size = types.LENGTH, 0
    if end >= 0:
      reference = tokenizer.response(str(tasks[i].answer))
      turns.append(types.Turn("assistant", reference, text=str(tasks[i].answer)))
      status, size = types.STOP, len(reference)
    episode = types.Episode(tasks[i], tuple(turns), group=i, status=status)
    episodes.append(pairs.with_columns(episode, reference=size))
  return episodes


def tag_end(tokens: np.ndarray, mark: np.ndarray) -> int:
  """Number of tokens up to the end of the first occurrence of `mark`; -1 if there is none."""
  for i in range(len(tokens) - len(mark) + 1):
    if np.array_equal(tokens[i:i + len(mark)], mark):
      return i + len(mark)
  return -1
