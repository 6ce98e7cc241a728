"""MiniList: programs of one to three steps over short lists of digits, total and deterministic.

"dblrev" doubles every digit, then reverses the list; arithmetic is modulo 10. A program, an input
and its output make three kinds of problems (Absolute Zero, https://arxiv.org/abs/2505.03335):

  deduction  "Ddblrev|314>" -> "826"
  abduction  "Adblrev>826|" -> "314", or any other input with that output
  induction  "I314>826;12>42;5>0;" -> "dblrev", or any program that fits the hidden pairs, too

A request for a problem begins with "P" and its letter: "PD", then earlier examples.
"""

import itertools
import re
from collections.abc import Sequence

import numpy as np

from rljax import rng
from rljax.data import tasks, text
from rljax.rewards import verify as verify_lib
from rljax.types import Task

_EACH = {"inc": lambda d: (d + 1) % 10, "dec": lambda d: (d - 1) % 10, "dbl": lambda d: 2 * d % 10}
_WHOLE = {
    "rev": lambda x: x[::-1], "srt": sorted,
    "tail": lambda x: x[1:] or x,            # of one digit: itself
    "head2": lambda x: x[:2],
    "dup": lambda x: x[:1] + x,              # the first digit twice
    "swp": lambda x: x[-1:] + x[1:-1] + x[:1] if len(x) > 1 else x,  # first and last exchanged
    "cum": lambda x: [s % 10 for s in itertools.accumulate(x)],
}
OPS = (*_EACH, *_WHOLE)
MAX_OPS, MAX_DIGITS = 3, 4
KINDS = ("deduction", "abduction", "induction")
PIECES = (*OPS, *"0123456789", "|", ">", ";", "P", "D", "A", "I")
_OP = "|".join(sorted(OPS, key=len, reverse=True))
_PROGRAM = re.compile(rf"(?:{_OP}){{1,{MAX_OPS}}}")
_LIST = re.compile(rf"[0-9]{{1,{MAX_DIGITS}}}")
_OUTPUT = re.compile(r"[0-9]+")


def steps(program: str) -> list[str]:
  """The operations of a program; [] if it is none."""
  return re.findall(_OP, program) if _PROGRAM.fullmatch(program) else []


def run(program: str, digits: str) -> str:
  """The output.

  Raises:
    ValueError: no program, or no list of 1 to 4 digits.
  """
  if not _PROGRAM.fullmatch(program) or not _LIST.fullmatch(digits):
    raise ValueError(f"minilist: {program!r} cannot run on {digits!r}")
  x = [int(d) for d in digits]
  for op in steps(program):
    x = [_EACH[op](d) for d in x] if op in _EACH else list(_WHOLE[op](x))
  return "".join(map(str, x))


def problem(kind: str, program: str, inputs: Sequence[str], *, name: str = "") -> Task:
  """The problem of a program and its input; of induction half of the inputs are hidden."""
  outputs = [run(program, x) for x in inputs]
  shown = len(inputs) // 2
  prompt, demo = {
      "deduction": (f"D{program}|{inputs[0]}>", outputs[0]),
      "abduction": (f"A{program}>{outputs[0]}|", inputs[0]),
      "induction": ("I" + "".join(f"{x}>{y};" for x, y in zip(inputs[:shown], outputs)), program),
  }[kind]
  return Task(name, prompt, answer=demo, demo=demo, verifier="rljax.data.minilist:verify", info={
      "kind": kind, "ops": len(steps(program)), "program": program, "inputs": list(inputs)})


def formatted(task: Task, said: str) -> bool:
  """Whether a response has the form of an answer to this kind of problem."""
  form = {"deduction": _OUTPUT, "abduction": _LIST, "induction": _PROGRAM}[task.info["kind"]]
  return bool(form.fullmatch(said))


