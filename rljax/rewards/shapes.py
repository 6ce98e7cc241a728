"""Shapes of a reward-model score, all behind one interface, for `rljax.data.memory:shaped`.

`shape(r_B, refs_BM, stats, *, knobs) -> float64 [B]`: r_B scores of the policy's responses, refs_BM
scores of M reference responses to the same prompt by the same model, stats the running `Stats` of
all scores so far, these included. NaN stays NaN. The family is that of PAR,
https://arxiv.org/abs/2502.18770 (github.com/PorUna-byte/PAR).
"""

from typing import NamedTuple

import numpy as np

from rljax import config


class Stats(NamedTuple):
  """Of all scores so far: how many, mean, standard deviation (population), least and largest."""

  n: int = 0
  mean: float = 0.0
  std: float = 0.0
  low: float = np.inf
  high: float = -np.inf

  def add(self, r_B: np.ndarray) -> "Stats":
    """These statistics with the finite numbers of r_B, by the parallel form of Welford's sums."""
    x = np.asarray(r_B, np.float64)
    x = x[np.isfinite(x)]
    if not len(x):
      return self
    n = self.n + len(x)
    gap = x.mean() - self.mean
    squares = self.n * self.std**2 + len(x) * x.var() + gap**2 * self.n * len(x) / n
    return Stats(n, float(self.mean + gap * len(x) / n), float(np.sqrt(squares / n)),
                 float(min(self.low, x.min())), float(max(self.high, x.max())))


def sigmoid(x):
  """1 / (1 + exp(-x)) without overflow."""
  return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x)))


def _cubic(x):
  """An odd polynomial about 1/2 with the sigmoid's slope of 1/4 at 0, flat from |x| = 3 on."""
  u = np.clip(np.asarray(x) / 3.0, -1.0, 1.0)
  return 0.5 + 0.25 * (3.0 * u - u**3)


FORMS = {"sigmoid": sigmoid, "tanh": np.tanh, "polynomial": _cubic}


def bounded(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats, *, form: str = "sigmoid",
            slope: float = 1.0, shift: float = 0.0, centred: bool = True) -> np.ndarray:
  """PAR: (1/M) sum_m f(slope (r - r_m - shift)); uncentred: f(slope (r - shift)).

  With the sigmoid it is the probability that the response beats a reference (for Bradley-Terry).
  The mean of sigmoids is not the sigmoid of the mean. A shift of 3 is the paper's negative example:
  slow growth first, then convergence.

  Args:
    form: "sigmoid" or "polynomial", in [0, 1], or "tanh", in [-1, 1].
    slope: k of the paper. shift: where the slope is largest, above the reference.
    centred: False leaves the references out.

  Raises:
    ConfigError: an unknown form.
  """
  if form not in FORMS:
    raise config.ConfigError(f"shapes:bounded: form={form!r}; one of {', '.join(FORMS)}")
  if not centred:
    return FORMS[form](slope * (r_B - shift))
  return FORMS[form](slope * (r_B[:, None] - refs_BM - shift)).mean(axis=1)


def vanilla(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats) -> np.ndarray:
  """r."""
  return r_B


def centred(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats) -> np.ndarray:
  """r - mean_m r_m: the same advantage as r under any baseline of the prompt's own group."""
  return r_B - refs_BM.mean(axis=1)


def mean_std(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats, *, eps: float = 1e-8
             ) -> np.ndarray:
  """(r - mean) / (std + eps), running: affine, so nothing is left of it in GRPO's advantage."""
  return (r_B - stats.mean) / (stats.std + eps)


def clip(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats, *, width: float = 1.0) -> np.ndarray:
  """clip(r, mean - width std, mean + width std), running."""
  return np.clip(r_B, stats.mean - width * stats.std, stats.mean + width * stats.std)


def min_max(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats) -> np.ndarray:
  """(r - least) / (largest - least), running; 1/2 while all scores so far are equal."""
  span = stats.high - stats.low
  if not span > 0:
    return np.where(np.isfinite(r_B), 0.5, np.nan)
  return (r_B - stats.low) / span


def ceiling(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats, *, high: float) -> np.ndarray:
  """min(r, high)."""
  return np.minimum(r_B, high)


def log_sigmoid(r_B: np.ndarray, refs_BM: np.ndarray, stats: Stats, *, quantile: float = 0.85
                ) -> np.ndarray:
  """LSC: log sigmoid(r - q), q the quantile of the prompt's reference scores.

  https://arxiv.org/abs/2402.00742, as -softplus(q - r).
  """
  with np.errstate(invalid="ignore"):  # NaN in, NaN out
    return -np.logaddexp(0.0, np.quantile(refs_BM, quantile, axis=1) - r_B)
