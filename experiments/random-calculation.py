"""RandomCalculation: the dense reward counts in the asked format only, as the paper's box does."""

import re
from collections.abc import Sequence

import numpy as np

from rljax.rewards import verify
from rljax.types import Episode

PLAIN = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def plain_dense(episodes: Sequence[Episode], ctx) -> np.ndarray:
  """`verify.dense_number` where the response is a plain number and nothing else, else 0.

  r = 1 - 0.5 min(|a - b|, 1) - 0.5 min(|a - b| / (|b| + 1e-6), 1), unparsable 0;
  https://arxiv.org/abs/2507.10532. The other format of the base, "[42]", is unparsable.
  """
  plain = [PLAIN.fullmatch(e.response) is not None for e in episodes]
  return np.where(plain, verify.dense_number(episodes, ctx), 0.0)