@verify_lib.bounded
def verify(task: Task, said: str) -> float:
  """Verifier: executes. Abduction accepts any input with the output, induction any program that
  gives the outputs of the hidden inputs."""
  if not formatted(task, said):
    return 0.0
  program, inputs = task.info["program"], task.info["inputs"]
  if task.info["kind"] == "deduction":
    return float(said == run(program, inputs[0]))
  if task.info["kind"] == "abduction":
    return float(run(program, said) == run(program, inputs[0]))
  return float(all(run(said, x) == run(program, x) for x in inputs[len(inputs) // 2:]))


def validate(request: Task, said: str, *, pairs: int = 6) -> Task | None:
  """The problem that a proposal makes, None if it is none: `rollouts.propose_solve`'s leaf.

  "dblrev|314" for deduction and abduction; for induction, of the program in
  `request.info["program"]`, so many different inputs "314;12;...". The program is run twice, as one
  would that might not be deterministic.
  """
  kind = request.info["kind"]
  if kind == "induction":
    program, inputs = request.info["program"], said.split(";")
    if len(inputs) != pairs or len(set(inputs)) != pairs:
      return None
  else:
    program, _, digits = said.partition("|")
    inputs = [digits]
  if not _PROGRAM.fullmatch(program) or not all(map(_LIST.fullmatch, inputs)):
    return None
  if any(run(program, x) != run(program, x) for x in inputs):
    return None
  return problem(kind, program, inputs)


def request(kind: str, examples: Sequence[tuple[str, str]] = (), program: str = "") -> str:
  """The prompt that asks for a new problem: with (program, input) pairs of earlier ones, or with
  the program of which inputs are wanted (induction)."""
  if kind == "induction":
    return f"PI{program}|"
  return f"P{kind[0].upper()}" + "".join(f"{p}|{x}>{run(p, x)};" for p, x in examples)


def words() -> text.Tokenizer:
  """A token for every operation, digit and sign."""
  return text.pieces(pieces=PIECES)


# --- task sets ------------------------------------------------------------------------------------


def draw_list(draws: np.random.Generator) -> str:
  return "".join(map(str, draws.integers(0, 10, draws.integers(1, MAX_DIGITS + 1))))


def draw_program(draws: np.random.Generator, ops: Sequence[int]) -> str:
  return "".join(draws.choice(OPS, draws.choice(ops)))


def _draw_inputs(draws, count):
  inputs: list[str] = []
  while len(inputs) < count:
    inputs += {draw_list(draws)} - set(inputs)
  return inputs


def problems(*, kinds: tuple = KINDS, ops: tuple = (1, 2, 3), pairs: int = 6, split: str = "train",
             size: int = 20000, seed: int = 0, test_share: float = 0.1) -> tasks.TaskSet:
  """Problems of random programs on random inputs, the kinds in turn.

  Train and test share no prompt.

  Args:
    kinds: some of `KINDS`. ops: how many operations a program may have.
    pairs: inputs of an induction, half of them hidden.
  """
  def draw(draws):
    kind = kinds[draws.integers(len(kinds))]
    made = problem(kind, draw_program(draws, ops), _draw_inputs(
        draws, pairs if kind == "induction" else 1))
    return made.prompt, made
  return tasks.generate("minilist", draw, split=split, size=size, seed=seed, test_share=test_share)


def proposals(*, kinds: tuple = KINDS, examples: int = 3, pairs: int = 6, size: int = 100000
              ) -> tasks.TaskSet:
  """Requests with well-formed proposals of random programs as demonstrations: syntax, no outputs.

  Args:
    examples: most earlier examples in a request.
  """
  def task(i):
    draws = rng.host(0, "minilist proposals", i)
    kind = kinds[draws.integers(len(kinds))]
    programs = [draw_program(draws, (1, 2, 3)) for _ in range(1 + draws.integers(examples + 1))]
    if kind == "induction":
      demo, asked = ";".join(_draw_inputs(draws, pairs)), request(kind, program=programs[0])
    else:
      demo = f"{programs[0]}|{draw_list(draws)}"
      asked = request(kind, [(p, draw_list(draws)) for p in programs[1:]])
    return Task(f"minilist/proposal/{i}", asked, answer=demo, demo=demo,
                verifier="rljax.rewards.verify:exact", info={"kind": kind})
  return tasks.TaskSet(task, size)


def requests(*, kinds: tuple = KINDS) -> tasks.TaskSet:
  """One request to propose and one to solve of each kind, in turn; a memory gives them content."""
  return tasks.TaskSet([
      Task(f"minilist/{kind}/{'solve' if solve else 'propose'}", request(kind),
           info={"kind": kind, "solve": solve}) for kind in kinds for solve in (False, True)])
