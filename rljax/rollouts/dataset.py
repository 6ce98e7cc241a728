"""Episodes that were not sampled: demonstrations, or responses that were compared."""

from collections.abc import Mapping, Sequence

from rljax import config as config_lib
from rljax import rng, types
from rljax.data import pairs
from rljax.rollouts import single_turn


def demonstrations(samplers: Mapping, tasks: Sequence[types.Task], key, *, role: str = "policy",
                   env=None, noise: float = 0.0) -> list[types.Episode]:
  """One episode per task whose response is `task.demo`, end token included. Nothing is sampled.

  Args:
    noise: share of the demonstrations in which one digit is replaced by another, drawn per task
      (the same task is always shown the same way). A model that learns them well is right in about
      1 - noise of its samples: a skill planted below what it could do.

  Raises:
    ConfigError: a task without a demonstration.
  """
  del key, env
  tokenizer = samplers[role].tokenizer
  episodes = []
  for i, task in enumerate(tasks):
    if not task.demo:
      raise config_lib.ConfigError(f"task {task.id} has no demonstration to train on")
    demo = _corrupted(task, noise) if noise else task.demo
    turns = (types.Turn("user", tokenizer.render(task.prompt),
                        text=single_turn.text_of(task.prompt), media=task.media),
             types.Turn("assistant", tokenizer.response(demo), text=demo))
    episodes.append(types.Episode(task, turns, group=i))
  return episodes


def _corrupted(task: types.Task, noise: float) -> str:
  """The demonstration, with probability `noise` with one wrong digit."""
  random = rng.host(0, "demo noise", task.id)
  digits = [i for i, c in enumerate(task.demo) if c.isdigit()]
  if not digits or random.random() >= noise:
    return task.demo
  at = digits[random.integers(len(digits))]
  wrong = str((int(task.demo[at]) + int(random.integers(1, 10))) % 10)
  return task.demo[:at] + wrong + task.demo[at + 1:]


def responses(samplers: Mapping, tasks: Sequence[types.Task], key, *, group_size: int = 2,
              role: str = "reward_model", env=None, settings: dict | None = None
              ) -> list[types.Episode]:
  """The given responses of each task (`rljax.data.comparisons`), chosen ones first, as one group.

  `info["source"]` is "chosen" or "rejected", the column `label` 1 or 0. Nothing is
  sampled. A response that is longer than limits.response becomes an episode with status ERROR
  (metric episode/errors), which takes its pair out of the loss.

  Args:
    group_size: responses per task, its first chosen one and its first rejected ones: 2 is a pair
      for training. 0 = all that a task has.
    role: whose tokenizer and limits count.

  Raises:
    ConfigError: a task has too few responses.
  """
  del key, env, settings
  sampler, episodes = samplers[role], []
  for i, task in enumerate(tasks):
    chosen, rejected = (task.info.get(side, ()) for side in ("chosen", "rejected"))
    if group_size:
      chosen = chosen[:1]
      rejected = rejected[:group_size - 1]
    if not chosen or not rejected or (group_size and len(rejected) < group_size - 1):
      raise config_lib.ConfigError(
          f"task {task.id} has {len(chosen)} chosen and {len(rejected)} rejected responses; "
          f"wanted one and {max(group_size - 1, 1)}")
    prompt = types.Turn("user", sampler.tokenizer.render(task.prompt),
                        text=single_turn.text_of(task.prompt), media=task.media)
    for source, texts in (("chosen", chosen), ("rejected", rejected)):
      for text in texts:
        tokens, limit = sampler.tokenizer.response(text), sampler.limits["response"]
        info = {"source": source, "role": role}
        if len(tokens) > limit:
          info["error"] = f"the response has {len(tokens)} tokens, limits.response is {limit}"
        said = types.Turn("assistant", tokens[:limit], text=text)
        episode = types.Episode(task, (prompt, said), group=i, info=info,
                                status=types.ERROR if "error" in info else types.STOP)
        episodes.append(pairs.with_columns(episode, label=float(source == "chosen")))
  return episodes
