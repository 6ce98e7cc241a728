"""Rewards for programs: unit tests and stdin/stdout cases, in the sandbox.

A task carries its tests in `task.info["code"]`, one of two forms:

  {"entry": "add", "tests": ["assert add(1, 2) == 3", ...], "setup": "", "prefix": ""}
  {"cases": [["1 2\\n", "3\\n"], ...]}

`entry` is the function the tests call (they may also call it `candidate`), a list of such names, or
"Class.method". `setup` is code that the tests need besides. `prefix` is put before the program: the
prompt, where a response continues it. The program runs in another process than its tests and can
only hand back plain data (see `rljax.rewards.code_harness`).
"""

import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config, sandbox
from rljax.rewards import run
from rljax.types import Episode

_HARNESS = (pathlib.Path(__file__).parent / "code_harness.py").read_text()
_FENCE = re.compile(r"```[ \t]*([A-Za-z0-9_+-]*)[ \t]*\n(.*?)```", re.DOTALL)
VERDICTS = ("pass", "fail", "error", "timeout")


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Of one test: `status` is one of VERDICTS, `detail` says why it did not pass."""

  status: str
  detail: str = ""


def program_in(text: str) -> str:
  """The last ```python block of a response, else its last ``` block, else all of it."""
  blocks = _FENCE.findall(text)
  python = [code for name, code in blocks if name.lower() in ("python", "py", "python3")]
  return (python or [code for _, code in blocks] or [text])[-1]


def run_tests(program: str, tests: Mapping, *, case_seconds: float = 2.0,
              limits: sandbox.Limits = sandbox.DEFAULT, mode: str = "auto") -> list[Verdict]:
  """One verdict per test or case, in order.

  Args:
    program: source text, without the prefix.
    tests: in the form of `task.info["code"]`.
    case_seconds: wall clock of one call, or of one case. `limits` hold for all tests together.
    mode: `sandbox=` of `rljax.sandbox.run`.

  Raises:
    ValueError: `tests` has neither form, or its setup cannot run. SandboxError: the sandbox failed.
  """
  payload = _payload(program, tests, case_seconds)
  count = len(payload["tests"]) + len(payload["cases"])
  tokens = payload["tokens"] = [secrets.token_hex(8) for _ in range(count)]
  result = sandbox.run_python(_HARNESS, stdin=json.dumps(payload), limits=limits, sandbox=mode,
                              keeps_secrets=True)
  if "setup.py" in result.stderr:
    raise ValueError(f"the setup of the tests fails: {result.stderr.splitlines()[-1]}")
  if "prctl" in result.stderr:
    raise sandbox.SandboxError("the judge cannot hide from the program on this system")
  missing = Verdict("timeout" if result.status == "timeout" else "error", "the judge was ended")
  lines = result.stdout.splitlines()
  lines += [""] * (count - len(lines))
  return [_verdict(line, token) or missing for line, token in zip(lines, tokens)]


def _verdict(line, token):
  """What the judge wrote about one test; None if it was not the judge."""
  try:
    status, detail = json.loads(line)
  except (ValueError, TypeError):
    return None
  if status == token:
    return Verdict("pass")
  return Verdict(status, str(detail)) if status in VERDICTS[1:] else None


def _payload(program, tests, seconds):
  given = {key: list(tests.get(key, [])) for key in ("tests", "cases")}
  entry = tests.get("entry", [])
  entry = [entry] if isinstance(entry, str) else list(entry)
  if bool(given["tests"]) == bool(given["cases"]) or bool(given["tests"]) != bool(entry):
    raise ValueError("tests of a program need either 'entry' and 'tests', or 'cases'")
  return {**given, "program": tests.get("prefix", "") + program, "entry": entry,
          "setup": tests.get("setup", ""), "seconds": seconds}


def unit_tests(episodes: Sequence[Episode], ctx: run.Context | None, *, credit: str = "all",
               case_seconds: float = 2.0, seconds: float = 10.0, memory_mib: int = 512,
               mode: str = "auto", workers: int = 0) -> np.ndarray:
  """Whether `program_in(response)` passes the tests of its task.

  Args:
    credit: "all" = 1 when every test passes, else 0; "fraction" = the share that passes.
    case_seconds: wall clock of one test. seconds: of all tests of one program.
    memory_mib: address space of each process.
    mode: "auto", "required" or "rlimit", see `rljax.sandbox`.
    workers: programs that run at the same time; 0 = one per processor.

  Returns:
    float32 [B]; NaN for a task without tests, a sandbox that failed ("code_broken"), and programs
    that the deadline of the whole reward left unjudged ("sample_timeout").

  Raises:
    ConfigError: `credit` or `mode` is unknown, or "required" cannot be met.
  """
  if credit not in ("all", "fraction"):
    raise config.ConfigError(f"unit_tests: credit is 'all' or 'fraction', found {credit!r}")
  limits = sandbox.Limits(seconds=seconds, cpu=math.ceil(seconds), memory=memory_mib << 20)
  until = math.inf if ctx is None else ctx.until

  def one(episode):
    if time.monotonic() > until:
      run.count(ctx, "sample_timeout")
      return math.nan
    try:
      verdicts = run_tests(program_in(episode.response), episode.task.info.get("code", {}),
                           case_seconds=case_seconds, limits=limits, mode=mode)
    except (ValueError, sandbox.SandboxError) as e:
      run.count(ctx, "code_broken", why=f"task {episode.task.id}: {e}")
      return math.nan
    passed = np.mean([v.status == "pass" for v in verdicts])
    return float(passed if credit == "fraction" else passed == 1)

  with concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
    return np.array(list(pool.map(one, episodes)), np.float32)
