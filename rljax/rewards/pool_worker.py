"""A worker of `rljax.rewards.pool`: reads samples from stdin, writes one outcome for each."""

import functools
import os
import pickle
import resource
import signal
import sys

from rljax import config


@functools.cache
def _resolve(name):
  """The judge; a slow import of its module (`warm()`) is not the first sample's time."""
  judge = config.resolve(name)
  warm = getattr(sys.modules.get(judge.__module__), "warm", None)
  if warm:
    warm()
  return judge


class Late(BaseException):
  """The deadline of one sample; no `except Exception` of a judge may stop it.

  It counts processor time: on a busy machine a right answer is not late.
  """


def main() -> None:
  """Serves until stdin ends. Whatever judges print goes to stderr."""
  answers = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
  signal.signal(signal.SIGPROF, _late)
  _limit_memory(int(sys.argv[2]))
  _write(answers, "ready")
  while True:
    try:
      judge, kwargs, deadline, items = pickle.load(sys.stdin.buffer)
    except EOFError:
      return
    for item in items:
      _write(answers, _judge(judge, item, kwargs, deadline))


def _limit_memory(extra):
  if sys.platform == "linux":
    with open("/proc/self/statm") as f:
      now = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + extra, now + extra))


def _late(signum, frame):
  raise Late


def _judge(judge, item, kwargs, deadline):
  """(status, value, error) of `pool.Outcome`."""
  try:
    function = _resolve(judge)
    signal.setitimer(signal.ITIMER_PROF, deadline)
    try:
      value = function(*item, **kwargs)
    finally:
      signal.setitimer(signal.ITIMER_PROF, 0)
    return "ok", value, ""
  except Late:
    return "timeout", None, f"no answer after {deadline:g} s"
  except Exception as e:
    return "error", None, f"{type(e).__name__}: {e}"[:500]
  except BaseException as e:
    return "error", None, f"{type(e).__name__}"


def _write(answers, message):
  data = pickle.dumps(message)
  answers.write(len(data).to_bytes(4, "big") + data)
  answers.flush()
