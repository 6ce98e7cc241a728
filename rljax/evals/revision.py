"""What a second attempt changes: SCoRe's metrics, https://arxiv.org/abs/2409.12917, section 3."""

from collections.abc import Callable, Sequence

import numpy as np

from rljax.rewards import turns
from rljax.types import Episode


def measure(episodes: Sequence[Episode], problems: int, ctx, *, grade: Callable,
            final: Callable[[str], str] | None = None) -> dict[str, float]:
  """Metrics over all episodes, as shares of all of them.

  `first` and `last`: right at the first and at the last attempt (Acc@t1, Acc@t2); `delta` = last -
  first; `fixed`: wrong, then right; `broken`: right, then wrong; `edited`: the last answer differs
  from the first; `edited_wrong`: that, among those whose first attempt was wrong. An episode whose
  first attempt was cut has no second, which counts as wrong and not edited.

  Args:
    grade: leaf of a reward, asked for each attempt alone.
    final: leaf of `text of an attempt -> its answer`; what it drops is no edit. None = the text.
  """
  del problems
  final = final or str.strip
  answers = [[final(t.text) for t in e.turns if t.role == "assistant"] for e in episodes]
  first, last = (turns.attempt(episodes, ctx, grade=grade, number=k) >= 0.5 for k in (0, 1))
  edited = np.array([len(a) > 1 and a[0] != a[1] for a in answers])
  share = lambda x: float(np.mean(x)) if len(x) else float("nan")
  return {"first": share(first), "last": share(last), "delta": share(last) - share(first),
          "fixed": share(~first & last), "broken": share(first & ~last), "edited": share(edited),
          "edited_wrong": share(edited[~first])}
