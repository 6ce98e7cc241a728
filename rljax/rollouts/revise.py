"""An attempt, a word about it, another attempt."""

from collections.abc import Callable, Mapping, Sequence

from rljax import config, rng, types
from rljax.rollouts import dialogue

FEEDBACK = "\nThere may be an error above. Solve it again:\n"

def revise(samplers: Mapping, tasks: Sequence[types.Task], key, *, group_size: int = 8,
           role: str = "policy", attempts: int = 2,
           feedback: str | Callable = FEEDBACK,
           turn_tokens: int = 0, message: bool = False, env=None, settings: dict | None = None
           ) -> list[types.Episode]:
  """`attempts` answers per episode, each after reading all before it, group-major.

  SCoRe, https://arxiv.org/abs/2409.12917 (a fixed instruction without a hint). The attempts are
  the turns of role "assistant"; the feedback is read and never trained on. An attempt that was cut
  by its limit ends the episode (LENGTH): half a sentence is nothing that another could improve.

  Args:
    feedback: what is said after each attempt but the last; or a leaf of
      `(task, text of the attempt, its number) -> text`, "" = the attempt stands, which ends it.
    turn_tokens: most tokens of an attempt; 0 = an equal share of limits.response.
    message: the feedback is a chat message of the user's.
    role, settings: as in `rljax.rollouts.single_turn`.
    env: unused; a task to be revised has no environment.

  Raises:
    ConfigError: no room for the feedback, or for one token per attempt.
  """
  del env
  sampler = samplers[role]
  turn_tokens = turn_tokens or sampler.limits["response"] // attempts
  if not turn_tokens or (attempts > 1 and not sampler.limits["observation"]):
    raise config.ConfigError(f"revise: {attempts} attempts need limits.response of a token each "
                             f"and limits.observation for what is said between them")
  dialogues = [dialogue.Dialogue(sampler, task, sample=g, group=i, role=role)
               for i, task in enumerate(tasks) for g in range(group_size)]
  for attempt in range(attempts):
    live = [d for d in dialogues if not d.status]
    texts = dialogue.advance(live, rng.fold(key, attempt), turn_tokens=turn_tokens,
                             settings=settings)
    for d, text in zip(live, texts):
      said = feedback(d.task, text, attempt) if callable(feedback) else feedback
      if d.ended == dialogue.CUT:
        d.end(types.LENGTH)
      elif attempt + 1 == attempts or not said:
        d.end(types.STOP)
      else:
        d.read(said, message=message)
  return [d.episode() for d in dialogues]


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, role: str = "policy",
                   feedback: str | Callable = FEEDBACK, env=None) -> list[types.Episode]:
  """One episode per task in which the policy says `task.info["turns"]`, for supervised training.

  Raises:
    ConfigError: a task without turns, or with fewer than another.
  """
  shown = dialogue.Shown(samplers[role], tasks)
  attempts = max(map(len, shown.turns.values()), default=1)
  return revise({role: shown}, tasks, key, group_size=1, role=role, attempts=max(attempts, 1),
                feedback=feedback, turn_tokens=shown.limits["response"], env=env)
