"""A price for calls: a right answer is worth less, the more calls it took.

A factor is `(n, m, *, knobs) -> float` in [0, 1]: n calls were made, and m are the fewest that a
right answer to the same task ever took. The family is that of MASH,
https://arxiv.org/abs/2510.01152 (github.com/momergul/mash), and of OTC,
https://arxiv.org/abs/2504.14870.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from rljax import config, types
from rljax.data import memory
from rljax.types import Episode


def exponential(n: int, m: int, *, base: float = 0.5) -> float:
  """base^(n - m)."""
  return base ** (n - m)


def otc(n: int, m: int, *, strict: bool = False) -> float:
  """1 if f = 0, cos(n pi / (2n + 5)) if m = 0, else sin(f pi / (2m)).

  f = n if m = 0 (0 where n = 0, too), else 2nm / (n + m).

  Args:
    strict: where no call was needed once (m = 0), any call is worth 0.
  """
  if m == 0:
    return 1.0 if n == 0 else 0.0 if strict else math.cos(n * math.pi / (2 * n + 5))
  f = 2 * n * m / (n + m)
  return 1.0 if f == 0 else math.sin(f * math.pi / (2 * m))


def linear(n: int, m: int, *, most: int = 6) -> float:
  """max(0, 1 - n / most), whatever m is."""
  del m
  return max(0.0, 1.0 - n / most)


def paid(reward: float, n: int, m: float, factor: Callable[[int, int], float]) -> float:
  """reward * factor(n, m); 0 for a reward of 0: a wrong answer is never worse than none.

  Raises:
    ValueError: a positive reward, and m is infinite: no right answer was counted.
  """
  if not reward > 0:
    return reward
  if math.isinf(m):
    raise ValueError("a right answer is to be paid, and none was counted")
  return reward * factor(n, int(m))


def least(before: float, calls: Sequence[int], *, confirm: int = 1) -> float:
  """The new minimum, from that before (infinite at first) and the calls of new right answers.

  Args:
    confirm: only so many right answers with at most n calls lower it to n. A first one sets it
      all the same, to the most calls that any of them took.
  """
  calls = sorted(calls)
  if len(calls) >= confirm:
    return min(before, calls[confirm - 1])
  return min(before, calls[-1]) if calls and math.isinf(before) else before


def per_call(*, factor: Callable, key: str = "calls", confirm: int = 1, score: str = "reward"
             ) -> memory.Memory:
  """A memory that turns the score rho into rho * factor(n, m).

  m is kept per task (by id) over all episodes ever seen with rho > 0, those of the step itself
  first. An episode that failed or has no score neither counts nor is paid. Metrics: `tasks`, how
  many have a minimum; `mean`, of these minima; `free`, the share of those that are 0.

  Args:
    factor: leaf of a factor.
    key: entry of `Episode.info`, the calls n; none is 0.
    confirm: see `least`.
    score: what is paid, and then the reward.

  Raises:
    ConfigError: confirm < 1.
  """
  if confirm < 1:
    raise config.ConfigError(f"pay:per_call: confirm={confirm}; at least 1")

  def update(state: Mapping[str, int], episodes: Sequence[Episode], ctx=None):
    del ctx
    right: dict[str, list[int]] = {}
    for e in episodes:
      if e.status != types.ERROR and e.scores.get(score, math.nan) > 0:
        right.setdefault(e.task.id, []).append(int(e.info.get(key, 0)))
    state = dict(state)
    for name, calls in right.items():
      found = least(state.get(name, math.inf), calls, confirm=confirm)
      if not math.isinf(found):
        state[name] = int(found)
    return state, [_paid(e, state.get(e.task.id, math.inf)) for e in episodes]

  def _paid(e, m):
    rho = e.scores.get(score, math.nan)
    if e.status == types.ERROR:
      return e
    reward = paid(rho, int(e.info.get(key, 0)), m, factor)
    return dataclasses.replace(e, scores={**e.scores, "unpaid": rho, "reward": reward})

  def metrics(state):
    known = list(state.values())
    return {"tasks": float(len(known)), **({"mean": sum(known) / len(known), "free": sum(
        m == 0 for m in known) / len(known)} if known else {})}

  return memory.Memory(dict, update, metrics)
