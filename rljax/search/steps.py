"""One step of many partial answers at a time, and what they are worth: what tree searches share."""

from collections.abc import Mapping, Sequence

import numpy as np

from rljax import rng, types
from rljax.rollouts import dialogue
from rljax.search import found as found_lib


class Steps:
  """Takes steps with one sampler.

  Args:
    key: of the search; every call of the sampler gets its own.
    value: of partial and whole answers.
    depth: most steps of an answer. stop: strings that end a step.
    step_tokens: most tokens of one; 0 = an equal share of the response.
    settings: overrides of the sampling settings.
  """

  def __init__(self, sampler, key, value: found_lib.Value, *, depth: int, stop: tuple[str, ...],
               step_tokens: int, settings: Mapping | None):
    self._key, self._value, self._depth, self._stop = key, value, depth, stop
    self._step_tokens = step_tokens or max(sampler.limits["response"] // depth, 1)
    self._settings, self._calls = dict(settings or {}), 0

  def advance(self, dialogues: Sequence[dialogue.Dialogue], **settings
              ) -> tuple[list[str], list[int]]:
    """One step of each, and its end where that was the last; texts and tokens of the steps."""
    before = [d.num_actions for d in dialogues]
    texts = dialogue.advance(
        dialogues, rng.fold(self._key, "step", self._calls), stop=self._stop,
        turn_tokens=self._step_tokens, settings={**self._settings, **settings})
    self._calls += 1
    for d in dialogues:
      steps = sum(turn.role == "assistant" for turn in d.turns)
      if d.ended == dialogue.EOS:
        d.end(types.STOP)
      elif steps >= self._depth or not d.left["response"]:
        d.end(types.LENGTH)
    return texts, [d.num_actions - had for d, had in zip(dialogues, before)]

  def values(self, dialogues: Sequence[dialogue.Dialogue]) -> np.ndarray:
    """In [0, 1]; NaN counts as 0."""
    if not dialogues:
      return np.zeros(0)
    said = self._value([d.task for d in dialogues], [d.response for d in dialogues])
    return np.clip(np.nan_to_num(np.asarray(said, float)), 0.0, 1.0)
