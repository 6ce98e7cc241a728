"""Which tasks come next: draw / update over a JSON state, which goes into the checkpoint."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config, rng
from rljax.types import Task


@dataclasses.dataclass(frozen=True)
class Curriculum:
  """Pure functions over a JSON state. A leaf makes one from the run's task set.

  Attributes:
    init: () -> state.
    draw: (state, seed, k) -> (k task indices, state).
    update: (state, indices, rewards) -> state; per drawn task the finite rewards of its samples.
    metrics: state -> numbers for the log, by name.
  """

  init: Callable[[], dict]
  draw: Callable[[dict, int, int], tuple[list[int], dict]]
  update: Callable = lambda state, indices, rewards: state
  metrics: Callable[[dict], Mapping[str, float]] = lambda state: {}


def shuffled(tasks: Sequence[Task]) -> Curriculum:
  """Every task once per epoch, each epoch in a new order drawn from the seed."""
  n = len(tasks)

  def draw(state, seed, k):
    at, out = state["cursor"], np.empty(k, np.int64)
    for epoch in range(at // n, (at + k - 1) // n + 1):
      order = rng.host(seed, "epoch", epoch).permutation(n)
      lo, hi = max(at, epoch * n), min(at + k, (epoch + 1) * n)
      out[lo - at:hi - at] = order[lo - epoch * n:hi - epoch * n]
    return out.tolist(), {**state, "cursor": at + k}

  return Curriculum(lambda: {"cursor": 0}, draw)


def ordered(tasks: Sequence[Task]) -> Curriculum:
  """The tasks in file order, again and again."""
  def draw(state, seed, k):
    at = state["cursor"]
    return [(at + i) % len(tasks) for i in range(k)], {**state, "cursor": at + k}

  return Curriculum(lambda: {"cursor": 0}, draw)


def blocks(tasks: Sequence[Task], *, steps: int, order: tuple = (), keys: tuple = ("category",),
           reverse: bool = False) -> Curriculum:
  """One category after the other, each for an equal block of steps; within it, by chance.

  Easy to hard with the easy ones first in `order`, hard to easy with `reverse`.

  Args:
    steps: of the whole run; later ones stay in the last block.
    order: the categories; () = sorted.
    keys: of `Task.info`; several make one category of each pair that occurs ("a/b").

  Raises:
    ConfigError: a task without the key, or an order that is not that of the task set's categories.
  """
  members = categories(tasks, keys)
  names = [str(c) for c in order] or sorted(members, key=_natural)
  if sorted(names) != sorted(members):
    raise config.ConfigError(f"curriculum: the order {names} is not of the categories "
                             f"{sorted(members)}")
  names = names[::-1] if reverse else names

  def draw(state, seed, k):
    name = names[min(state["step"] * len(names) // steps, len(names) - 1)]
    drawn = _uniform(members, [name] * k, seed, state["draws"])
    return drawn, {**state, "draws": state["draws"] + 1}

  return Curriculum(lambda: {"step": 0, "draws": 0}, draw,
                    lambda state, indices, rewards: {**state, "step": state["step"] + 1})


def bandit(tasks: Sequence[Task], *, keys: tuple = ("category",), lr: float = 0.5,
           temperature: float = 1.0, gain: str = "advantage", std: bool = True, eps: float = 1e-6,
           unsampled: str = "decay", floor: float = 0.0) -> Curriculum:
  """Categories as arms of a non-stationary bandit (SEC, arXiv:2505.14970).

  For every slot of a batch a category is drawn from softmax(Q / temperature), then one of its tasks
  uniformly. After the rewards, Q <- (1 - lr) Q + lr r, where the r of a category is the mean over
  its samples of |A|, the group-relative advantage; groups whose rewards are all equal count as 0.
  Its metrics: `p/<category>`, the least of them `min_p`, `p_half` of the category whose last mean
  reward is nearest 1/2, and `level`, the expected one where the names end in numbers.

  Args:
    gain: "advantage"; or "progress", the change of the category's mean reward.
    std: whether A is divided by the group's (population) standard deviation.
    unsampled: an arm of which nothing was drawn: "decay" takes r = 0, "hold" leaves its Q.
    floor: least probability of an arm; 0 = as in the paper, where an arm can starve
      (`curriculum/min_p` shows it).
    keys: of `Task.info`; several make one arm of each pair that occurs ("a/b").

  Raises:
    ConfigError: a task without the key, or a setting out of range.
  """
  members = categories(tasks, keys)
  names = sorted(members, key=_natural)
  of = {i: name for name, indices in members.items() for i in indices}
  if gain not in ("advantage", "progress") or unsampled not in ("decay", "hold"):
    raise config.ConfigError(f"curriculum: gain={gain!r} ('advantage' or 'progress'), "
                             f"unsampled={unsampled!r} ('decay' or 'hold')")
  if not 0 < lr <= 1 or not temperature > 0 or not 0 <= floor * len(names) <= 1:
    raise config.ConfigError(f"curriculum: lr={lr} (in (0, 1]), temperature={temperature} (> 0), "
                             f"floor={floor} (at most 1 / {len(names)} categories)")

  def probabilities(state):
    q = np.array([state["q"][n] for n in names]) / temperature
    p = np.exp(q - q.max())
    return floor + (1 - floor * len(names)) * p / p.sum()

  def draw(state, seed, k):
    generator = rng.host(seed, "bandit", state["draws"])
    chosen = [names[c] for c in generator.choice(len(names), k, p=probabilities(state))]
    return _uniform(members, chosen, seed, state["draws"]), {**state, "draws": state["draws"] + 1}

  def update(state, indices, rewards):
    found: dict[str, list[float]] = {}
    for i, r in zip(indices, rewards, strict=True):
      found.setdefault(of[i], []).extend(_gains(np.asarray(r, float), std, eps)
                                         if gain == "advantage" else r)
    q, seen = dict(state["q"]), dict(state["seen"])
    for name in names:
      if found.get(name):
        mean = float(np.mean(found[name]))
        r = mean if gain == "advantage" else mean - seen.get(name, mean)
        seen[name] = mean
      elif unsampled == "decay":
        r = 0.0
      else:
        continue
      q[name] = (1 - lr) * q[name] + lr * r
    return {**state, "q": q, "seen": seen}

  levels = [_level(n) for n in names]

  def metrics(state):
    p, seen = probabilities(state), state["seen"]
    out = {"min_p": float(p.min()), **{f"p/{n}": float(x) for n, x in zip(names, p)}}
    if None not in levels:
      out["level"] = float(p @ np.asarray(levels))
    if len(seen) == len(names):
      out["p_half"] = float(p[np.argmin([abs(seen[n] - 0.5) for n in names])])
    return out

  return Curriculum(lambda: {"q": dict.fromkeys(names, 0.0), "seen": {}, "draws": 0}, draw, update,
                    metrics)


def band(tasks: Sequence[Task], *, low: float = 0.1, high: float = 0.9, decay: float = 0.5,
         retry: float = 0.1) -> Curriculum:
  """Tasks that are neither hopeless nor solved: those whose running mean reward lies in the band.

  Tasks not tried yet are taken first, in an order drawn from the seed, then those in the band by
  chance; a share `retry` of a batch, and what the band cannot fill, comes from the others.

  Args:
    low, high: the band, both included. decay: weight of a task's earlier mean at an update.
  """
  if not low <= high or not 0 <= decay < 1 or not 0 <= retry <= 1:
    raise config.ConfigError(f"curriculum: low={low} <= high={high}, decay={decay} in [0, 1), "
                             f"retry={retry} in [0, 1]")
  n = len(tasks)

  def draw(state, seed, k):
    generator = rng.host(seed, "band", state["draws"])
    at, means = state["cursor"], state["means"]
    out = rng.host(seed, "band order").permutation(n)[at:at + k].tolist()
    inside = [int(i) for i, m in means.items() if low <= m <= high]
    others = [int(i) for i, m in means.items() if not low <= m <= high]
    again = generator.random(k - len(out)) < retry
    for other in again:
      pool = (others or inside) if other or not inside else inside
      out.append(int(generator.choice(pool)) if pool else int(generator.integers(n)))
    return out, {**state, "cursor": min(at + k, n), "draws": state["draws"] + 1}

  def update(state, indices, rewards):
    means = dict(state["means"])
    for i, r in zip(indices, rewards, strict=True):
      if len(r):
        new = float(np.mean(r))
        means[str(i)] = decay * means[str(i)] + (1 - decay) * new if str(i) in means else new
    return {**state, "means": means}

  def metrics(state):
    means = list(state["means"].values())
    return {"inside": float(np.mean([low <= m <= high for m in means])) if means else 0.0}

  return Curriculum(lambda: {"cursor": 0, "draws": 0, "means": {}}, draw, update, metrics)


def _gains(rewards, std, eps):
  """|A| of each sample of a group; exactly 0 where all are equal."""
  if len(rewards) < 2 or np.all(rewards == rewards[0]):
    return np.zeros(len(rewards))
  gap = np.abs(rewards - rewards.mean())
  return gap / (rewards.std() + eps) if std else gap


def categories(tasks: Sequence[Task], keys: Sequence[str]) -> dict[str, list[int]]:
  """Category -> the indices of its tasks.

  Raises:
    ConfigError: naming the task that lacks a key.
  """
  out: dict[str, list[int]] = {}
  for i, task in enumerate(tasks):
    parts = [task.info.get(k) for k in keys]
    if None in parts:
      raise config.ConfigError(f"curriculum: task {task.id} lacks {', '.join(keys)} in its info")
    out.setdefault("/".join(map(str, parts)), []).append(i)
  return out


def _natural(name: str):
  """Numbers by value, before words."""
  return [(0, float(p), "") if p.replace(".", "", 1).isdigit() else (1, 0.0, p)
          for p in name.split("/")]


def _level(name: str) -> float | None:
  """The number at the end of a category's name ("3", "chain/3"); None if there is none."""
  try:
    return float(name.rpartition("/")[2])
  except ValueError:
    return None


def _uniform(members, names, seed, draws) -> list[int]:
  generator = rng.host(seed, "member", draws)
  return [int(generator.choice(members[name])) for name in names]


def by_task(indices: Sequence[int], groups: Sequence[int], rewards: Sequence[float]
            ) -> list[list[float]]:
  """The finite rewards of each drawn task, in the order of `indices`."""
  out: list[list[float]] = [[] for _ in indices]
  for g, r in zip(groups, rewards):
    if np.isfinite(r) and g < len(out):  # a rollout may add groups of its own (proposed tasks)
      out[g].append(float(r))
  return out
