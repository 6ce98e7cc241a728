"""Episodes for tests of rewards."""

import numpy as np

from rljax.types import STOP, Episode, Task, Turn


def episode(text="", *, tokens=None, answer=None, group=0, prompt="q", info=None, name="t",
            status=STOP):
  """One prompt and one response; `tokens` is a number of tokens or the tokens themselves."""
  tokens = len(text) if tokens is None else tokens
  ids = np.arange(tokens) if np.isscalar(tokens) else np.asarray(tokens)
  task = Task(name, prompt, answer=answer, info=info or {})
  turns = (Turn("user", np.arange(3, dtype=np.int32), text=prompt),
           Turn("assistant", ids.astype(np.int32), text=text))
  return Episode(task, turns, group, status=status)


def given(values):
  """A reward that has these values."""
  return lambda episodes, ctx: np.asarray(values, np.float64)[:len(episodes)]
