"""Verifiers whose judge is a program: `rljax.envs.formal` says what a task's info must hold.

Rewards by `verify.task_verifier` or `verify.verified_by`, with a deadline of their kind (a proof
takes a second to check). The text judged is the response's last block between ``` or <answer> tags,
else all of it.
"""

import re

from rljax.envs import formal
from rljax.types import Task

_BLOCKS = (re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL),
           re.compile(r"<answer>(.*?)</answer>", re.DOTALL))


def block_in(text: str) -> str:
  """See the module."""
  for block in _BLOCKS:
    found = block.findall(text)
    if found:
      return found[-1]
  return text


def verilog(task: Task, text: str) -> float:
  """The share of the test bench's checks that the design passes."""
  formal.need("iverilog", "iverilog")
  return formal.verilog(block_in(text), task.info["verilog"]).score


def coq(task: Task, text: str) -> float:
  """1 if it proves the statement."""
  formal.need("coqc", "coq")
  return formal.coq(block_in(text), task.info["coq"]).score


def metamath(task: Task, text: str) -> float:
  """1 if it proves the statement."""
  formal.need("metamath", "metamath")
  return formal.metamath(block_in(text), task.info["metamath"]).score
