"""One prompt, G responses."""

from collections.abc import Mapping, Sequence

from rljax import rng, types


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
  seeds = [(rng.number(tasks[i].id), g) for i, g in pairs]
  done = sampler.generate([prompts[i] for i, _ in pairs], seeds, key, **(settings or {}))
  episodes = []
  for (i, _), c in zip(pairs, done):
    turns = (types.Turn("user", prompts[i], text=text_of(tasks[i].prompt), media=tasks[i].media),
             types.Turn("assistant", c.tokens, c.logp, sampler.tokenizer.decode(c.tokens),
                        raw_logp=c.raw_logp))
    episodes.append(types.Episode(tasks[i], turns, group=i, status=c.status))
  return episodes


def text_of(prompt: str | list) -> str:
  """A readable view of a prompt."""
  if isinstance(prompt, str):
    return prompt
  return "\n".join(f"[{m['role']}] {m['content']}" for m in prompt)
