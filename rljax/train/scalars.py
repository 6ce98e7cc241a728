"""Numbers of a step: what its episodes look like, and how long its parts took."""

import time

import numpy as np

from rljax import types


def nest(flat, sets):
  """One evaluation set: its metrics; several: one dict per set."""
  names = list(sets)
  out = {n: {k[len(n) + 1:]: v for k, v in flat.items() if k.startswith(n + "/")} for n in names}
  return out[names[0]] if len(names) == 1 else out


def of_episodes(episodes) -> dict[str, float]:
  """reward/*, episode/*: what a batch of episodes looks like."""
  out = {"episode/length": float(np.mean([e.num_actions for e in episodes])),
         "episode/truncated": float(np.mean([e.status == types.LENGTH for e in episodes])),
         "episode/turns": float(np.mean([sum(t.role == "assistant" for t in e.turns)
                                         for e in episodes])),
         "episode/errors": float(np.mean([e.status == types.ERROR for e in episodes]))}
  names = sorted({n for e in episodes for n in e.scores})
  for name in names:
    values = np.asarray([e.scores.get(name, np.nan) for e in episodes], float)
    known = values[np.isfinite(values)]
    if len(known):
      out["reward/mean" if name == "reward" else f"reward/{name}"] = float(known.mean())
  if "reward" in names:
    groups: dict[int, list] = {}
    for e in episodes:
      if np.isfinite(e.scores["reward"]):
        groups.setdefault(e.group, []).append(e.scores["reward"])
    stds = [float(np.std(g)) for g in groups.values()]
    out["reward/std"] = float(np.mean(stds)) if stds else 0.0
    out["reward/zero_std_groups"] = float(np.mean([s == 0 for s in stds])) if stds else 0.0
  return out


class Clock:
  """Wall time of the parts of a step, in seconds."""

  def __init__(self):
    self._start = self._last = time.perf_counter()
    self._laps: dict[str, float] = {}

  def lap(self, name):
    """What has passed since the last one belongs to `name`."""
    now = time.perf_counter()
    self._laps[name] = self._laps.get(name, 0.0) + now - self._last
    self._last = now

  def total(self):
    return time.perf_counter() - self._start

  def scalars(self):
    return {"time/step": self.total(), **{f"time/{k}": v for k, v in self._laps.items()}}
