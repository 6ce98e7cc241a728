"""From finished runs to numbers: curves reduced, claims by paired bootstrap, verdicts."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config as config_lib
from rljax.reproduce import papers
from rljax.train import runlog

ConfigError = config_lib.ConfigError

HOLDS, UNCLEAR, FAILS, MISSING = "holds", "unclear", "fails", "not run"
REPRODUCED, NOT, MECHANISM = (
    "reproduced", "not reproduced", "not testable at this scale (mechanism tested)")
LEVEL = 0.05  # mass in each tail outside the interval
RESAMPLES = 4000


@dataclasses.dataclass(frozen=True)
class Run:
  """A finished run: rows of metrics.jsonl, and a reader of per-problem results."""

  workdir: str
  rows: tuple[dict, ...]

  def series(self, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) where the metric was logged and is finite.

    Raises:
      ConfigError: the run never logged it.
    """
    found = [(r["step"], r[metric]) for r in self.rows if metric in r and np.isfinite(r[metric])]
    if not found:
      names = sorted({k for r in self.rows for k in r})
      raise ConfigError(f"{self.workdir}: no metric {metric!r}{config_lib.nearest(metric, names)}")
    steps, values = zip(*found)
    return np.asarray(steps), np.asarray(values, float)

  def problems(self, metric: str, at: str) -> dict[str, float] | None:
    """Share of correct samples per problem, for `eval/<set>/pass_at_1` at start, end or gain.

    Also for `eval/<set>/<value>/pass_at_1`, the problems with one value of `eval.by`. "open" is the
    gain of the problems that no sample solved at the start (new capability), "solved" that of the
    others (pass@k turned into pass@1).

    None for another metric, or if the episodes of that step are no longer there.
    """
    parts = metric.split("/")
    if len(parts) not in (3, 4) or parts[0] != "eval" or parts[-1] != "pass_at_1":
      return None
    value = parts[2] if len(parts) == 4 else None
    steps = self.series(metric)[0]
    both = (steps[0], steps[-1])
    wanted = {"start": both[:1], "end": both[1:], **dict.fromkeys(("gain", "open", "solved"), both)}
    wanted = wanted.get(at)
    if wanted is None:
      return None
    graded = [_graded(self.workdir, parts[1], int(s), value) for s in wanted]
    if len(graded) == 1:
      return graded[0] or None
    keep = {"gain": lambda x: True, "open": lambda x: x == 0, "solved": lambda x: x > 0}[at]
    return {k: graded[1][k] - x for k, x in graded[0].items() if k in graded[1] and keep(x)} or None


def read(workdir) -> Run:
  return Run(str(workdir), tuple(runlog.read_metrics(workdir)))


def _graded(workdir, name, step, value):
  out: dict[str, list] = {}
  for path in runlog.episode_files(workdir):
    for e in runlog.read_episodes(path):
      if e["step"] == step and e["info"].get("phase") == f"eval/{name}" and (
          value is None or e["info"].get("by") == value):
        out.setdefault(e["task"], []).append(float(e["scores"]["correct"]) >= 1 - 1e-6)
  return {k: float(np.mean(v)) for k, v in out.items()}


def reduce(steps: np.ndarray, values: np.ndarray, at: str) -> float:
  """One number for a curve.

  Args:
    steps, values: where it was logged.
    at: "start", "end", "gain" (end - start), "peak" (largest), "fall" (peak - end), "keep" (end /
      peak), "drop" (largest fall from a point to a later one; 0 = never falls), "mean", "last:k" or
      "first:k" (mean of k points), "shift:k" (last:k - first:k), "reach:x" (first step with a value
      of at least x; one more than the last step if there is none). "peak:k", "fall:k" and "keep:k"
      first average over k neighbouring points, for curves whose single values are noise.

  Raises:
    ConfigError: an unknown reduction.
  """
  name, _, arg = at.partition(":")
  if name in ("peak", "fall", "keep") and arg:
    values = np.convolve(values, np.ones(int(arg)) / int(arg), mode="valid")
  rules = {
      "start": lambda: values[0], "end": lambda: values[-1], "gain": lambda: values[-1] - values[0],
      "peak": lambda: values.max(), "fall": lambda: values.max() - values[-1],
      "keep": lambda: values[-1] / max(values.max(), 1e-12),
      "drop": lambda: (np.maximum.accumulate(values) - values).max(), "mean": lambda: values.mean(),
      "last": lambda: values[-int(arg):].mean(), "first": lambda: values[:int(arg)].mean(),
      "shift": lambda: values[-int(arg):].mean() - values[:int(arg)].mean(),
      "reach": lambda: next((s for s, v in zip(steps, values) if v >= float(arg)), steps[-1] + 1)}
  if name not in rules or (not arg and name in ("last", "first", "shift", "reach")) or (
      arg and name in ("start", "end", "gain", "drop", "mean")):
    raise ConfigError(f"unknown reduction {at!r}; one of {', '.join(rules)} (last:k, reach:x)")
  return float(rules[name]())


def value(run: Run, side: papers.Side) -> float:
  """The side's number; "open" and "solved" are gains over a part of the problems: `Run.problems`.

  Raises:
    ConfigError: as `reduce`, or no such problem is logged.
  """
  if side.at not in ("open", "solved"):
    return reduce(*run.series(side.metric), side.at)
  found = run.problems(side.metric, side.at)
  if not found:
    raise ConfigError(f"{run.workdir}: {side.metric} has no {side.at} problems in its episodes")
  return float(np.mean(list(found.values())))


