"""One prompt, G responses: of the policy, of several roles, or two that are compared."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import rng, types
from rljax.data import pairs as pairs_lib


def single_turn(samplers: Mapping, tasks: Sequence[types.Task], key, *, group_size: int = 8,
                role: str = "policy", env=None, settings: dict | None = None
                ) -> list[types.Episode]:
  """Samples `group_size` responses per task, group-major: [task 0 sample 0, task 0 sample 1, ...].

  Args:
    samplers: role name -> sampler with `generate` and `tokenizer`.
    key: jax key; with a task's id and the sample number it decides every token.
    role: who answers.
    env: unused; single-turn tasks have no environment.
    settings: overrides of the run's sampling settings (temperature, greedy, max_tokens, ...).

  Raises:
    ValueError: a prompt longer than the limit (see `recipes`: limits.on_long_prompt).
  """
  del env
  sampler = samplers[role]
  prompts = [sampler.tokenizer.render(t.prompt) for t in tasks]
  pairs = [(i, g) for i in range(len(tasks)) for g in range(group_size)]
  numbers = [rng.number(t.id) for t in tasks]
  seeds = [(numbers[i], g) for i, g in pairs]
  done = sampler.generate([prompts[i] for i, _ in pairs], seeds, key,
                          media=[tasks[i].media for i, _ in pairs], **(settings or {}))
  episodes = []
  for (i, _), c in zip(pairs, done):
    turns = (types.Turn("user", prompts[i], text=text_of(tasks[i].prompt), media=tasks[i].media),
             types.Turn("assistant", c.tokens, c.logp, sampler.tokenizer.decode(c.tokens),
                        raw_logp=c.raw_logp))
    episodes.append(types.Episode(tasks[i], turns, group=i, status=c.status))
  return episodes


def sides(samplers: Mapping, tasks: Sequence[types.Task], key, *, group_size: int = 1,
          roles: tuple[str, ...] = ("policy", "ref"), env=None, settings: dict | None = None
          ) -> list[types.Episode]:
  """`single_turn` for each of several roles, all of a task in one group; info["role"] says whose.

  For evaluations against a fixed opponent (`evals.scores:measure`), whose responses stay the same
  as long as its weights do: they depend on the task and the phase's key alone.

  Args:
    group_size: responses of each role to a task. Others: as in `single_turn`.
  """
  out = []
  for role in roles:
    found = single_turn(samplers, tasks, rng.fold(key, role), group_size=group_size, role=role,
                        env=env, settings=settings)
    out += [dataclasses.replace(e, info={**e.info, "role": role}) for e in found]
  return out


def compared(samplers: Mapping, tasks: Sequence[types.Task], key, *, prefer: Callable,
             noise: float = 0.0, role: str = "policy", group_size: int = 2, env=None,
             settings: dict | None = None) -> list[types.Episode]:
  """Two responses per task, marked by which one is preferred: data for a reward model.

  What is drawn depends on the task alone, not on the step: as many tasks, as many pairs, always the
  same. `info["source"]` is "chosen" or "rejected", the column `label` 1 or 0, chosen ones first. A
  pair of equal scores or with one that has none becomes status ERROR, which takes it out of the
  loss.

  Args:
    prefer: leaf of a reward, `(episodes, None) -> array [B]`: the annotator.
    noise: share of the pairs whose marks are exchanged, drawn per task.
    group_size: 2, always. role, settings: as in `single_turn`. key, env: unused.
  """
  del key, env
  found = single_turn(samplers, tasks, rng.key(0, "compared"), group_size=2, role=role,
                      settings=settings)
  scores, out = np.asarray(prefer(found, None), np.float64), []
  for i in range(0, len(found), 2):
    (a, x), (b, y) = zip(found[i:i + 2], scores[i:i + 2])
    if (x < y) != (rng.host(0, "compared", a.task.id).random() < noise):
      a, b = b, a
    for e, source in ((a, "chosen"), (b, "rejected")):
      info = {**e.info, "source": source, **({} if x != y and np.isfinite(x + y) else {
          "error": f"the annotator's scores are {x} and {y}"})}
      status = types.ERROR if "error" in info else e.status
      out.append(pairs_lib.with_columns(dataclasses.replace(e, info=info, status=status),
                                        label=float(source == "chosen")))
  return out


def text_of(prompt: str | list) -> str:
  """A readable view of a prompt."""
  if isinstance(prompt, str):
    return prompt
  return "\n".join(f"[{m['role']}] {m['content']}" for m in prompt)
