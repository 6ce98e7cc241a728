"""Beam search over steps of an answer, led by a value model."""

from collections.abc import Mapping, Sequence

from rljax import rng, types
from rljax.rollouts import dialogue
from rljax.search import found as found_lib
from rljax.search import steps as steps_lib

Found = found_lib.Found


class _Beam:
  """The search of one task: its open dialogues, and the best one seen that has ended."""

  def __init__(self, task, number, sampler):
    self.task, self.number, self.sampler = task, number, sampler
    self.tokens, self.level, self.best = 0, 0, (-1.0, "")
    self.found: list[Found] = []
    self.open: list[dialogue.Dialogue] = []

  def fork(self, branch: int) -> list[dialogue.Dialogue]:
    """`branch` copies of every open dialogue, or of a new one where none is left."""
    if not self.open:
      self.open = [dialogue.Dialogue(self.sampler, self.task, sample=0, group=self.number)]
    out = [d.fork(rng.number(f"{self.level}/{i}/{k}"))
           for i, d in enumerate(self.open) for k in range(branch)]
    for d in self.open:
      d.release()
    return out

  def keep(self, made, texts, values, width: int) -> None:
    """The best `width` of the new ones, equal texts counted once; notes the answer so far."""
    ranked, seen = [], set()
    for d, text, value in sorted(zip(made, texts, values), key=lambda x: -x[2]):
      if d.status:
        self.best = max(self.best, (value, d.response), key=lambda x: x[0])
      new = text and not d.status and d.response not in seen and len(ranked) < width
      seen.add(d.response)
      if new:
        ranked.append((value, d))
      else:
        d.release()
    self.open = [d for _, d in ranked]
    answer = self.best[1] if self.best[0] >= 0 or not ranked else ranked[0][1].response
    self.found.append(Found(self.tokens, answer))
    self.level += 1


def beam(samplers: Mapping, tasks: Sequence[types.Task], key, *, budget: int,
         value: found_lib.Value, width: int = 4, branch: int = 4, depth: int = 8,
         stop: tuple[str, ...] = ("\n",), step_tokens: int = 0, role: str = "policy",
         settings: Mapping | None = None) -> list[list[Found]]:
  """The ended answer of the highest value among all beams; before one has ended, the best open one.

  From every open partial answer `branch` steps are sampled; the `width` best by value stay open. A
  beam in which nothing is open begins anew with other draws, until the budget is spent: tasks
  advance together.

  Args:
    budget: tokens per task; no level begins once they are spent.
    value: of partial and whole answers, clipped to [0, 1]. In an evaluation it must not know the
      reference answer.
    depth, stop, step_tokens: see `steps.Steps`. role: who answers.

  Returns:
    Per task, a `Found` after every level.
  """
  sampler = samplers[role]
  steps = steps_lib.Steps(sampler, key, value, depth=depth, stop=stop, step_tokens=step_tokens,
                          settings=settings)
  beams = [_Beam(task, i, sampler) for i, task in enumerate(tasks)]
  while going := [b for b in beams if b.tokens < budget]:
    made = [b.fork(branch) for b in going]
    flat = [d for ds in made for d in ds]
    texts, spent = steps.advance(flat)
    rows = list(zip(flat, texts, spent, steps.values(flat)))
    for b, ds in zip(going, made):
      mine, rows = rows[:len(ds)], rows[len(ds):]
      b.tokens += max(sum(tokens for _, _, tokens, _ in mine), 1)
      b.keep(ds, [r[1] for r in mine], [float(r[3]) for r in mine], width)
  for b in beams:
    for d in b.open:
      d.release()
  return [b.found for b in beams]
