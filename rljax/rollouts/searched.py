"""Answers by search: what a policy finds with a budget of tokens, for evaluations."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config, rng, types
from rljax.rollouts import single_turn
from rljax.search import beam, mcts, sample
from rljax.search import found as found_lib
from rljax.types import Task

SEARCHES: dict[str, Callable] = {
    "best_of_n": sample.best_of_n, "vote": sample.vote, "beam": beam.beam, "mcts": mcts.mcts}
GUIDED = ("beam", "mcts")  # these need a value


def blind(tasks: Sequence[Task]) -> list[Task]:
  """The tasks without anything that tells their answers: what a search may see of them."""
  return [Task(t.id, t.prompt, media=t.media) for t in tasks]


def value_of(sampler) -> found_lib.Value:
  """What the scalar head of a sampler's role says at the end of prompt and text."""
  def value(tasks, texts):
    encode = sampler.tokenizer
    return sampler.value([np.concatenate([encode.render(t.prompt), encode.encode(x)])
                          for t, x in zip(tasks, texts)])
  return value


def searched(samplers: Mapping, tasks: Sequence[Task], key, *, budget: int, search: str = "mcts",
             value: str = "", options: dict | None = None, group_size: int = 1,
             role: str = "policy", env=None, settings: dict | None = None) -> list[types.Episode]:
  """`group_size` episodes per task, group-major, each the answer that a search ends with.

  info["tokens"] is what was generated until then, at most `budget`, and info["accepted"] whether
  the search stopped there by itself. A task for which nothing was found has an empty answer and the
  status LENGTH. The search does not see the answers of the tasks.

  Args:
    budget: generated tokens per task and search, roll-outs included.
    search: of `SEARCHES`. options: its own keyword arguments.
    value: role whose scalar head says how good an answer is; "" = the sampler's own probabilities
      for the best of n, and none for votes.
    role, settings: who answers, and how it is sampled. env: unused.

  Raises:
    ConfigError: an unknown search, or one that needs a value.
  """
  del env
  if search not in SEARCHES or (search in GUIDED and not value):
    raise config.ConfigError(f"searched: search={search!r} is one of {', '.join(SEARCHES)}; "
                             f"{' and '.join(GUIDED)} need a value")
  sampler, out = samplers[role], []
  judge = value_of(samplers[value]) if value else None
  runs = [SEARCHES[search](samplers, blind(tasks), rng.fold(key, "search", g), budget=budget,
                           value=judge, role=role, settings=settings, **(options or {}))
          for g in range(group_size)]
  for i, task in enumerate(tasks):
    prompt = types.Turn("user", sampler.tokenizer.render(task.prompt), media=task.media,
                        text=single_turn.text_of(task.prompt))
    for found in runs:
      f = found_lib.last(found[i], budget) or found_lib.Found(0, "")
      said = types.Turn("assistant", sampler.tokenizer.response(f.text), text=f.text)
      out.append(types.Episode(
          task, (prompt, said), group=i, status=types.STOP if f.text else types.LENGTH,
          info={"tokens": f.tokens, "accepted": f.accepted}))
  return out
