"""Rewards made of rewards: shaped, gated, weighed against each other.

A reward that these read is a leaf: `fn("rljax.rewards.shaping:sigmoid",
reward=fn("rljax.rewards.model:score", role="rm"))`. NaN stays NaN: what could not be scored cannot
be shaped. What looks at reference responses or at earlier steps is in `rljax.rewards.shapes`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config
from rljax.rewards import shapes
from rljax.types import Episode


def _values(reward, episodes, ctx) -> np.ndarray:
  return np.asarray(reward(episodes, ctx), np.float64)


def groups(episodes: Sequence[Episode]) -> dict[int, list[int]]:
  """Rows of the batch by `Episode.group`."""
  out: dict[int, list[int]] = {}
  for i, e in enumerate(episodes):
    out.setdefault(e.group, []).append(i)
  return out


def clip(episodes: Sequence[Episode], ctx, *, reward: Callable, low: float = -np.inf,
         high: float = np.inf, shift: float = 0.0) -> np.ndarray:
  """clip(reward - shift, low, high). "Clip" of https://arxiv.org/abs/2410.15115 is high = 0."""
  return np.clip(_values(reward, episodes, ctx) - shift, low, high)


def sigmoid(episodes: Sequence[Episode], ctx, *, reward: Callable, slope: float = 1.0
            ) -> np.ndarray:
  """sigmoid(slope * reward): the probability that a classifier's logit stands for."""
  return shapes.sigmoid(slope * _values(reward, episodes, ctx))


def centre(episodes: Sequence[Episode], ctx, *, reward: Callable) -> np.ndarray:
  """reward - its mean over the group (NaN left out of the mean). Equal to `reward` for a group
  baseline; a critic or a batch baseline sees the difference."""
  r = _values(reward, episodes, ctx)
  for rows in groups(episodes).values():
    known = r[rows][np.isfinite(r[rows])]
    r[rows] -= known.mean() if len(known) else 0.0
  return r


def gate(episodes: Sequence[Episode], ctx, *, reward: Callable, by: Callable,
         threshold: float = 0.5, below: float = 0.0) -> np.ndarray:
  """`reward` where the reward `by` is at least `threshold`, else `below`."""
  g = _values(by, episodes, ctx)
  out = np.where(g >= threshold, _values(reward, episodes, ctx), below)
  return np.where(np.isnan(g), np.nan, out)


def three_levels(episodes: Sequence[Episode], ctx, *, reward: Callable, formatted: Callable,
                 wrong: float = -0.5, broken: float = -1.0) -> np.ndarray:
  """The reward where it is above 0, `wrong` where it is not, `broken` where `formatted` is below
  1/2: Absolute Zero's composite, https://arxiv.org/abs/2505.03335, equation 6."""
  r, form = _values(reward, episodes, ctx), _values(formatted, episodes, ctx)
  out = np.where(form < 0.5, broken, np.where(r > 0, r, wrong))
  return np.where(np.isnan(r) | np.isnan(form), np.nan, out)


def linear(episodes: Sequence[Episode], ctx, *, reward: Callable, scale: float = 1.0,
           offset: float = 0.0) -> np.ndarray:
  """scale * reward + offset: scale 2 and offset -1 turn {0, 1} into {-1, 1}."""
  return scale * _values(reward, episodes, ctx) + offset


def geometric_gate(episodes: Sequence[Episode], ctx, *, bottom: Mapping[str, Callable],
                   utility: Mapping[str, Callable], weights: Mapping[str, float] | None = None,
                   delta: float = 0.01) -> np.ndarray:
  """exp(mean_i log((s_i + delta) / (1 + delta))) times the weighted mean of the utilities.

  SearchLLM: every reward of `bottom` must hold before behaviour pays. All are in [0, 1].

  Args:
    bottom, utility: rewards by name. weights: of utilities, 1 where absent.

  Raises:
    ConfigError: nothing in `bottom` or `utility`, or a weight that is not positive.
  """
  weights = {name: (weights or {}).get(name, 1.0) for name in utility}
  if not bottom or not utility or min(weights.values()) <= 0:
    raise config.ConfigError("geometric_gate needs rewards in both parts and positive weights")
  s = np.stack([_values(r, episodes, ctx) for r in bottom.values()])
  u = sum(w * _values(utility[n], episodes, ctx) for n, w in weights.items())
  return np.exp(np.log((s + delta) / (1 + delta)).mean(0)) * u / sum(weights.values())


def trusted(episodes: Sequence[Episode], ctx, *, outcome: Callable, thinking: Callable,
            alpha: float = 0.3, horizon: float = 1500.0) -> np.ndarray:
  """R = r_o + gamma alpha exp(-step / horizon) r_t, https://arxiv.org/abs/2505.17018.

  gamma = 1 if the mean thinking reward of the group's right responses (r_o >= 0.5) is at least that
  of its wrong ones, else exp(their difference); 1 where a group has only one kind.
  """
  o, t = _values(outcome, episodes, ctx), _values(thinking, episodes, ctx)
  out = o.copy()
  for rows in map(np.asarray, groups(episodes).values()):
    right = o[rows] >= 0.5
    gamma = 1.0
    if right.any() and not right.all():
      gamma = min(1.0, float(np.exp(t[rows][right].mean() - t[rows][~right].mean())))
    out[rows] += gamma * alpha * np.exp(-ctx.step / horizon) * t[rows]
  return out


def anneal(episodes: Sequence[Episode], ctx, *, reward: Callable, start: float = 1.0,
           end: float = 0.0, steps: int) -> np.ndarray:
  """The reward times a factor that goes in a line from `start` to `end` over the first `steps`."""
  done = min(ctx.step / steps, 1.0)
  return (start + (end - start) * done) * _values(reward, episodes, ctx)


def step_deltas(scores: np.ndarray, *, alpha: float = 1.0) -> np.ndarray:
  """Step rewards of process scores p_1..p_K whose returns do not grow with the number of steps.

  "Delta" of https://arxiv.org/abs/2410.15115: d_k = alpha (p_k - p_{k+1}) for k < K - 1,
  d_{K-1} = alpha p_{K-1}, d_K = 0 (the last step is paid by the outcome). Clip first for both.

  Args:
    scores: float [K].
  """
  scores = np.asarray(scores, np.float64)
  if not len(scores):
    return scores
  p = np.append(scores[:-1], 0.0)
  return alpha * np.append(p[:-1] - p[1:], 0.0)
