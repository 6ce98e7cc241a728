"""Told to leave: SIGTERM, or the maintenance notice of a Google Cloud machine.

The loop asks after every step and, once told, writes a checkpoint and ends; the same command in
the same run folder goes on from there.
"""

import contextlib
import pathlib
import signal
import threading
import urllib.request
from collections.abc import Iterator

EXIT_CODE = 128 + signal.SIGTERM  # of a command that ended so: not an error, run it again

_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/"
_EVENTS = {"maintenance-event": "NONE", "preempted": "FALSE"}  # and what they say in quiet times
_MACHINE = pathlib.Path("/sys/class/dmi/id/product_name")


class Preempted(Exception):
  """The run was told to leave and has written a checkpoint."""


class Notice:
  """`reason`: why the run is to end; "" = it is not."""

  def __init__(self):
    self.reason = ""

  def tell(self, reason: str) -> None:
    self.reason = self.reason or reason


@contextlib.contextmanager
def notice() -> Iterator[Notice]:
  """Listens for the time of a run. A second SIGTERM ends the process at once, as without this.

  Outside the main thread no signal can be heard, only the machine's notice.
  """
  told = Notice()

  def on_signal(number, frame):
    del frame
    told.tell(signal.Signals(number).name)
    signal.signal(number, signal.SIG_DFL)
  main = threading.current_thread() is threading.main_thread()
  before = signal.signal(signal.SIGTERM, on_signal) if main else None
  stop = threading.Event()
  if on_google_cloud():
    threading.Thread(target=watch, args=(told, stop), daemon=True).start()
  try:
    yield told
  finally:
    stop.set()
    if main:
      signal.signal(signal.SIGTERM, before)


def watch(told: Notice, stop: threading.Event, *, ask=None, every: float = 5.0) -> None:
  """Asks the machine's metadata server until it announces an end; what it cannot say is no end.

  Args:
    ask: name of an event -> its text; raises OSError. every: seconds between two questions.
  """
  while not stop.wait(every):
    for event, quiet in _EVENTS.items():
      try:
        said = (ask or metadata)(event)
      except OSError:
        continue
      if said != quiet:
        told.tell(f"{event} {said}")
        return


def on_google_cloud() -> bool:
  """Whether this machine has a metadata server."""
  return _MACHINE.exists() and "Google" in _MACHINE.read_text()


def metadata(name: str) -> str:
  """What the metadata server says under a name; raises OSError."""
  request = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
  with urllib.request.urlopen(request, timeout=5) as answer:
    return answer.read().decode().strip()
