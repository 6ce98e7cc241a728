"""A proposer writes problems, a solver answers them; both can learn from it."""

import concurrent.futures
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence

from rljax import config, rng, types
from rljax.data import pairs
from rljax.rollouts import dialogue

log = logging.getLogger(__name__)


@types.whole  # proposals are numbered over the whole batch
def propose_solve(samplers: Mapping, tasks: Sequence[types.Task], key, *, validate: Callable,
                  group_size: int = 8, proposals: int = 1, proposer: str = "policy",
                  solver: str = "policy", solve_tokens: int = 0, propose_tokens: int = 0,
                  workers: int = 8, env=None, settings: dict | None = None
                  ) -> list[types.Episode]:
  """Per task `proposals` proposals, and `group_size` answers to every valid one.

  Absolute Zero, https://arxiv.org/abs/2505.03335: the tasks are requests for a new problem. First
  come the proposals, group-major, then the answers. info["proposal"] is a number that a proposal
  shares with its answers; the column `role_B` is 0 for a proposal and 1 for an answer, and
  info["valid"] says of a proposal whether it became a task. Groups: the proposals of one request
  (numbered as the tasks), the answers to one proposal (numbered after them).

  A task with a true info["solve"] is itself a problem, and is answered once, last of all; its
  group is its own number. The answers to proposals may then be there to rate these only
  (`rewards.propose.without_estimates`).

  Set `rows` of the updates to what can come: requests * proposals * (1 + group_size).

  Args:
    validate: leaf of `(request, text) -> Task | None`: the task that a proposal makes, with its
      verifier, or None. Where it raises, the proposal's status is ERROR.
    proposer, solver: roles, possibly one and the same.
    propose_tokens, solve_tokens: most tokens of either; 0 = limits.response.
    workers: threads that validate.
    env: unused. settings: overrides of the run's sampling settings, for both.

  Raises:
    ConfigError: greedy sampling: all answers to a proposal are one and the same, so their mean is 0
      or 1, and no problem is ever worth anything.
  """
  del env
  told = {**samplers[solver].defaults, **(settings or {})}
  if told.get("greedy") or told.get("temperature", 1.0) == 0:
    raise config.ConfigError("propose_solve: what a proposal is worth is estimated from answers "
                             "that are sampled; it cannot be with greedy decoding")
  asked = [dialogue.Dialogue(samplers[proposer], task, sample=g, group=i, role=proposer)
           for i, task in enumerate(tasks) if not task.info.get("solve")
           for g in range(proposals)]
  texts = dialogue.advance(asked, rng.fold(key, "propose"), turn_tokens=propose_tokens,
                           settings=settings)
  with concurrent.futures.ThreadPoolExecutor(workers) as pool:
    made = list(pool.map(lambda d, text: _validated(validate, d, text), asked, texts))
  answers = []
  for number, task in enumerate(made):
    asked[number].info.update(proposal=number, valid=task is not None)
    if task is None:
      continue
    # The number makes the randomness of equal problems different.
    task = dataclasses.replace(task, id=f"{asked[number].task.id}/proposed/{number}")
    if len(samplers[solver].tokenizer.render(task.prompt)) > samplers[solver].limits["prompt"]:
      asked[number].info.update(valid=False, error="the problem does not fit limits.prompt")
      continue
    answers += [dialogue.Dialogue(samplers[solver], task, sample=g, group=len(tasks) + number,
                                  role=solver, proposal=number) for g in range(group_size)]
  answers += [dialogue.Dialogue(samplers[solver], task, sample=i, group=i, role=solver)
              for i, task in enumerate(tasks) if task.info.get("solve")]
  dialogue.advance(answers, rng.fold(key, "solve"), turn_tokens=solve_tokens, settings=settings)
  for d in asked + answers:
    if not d.status:
      d.end(types.LENGTH if d.ended == dialogue.CUT else types.STOP)
  return [pairs.with_columns(d.episode(), role_B=column)
          for column, some in enumerate((asked, answers)) for d in some]


def _validated(validate, d, text):
  try:
    return validate(d.task, text)
  except config.ConfigError:
    raise
  except Exception as e:
    log.warning("task %s: validating a proposal raised %s: %s", d.task.id, type(e).__name__, e)
    d.end(types.ERROR, error=f"{type(e).__name__}: {e}"[:500])
    return None
