"""The line on the terminal that says how far a run is."""

import math
import shutil
import sys
import time
from collections.abc import Mapping


class Progress:
  """One line that overwrites itself on a terminal, else a plain line every so many seconds."""

  SHOWN = (("reward", ("reward/mean",), ".3f"), ("length", ("episode/length",), ".1f"),
           ("entropy", ("policy/entropy",), ".3f"), ("kl", ("kl/ref", "kl/behav"), ".4f"),
           ("grad", ("grad/norm",), ".3g"))

  def __init__(self, total_steps: int, *, every_seconds: float = 10.0, stream=None,
               clock=time.monotonic):
    self._total = total_steps
    self._stream = stream or sys.stderr
    self._every = every_seconds
    self._clock = clock
    self._first = None  # (time, step) of the first update: what came before it is compilation
    self._printed = -math.inf
    self._tty = bool(getattr(self._stream, "isatty", lambda: False)())
    self._width = 0
    self._line = None

  def update(self, done: int, scalars: Mapping[str, float]) -> None:
    """`done` steps of the total are finished; `scalars` as in `RunLog.metrics`."""
    now = self._clock()
    self._first = self._first or (now, done)
    self._line = self.line(done, scalars, now)
    if self._tty:
      line = self._line[:max(20, shutil.get_terminal_size().columns - 1)]
      self._write("\r" + line.ljust(self._width))
      self._width = len(line)
    elif now - self._printed >= self._every or done >= self._total:
      self._write(self._line + "\n")
      self._printed, self._line = now, None

  def note(self, text: str) -> None:
    """A line of its own, above the progress line."""
    self._write(("\r" + text.ljust(self._width) if self._tty else text) + "\n")
    self._width = 0

  def close(self) -> None:
    """Ends the line; off a terminal, prints the last one if it was held back."""
    if self._tty and self._width:
      self._write("\n")
    elif not self._tty and self._line:
      self._write(self._line + "\n")
    self._width, self._line = 0, None

  def line(self, done: int, scalars: Mapping[str, float], now: float) -> str:
    start, first = self._first
    eta = (_duration((self._total - done) * (now - start) / (done - first)) if done > first
           else "0s" if done >= self._total else "?")
    numbers = []
    for label, names, form in self.SHOWN:
      # With several updates in a step a name is "<update>/grad/norm": the first of them.
      found = [k for n in names for k in (n, *sorted(scalars)) if k in scalars
               and (k == n or k.endswith(f"/{n}"))]
      value = scalars[found[0]] if found else None
      numbers.append(f"{label} {'-' if value is None else format(float(value), form)}")
    width = len(str(self._total))
    return f"step {done:>{width}}/{self._total}  eta {eta}  " + "  ".join(numbers)

  def _write(self, text):
    self._stream.write(text)
    self._stream.flush()


def _duration(seconds: float) -> str:
  s = max(0, round(seconds))
  if s < 60:
    return f"{s}s"
  return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"