# --- claims ---------------------------------------------------------------------------------------


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
  """The interval of the mean under resampling with replacement; exact for up to five values."""
  x = np.asarray(values, float)
  return _interval(x[_resamples(len(x))].mean(axis=1))


def _resamples(n: int) -> np.ndarray:
  """Indices [resamples, n]."""
  if n <= 5:
    return np.asarray([*itertools.product(range(n), repeat=n)])
  return np.random.default_rng(n).integers(0, n, (RESAMPLES, n))


def _interval(means):
  return float(np.quantile(means, LEVEL)), float(np.quantile(means, 1 - LEVEL))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
  """The mean of the middle half along the last axis, with fractions of values at its ends.

  https://arxiv.org/abs/2108.13264; four values give the mean of the middle two.
  """
  x = np.sort(np.asarray(values, float), axis=-1)
  n, edges = x.shape[-1], np.arange(x.shape[-1])
  weight = np.clip(np.minimum(edges + 1, 0.75 * n) - np.maximum(edges, 0.25 * n), 0.0, None)
  return (x * weight).sum(axis=-1) / weight.sum()


def judge(claim: papers.Claim, mean: float, low: float, high: float) -> str:
  """HOLDS if the whole interval satisfies the relation, UNCLEAR if only the mean does."""
  def satisfies(x):
    return {">": x > claim.margin, "<": x < -claim.margin,
            "within": abs(x) <= claim.margin}[claim.relation]
  if not satisfies(mean):
    return FAILS
  return HOLDS if satisfies(low) and satisfies(high) else UNCLEAR


def evaluate(claim: papers.Claim, runs: Mapping[str, Mapping[int, Run]]) -> dict:
  """One claim against the runs, by arm and seed.

  Seeds are paired: the difference is taken seed by seed, over the seeds both sides ran. With one
  seed, problems are resampled instead where the metric is an evaluation's pass@1 (paired when both
  sides solved the same set), else there is no interval; `over` says which.
  """
  sides = [s for s in (claim.left, claim.right) if isinstance(s, papers.Side)]
  missing = [s.arm for s in sides if not runs.get(s.arm)]
  shown = {"says": claim.says, "kind": claim.kind, "paper": claim.paper, "rule": rule(claim)}
  if missing:
    return {**shown, "status": MISSING, "left": [], "right": [], "over": "", "seeds": []}
  seeds = sorted(set.intersection(*(set(runs[s.arm]) for s in sides)))
  left = [value(runs[claim.left.arm][s], claim.left) for s in seeds]
  right = [claim.right if not isinstance(claim.right, papers.Side)
           else value(runs[claim.right.arm][s], claim.right) for s in seeds]
  differences, over = [a - claim.times * b for a, b in zip(left, right)], "seeds"
  if len(seeds) == 1:
    low, high, over = _over_problems(claim, {a: r[seeds[0]] for a, r in runs.items()
                                             if seeds[0] in r}, differences[0])
  elif claim.average == "iqm":  # of each side: that of the differences is another thing
    a, b, draws = np.asarray(left), np.asarray(right), _resamples(len(seeds))
    iqm_of = lambda i: interquartile_mean(a[i]) - claim.times * interquartile_mean(b[i])
    low, high = _interval(iqm_of(draws))
    differences = [iqm_of(np.arange(len(seeds)))]
  else:
    low, high = bootstrap(differences)
  mean = float(np.mean(differences))
  return {**shown, "left": left, "right": right, "difference": mean, "interval": [low, high],
          "over": over, "seeds": seeds, "status": judge(claim, mean, low, high)}


def _over_problems(claim, runs, difference):
  graded = [runs[s.arm].problems(s.metric, s.at) if isinstance(s, papers.Side) else s
            for s in (claim.left, claim.right)]
  left, right = graded
  if left is None or right is None:
    return difference, difference, "nothing (one seed)"
  if not isinstance(right, dict):
    return *bootstrap([v - claim.times * right for v in left.values()]), "problems (one seed)"
  right = {k: claim.times * v for k, v in right.items()}
  if set(left) == set(right):
    return *bootstrap([left[k] - right[k] for k in left]), "problems (one seed)"
  (a, b), (c, d) = bootstrap(list(left.values())), bootstrap(list(right.values()))
  half = np.hypot(b - a, d - c) / 2
  return float(difference - half), float(difference + half), "problems (one seed)"


def verdict(claims: Sequence[papers.Claim], results: Sequence[Mapping]) -> str:
  """The paper's verdict; a control or mechanism that fails makes it "not reproduced" too."""
  if any(r["status"] == MISSING for r in results):
    return "incomplete"
  if not all(r["status"] == HOLDS for r in results):
    return NOT
  return REPRODUCED if any(c.kind == "claim" for c in claims) else MECHANISM


def rule(claim: papers.Claim) -> str:
  """The relation as text: "full end - rft end > 0.02 [eval/test/pass_at_1]"."""
  left, right, margin = claim.left, claim.right, claim.margin
  if isinstance(right, papers.Side):
    factor = "" if claim.times == 1 else f"{claim.times:g} "
    shown = f"{left.arm} {left.at} - {factor}{right.arm} {right.at}"
    metric = left.metric if right.metric == left.metric else f"{left.metric}; {right.metric}"
    number = 0.0
  else:
    shown, metric, number = f"{left.arm} {left.at}", left.metric, claim.times * right
  bound = {">": f"> {number + margin:g}", "<": f"< {number - margin + 0.0:g}",
           "within": f"within {number:g} ± {margin:g}"}[claim.relation]
  return f"{shown} {bound} [{metric}{', interquartile mean' * (claim.average == 'iqm')}]"
