"""One task set made of several."""

import bisect
import collections
import dataclasses
import itertools
from collections.abc import Callable, Mapping

from rljax.data.tasks import TaskSet


def mixture(*, sets: Mapping[str, Callable], key: str = "category") -> TaskSet:
  """Several task sets, one behind the other; a task's `info[key]` is the name of its set.

  Args:
    sets: name -> leaf of a task set: {"2": fn("rljax.data.tasks:countdown", numbers=2), ...}.

  Raises:
    ValueError: no sets.
  """
  if not sets:
    raise ValueError("mixture: no sets")
  made = {name: make() for name, make in sets.items()}
  names = list(made)
  ends = list(itertools.accumulate(len(made[n]) for n in names))

  def task(i):
    part = bisect.bisect_right(ends, i)
    found = made[names[part]][i - (ends[part - 1] if part else 0)]
    return dataclasses.replace(found, id=f"{names[part]}/{found.id}",
                               info={**found.info, key: names[part]})

  counts = collections.Counter()
  for tasks in made.values():
    counts.update(tasks.counts)
  return TaskSet(task, ends[-1], counts=counts)
