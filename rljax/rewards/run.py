"""Runs a recipe's rewards over episodes: a fault becomes a NaN that is counted, never a crash."""

import collections
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config as config_lib
from rljax import types

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Context:
  """What a reward may ask for.

  Attributes:
    step: training step. seed: the run's seed (derive randomness with `rljax.rng.host`).
    tokenizer: the run's.
    score: (role, prefixes, continuations) -> list of (logp, entropy) arrays per continuation token.
    sample: (role, prompts, seeds, **settings) -> list of Completions; prompts are token ids.
    value: (role, token ids of whole texts) -> array [n], that role's scalar head at their ends.
    uniform_kl: (role, prefixes, continuations) -> list of arrays, KL(U || p) per token.
    until: time.monotonic() at which a reward should return what it has, NaN for the rest.
    faults: what went wrong with single samples, by kind; filled through `count`.
  """

  step: int
  seed: int
  tokenizer: object
  score: Callable | None = None
  sample: Callable | None = None
  value: Callable | None = None
  uniform_kl: Callable | None = None
  until: float = math.inf
  faults: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def count(ctx: Context | None, kind: str, n: int = 1, *, why: str = "") -> None:
  """Counts faults of single samples (the metric faults/<kind>); logs the first `why` of a kind."""
  with _lock:
    if ctx is not None and n:
      ctx.faults[kind] += n
    new = bool(why) and kind not in _logged
    _logged.update([kind] if new else [])
  if new:
    log.warning("%s (logged once): %s", kind, why)


_lock, _logged = threading.Lock(), set()


def score_all(episodes: Sequence[types.Episode], rewards: Mapping[str, Callable],
              weights: Mapping[str, float], ctx: Context, *, deadline: float = 60.0,
              over: Callable | None = None) -> tuple[list[types.Episode], dict[str, int]]:
  """Adds every reward by name, and their weighted sum as "reward".

  A reward that raises, or is not back after `deadline` seconds, scores NaN for all episodes; one
  that looks at `ctx.until` loses only the samples it has not reached. A NaN in any reward makes
  the episode's "reward" NaN, which keeps it out of the update.

  Args:
    over: of several hosts (`rljax.train.distributed.Hosts.over`), each scores whole groups of its
      own; a reward marked `types.whole` sees all episodes, on one of them.

  Returns:
    The episodes with scores, and counts of faults by kind: "reward_error", "reward_timeout",
    "unscored" (episodes whose combined reward is NaN or infinite), and what `count` counted.

  Raises:
    ConfigError: a reward returned a wrong shape, or no episode could be scored at all.
  """
  over, groups = over or _here, [e.group for e in episodes]
  faults: collections.Counter = collections.Counter()
  reasons = []
  columns = {name: np.zeros(len(episodes)) for name in rewards}
  for whole in (False, True):
    some = {n: r for n, r in rewards.items() if types.is_whole(r) == whole}
    if not some:
      continue
    work = lambda rows, some=some: _columns(some, [episodes[i] for i in rows], ctx, deadline)
    for rows, (found, counted) in over("rewards", groups, work, whole=whole):
      faults.update(counted)
      for name, (values, fault, reason) in found.items():
        columns[name][rows] = values
        faults.update([fault] if fault else [])
        reasons += [reason] if reason else []
  total = np.zeros(len(episodes))
  for name, values in columns.items():
    total = total + weights.get(name, 1.0) * values
  bad = ~np.isfinite(total)
  if bad.any():
    faults["unscored"] = int(bad.sum())
  if rewards and len(episodes) and bad.all():
    broken = next((n for n, v in columns.items() if not np.isfinite(v).any()), "the sum")
    raise config_lib.ConfigError(
        f"step {ctx.step}: none of {len(episodes)} episodes could be scored; "
        + (reasons[0] if reasons else f"reward {broken!r} is NaN or infinite for all of them"))
  out = []
  for i, e in enumerate(episodes):
    scores = {**e.scores, **{n: float(v[i]) for n, v in columns.items()}}
    if rewards:
      scores["reward"] = float("nan") if bad[i] else float(total[i])
    out.append(dataclasses.replace(e, scores=scores))
  return out, dict(faults)


def _here(name, groups, work, *, whole):
  """Everything at once, in this process."""
  del name, whole
  rows = list(range(len(groups)))
  return [(rows, work(rows))]


def _columns(rewards, episodes, ctx, deadline):
  """(name -> what `_call` says, what was counted meanwhile)."""
  found, counted = {}, collections.Counter()
  for name, reward in rewards.items():
    bounded = dataclasses.replace(
        ctx, until=time.monotonic() + 0.9 * deadline, faults=counted)
    found[name] = _call(name, reward, episodes, bounded, deadline)
    if found[name][2]:
      log.warning(found[name][2])
  with _lock:  # a reward that was given up may still be counting
    return found, dict(counted)


def _call(name, reward, episodes, ctx, deadline):
  """(values [B], fault kind or "", reason)."""
  box = {}

  def work():
    try:
      box["value"] = reward(episodes, ctx)
    except Exception as e:
      box["error"] = e

  nan = np.full(len(episodes), np.nan)
  thread = threading.Thread(target=work, daemon=True, name=f"reward-{name}")
  thread.start()
  thread.join(deadline)
  if thread.is_alive():
    return nan, "reward_timeout", f"reward {name!r} was not back after {deadline:g} s"
  if isinstance(box.get("error"), config_lib.ConfigError):
    raise box["error"]
  if "error" in box:
    e = box["error"]
    return nan, "reward_error", f"reward {name!r} raised {type(e).__name__}: {e}"
  values = np.asarray(box["value"], np.float64)
  if values.shape != (len(episodes),):
    raise config_lib.ConfigError(
        f"reward {name!r} returned shape {values.shape} for {len(episodes)} episodes; "
        f"it must return one number per episode")
  return values, "", ""
