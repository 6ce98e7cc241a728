"""Texts that a program judges: Verilog by a test bench (Icarus), proofs by Coq and by Metamath.

Every judge runs in the sandbox, and none believes what the text says of itself: hardware cannot
print, a proof is checked again from outside, and axioms that it brings along are found.
"""

import dataclasses
import re
import secrets
import shutil
from collections.abc import Callable, Mapping

from rljax import config, sandbox
from rljax.envs import base

_LIMITS = sandbox.Limits(seconds=20.0, cpu=20, memory=4 << 30, processes=32)


@dataclasses.dataclass(frozen=True)
class Judgement:
  """score in [0, 1]; 1 = all that was asked. `message`: what the policy may read of it."""

  score: float
  message: str


def need(program: str, package: str) -> None:
  """Raises ConfigError if a program of the system is not installed."""
  if shutil.which(program, path="/usr/bin:/bin") is None:
    raise config.ConfigError(f"{program} is not installed (apt-get install {package})")


# --- Verilog --------------------------------------------------------------------------------------

# What may hide a "$" or a quote from a search: escaped names, strings, comments, in one pass.
_OPAQUE = re.compile(r'\\\S+|"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_SYSTEM = re.compile(r"\$\w+|`\w+")
_HARMLESS = {"$signed", "$unsigned", "$clog2", "$bits", "`timescale", "`default_nettype"}


def verilog(design: str, spec: Mapping, *, limits: sandbox.Limits = _LIMITS,
            mode: str = "auto") -> Judgement:
  """The share of a test bench's checks that a design passes.

  The bench prints a line that begins with PASS or FAIL for each check. The design may use no system
  task but a few harmless ones and no directive that reads or defines, and cannot know the bench's
  name, so only the bench prints.

  Args:
    spec: {"bench": source with a top `module tb`, "checks": how many lines it prints}.
  """
  foreign = set(_SYSTEM.findall(_OPAQUE.sub(" ", design))) - _HARMLESS
  if foreign:
    return Judgement(0.0, f"not allowed in a design: {', '.join(sorted(foreign))}")
  name = f"tb_{secrets.token_hex(8)}"
  files = {"design.v": design, "bench.v": re.sub(r"\btb\b", name, spec["bench"])}
  script = f"iverilog -g2012 -s {name} -o out design.v bench.v >log 2>&1 || {{ cat log; exit 9; }}"
  result = sandbox.run(["sh", "-c", f"{script}; exec vvp -N out </dev/null"], files=files,
                       limits=limits, sandbox=mode)
  said = (result.stdout + result.stderr).replace(name, "tb").strip()
  if result.returncode == 9:
    return Judgement(0.0, f"does not compile:\n{said}")
  lines = [line for line in result.stdout.splitlines() if line.startswith(("PASS", "FAIL"))]
  passed = sum(line.startswith("PASS") for line in lines)
  if len(lines) > spec["checks"]:
    raise ValueError(f"the bench printed {len(lines)} checks, its task says {spec['checks']}")
  late = f"\nstopped after {limits.seconds:g} s" if result.status == "timeout" else ""
  wrong = "\n".join([line for line in lines if line.startswith("FAIL")][:10])
  return Judgement(passed / spec["checks"],
                   f"{passed} of {spec['checks']} checks pass{late}\n{wrong}".strip())


# --- Coq ------------------------------------------------------------------------------------------

_BEGIN, _END = re.compile(r"\A\s*Proof\s*\.", re.DOTALL), re.compile(r"\b(Qed|Defined)\s*\.\s*\Z")
_CLOSED = "Closed under the global context"


def coq(script: str, spec: Mapping, *, limits: sandbox.Limits = _LIMITS,
        mode: str = "auto") -> Judgement:
  """1 if a tactic script proves the statement from nothing but the axioms allowed.

  The script is compiled below the statement; then a second file, which it cannot touch, states the
  theorem again, takes the first one's as its proof, and asks Coq what it rests on. So `Admitted`,
  an axiom of its own, a switched-off check or other theorems between do not help.

  Args:
    script: tactics, with or without `Proof.` and `Qed.` around.
    spec: {"statement": a proposition, "preamble": imports and definitions, "axioms": names}; the
      last two may be absent.
  """
  body = _END.sub("", _BEGIN.sub("", script).rstrip())
  preamble = spec.get("preamble", "")
  attempt = f"{preamble}\nTheorem goal : {spec['statement']}.\nProof.\n{body}\nQed.\n"
  check = (f"{preamble}\nFrom Work Require Attempt.\nDefinition goal : {spec['statement']} := "
           f"Attempt.goal.\nPrint Assumptions goal.\n")
  shell = ('coqc -q -Q . Work Attempt.v >log 2>&1 || { cat log; exit 9; }\n'
           'printf %s "$1" >Check.v && exec coqc -q -Q . Work Check.v')
  result = sandbox.run(["sh", "-c", shell, "sh", check], files={"Attempt.v": attempt},
                       limits=limits, sandbox=mode, read_only=("/etc/ocamlfind.conf",))
  if result.status == "timeout":
    return Judgement(0.0, f"no proof within {limits.seconds:g} s")
  if result.returncode == 9:
    return Judgement(0.0, _coq_error(result.stdout))
  if result.status != "ok":
    return Judgement(0.0, f"the statement was changed: {_coq_error(result.stderr)}")
  said = result.stdout.strip()
  rests_on = set(re.findall(r"^([\w.']+) :", said.partition("Axioms:")[2], re.MULTILINE))
  closed = said == _CLOSED or (rests_on and rests_on <= set(spec.get("axioms", ()))
                               and said.startswith("Axioms:"))
  return Judgement(1.0, "proved") if closed else Judgement(0.0, f"not a proof: {said[:300]}")


def _coq_error(text: str) -> str:
  """From the first error on, without file names; lines count from the first tactic's."""
  _, found, rest = text.partition("Error:")
  return re.sub(r"\s+", " ", (found + rest) or text).strip()[:600]


# --- Metamath -------------------------------------------------------------------------------------

_LABELS = re.compile(r"[A-Za-z0-9._()\s-]+")


def metamath(proof: str, spec: Mapping, *, limits: sandbox.Limits = _LIMITS,
             mode: str = "auto") -> Judgement:
  """1 if a proof (labels, or Metamath's compressed form) derives the statement in a database.

  A proof consists of labels alone: it can add no axiom and leave no step open ("?").

  Args:
    spec: {"database": text of the axioms, "statement": "|- ...", "hypotheses": lines such as
      "h1 $e |- ph $." (may be absent)}.
  """
  if not _LABELS.fullmatch(proof):
    return Judgement(0.0, "a proof is a list of labels")
  text = "\n".join([spec["database"], "${", *spec.get("hypotheses", ()),
                    f"goal $p {spec['statement']} $= {proof} $.", "$}", ""])
  result = sandbox.run(["metamath", 'read "goal.mm"', "verify proof *", "exit"],
                       files={"goal.mm": text}, limits=limits, sandbox=mode)
  said = result.stdout.partition("verify proof *")[2] or result.stdout
  if result.status == "ok" and "All proofs in the database were verified" in said \
      and "?Error" not in result.stdout and "?Warning" not in result.stdout:
    return Judgement(1.0, "proved")
  error = result.stdout.partition("?")[2].strip()
  return Judgement(0.0, re.sub(r"\s+", " ", error)[:600] or result.status)


# --- as tools -------------------------------------------------------------------------------------


class Judge(base.Tool):
  """Hands a text to a judge and returns its message. Without state but the task's spec."""

  def __init__(self, judge: Callable[..., Judgement], key: str, output: str, mode: str):
    self.output, self._judge, self._key, self._mode = output, judge, key, mode

  def start(self, task, seed):
    return task.info[self._key]

  def call(self, state, text):
    found = self._judge(text, state, mode=self._mode)
    return state, found.message, found.score < 1


def verilog_tool(*, output: str = "simulation", mode: str = "auto") -> base.Tool:
  """A design on the test bench of `task.info["verilog"]`; a tool of `rljax.envs.base.tools`."""
  need("iverilog", "iverilog")
  return Judge(verilog, "verilog", output, mode)


def coq_tool(*, output: str = "coq", mode: str = "auto") -> base.Tool:
  """A proof of `task.info["coq"]`, or Coq's error text; a tool of `rljax.envs.base.tools`."""
  need("coqc", "coq")
  return Judge(coq, "coq", output, mode)


def metamath_tool(*, output: str = "metamath", mode: str = "auto") -> base.Tool:
  """A proof of `task.info["metamath"]`, or the error; a tool of `rljax.envs.base.tools`."""
  need("metamath", "metamath")
  return Judge(metamath, "metamath", output, mode)
