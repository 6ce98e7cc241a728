"""A second try with a hint, where the first ones all failed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config, rng, types
from rljax.data import hints, pairs
from rljax.rollouts import single_turn


def guided(samplers: Mapping, tasks: Sequence[types.Task], key, *, grade: Callable,
           group_size: int = 8, when: str = "failed", keep_hint: bool = False,
           mixin: bool = False, template: str = hints.TEMPLATE, role: str = "policy", env=None,
           settings: dict | None = None) -> list[types.Episode]:
  """`single_turn`, and for some tasks the group is sampled once more with `info["hint"]` shown.

  Guide, https://arxiv.org/abs/2506.13923: the group of such a task is then the guided answers only,
  written under the *plain* prompt, with the log-probabilities of the sampler that saw the hint:
  what importance weights across the two contexts need. The column `guided_B` is 1 for them, 0 for
  all others; info["guided"] says the same. A hint that makes the prompt longer than limits.prompt
  is not used: info["hint_too_long"] of the group's episodes, which then are the plain ones.

  Args:
    grade: leaf of a reward, `(episodes, None) -> array [B]`; what is not above 0.001 (or NaN) is
      wrong.
    when: "failed", where all answers are wrong; "always", instead of plain answers; "never".
    keep_hint: the guided episodes keep the hint in their prompt and are on-policy there
      (`guided_B` 0), as GHPO's (https://arxiv.org/abs/2507.10628).
    mixin: a wrong guided answer gives way to the plain answer of the same number; not with
      "always".
    template: how the hint is shown, with "{hint}" and "{prompt}".
    group_size, role, settings: as in `single_turn`. env: unused.

  Raises:
    ConfigError: an unknown `when`, or a `mixin` without plain answers.
  """
  del env
  if when not in ("failed", "always", "never") or (mixin and when == "always"):
    raise config.ConfigError(f"guided: when={when!r} is 'failed', 'always' or 'never', and mixin "
                             f"needs plain answers")
  sampler = samplers[role]

  def roll(indices, prompts, key):
    """Group index -> its episodes; the task of each is the plain one, whatever it was shown."""
    if not indices:
      return {}
    some = [dataclasses.replace(tasks[i], prompt=prompts[i]) for i in indices]
    found = single_turn.single_turn(samplers, some, key, group_size=group_size, role=role,
                                    settings=settings)
    return {i: [dataclasses.replace(e, task=tasks[i], group=i)
                for e in found[n * group_size:(n + 1) * group_size]]
            for n, i in enumerate(indices)}

  right = lambda episodes: np.nan_to_num(np.asarray(grade(episodes, None), float)) > 0.001
  plain = {i: t.prompt for i, t in enumerate(tasks)}
  shown = {i: hints.shown(t, template) for i, t in enumerate(tasks) if t.info.get("hint")}
  fits = {i: len(sampler.tokenizer.render(p)) <= sampler.limits["prompt"] for i, p in shown.items()}
  usable = [i for i, fit in fits.items() if fit and when != "never"]

  groups = roll([i for i in plain if when != "always" or i not in usable], plain, key)
  groups = {i: [_marked(e, 0.0, guided=False, **({} if fits.get(i, True) else {
      "hint_too_long": True})) for e in group] for i, group in groups.items()}
  if when == "failed":
    usable = [i for i in usable if not right(groups[i]).any()]
  for i, group in roll(usable, shown, rng.fold(key, "guided")).items():
    if not keep_hint:
      turn = types.Turn("user", sampler.tokenizer.render(plain[i]),
                        text=single_turn.text_of(plain[i]), media=tasks[i].media)
      group = [dataclasses.replace(e, turns=(turn, *e.turns[1:])) for e in group]
    group = [_marked(e, float(not keep_hint), guided=True) for e in group]
    if mixin:
      group = [e if ok else p for e, p, ok in zip(group, groups[i], right(group))]
    groups[i] = group
  return [e for i in plain for e in groups[i]]


def _marked(episode, off_context, **info):
  return pairs.with_columns(dataclasses.replace(episode, info={**episode.info, **info}),
                            guided_B=off_context)
