"""Verifiers `(task, text) -> float` in [0, 1], and the rewards that call them.

Text comes from a policy and may be anything. A response that cannot be read scores 0, however long
or deep it is; a *task* that cannot be judged (an answer that is no number) raises, and
`task_verifier` turns that into NaN, "could not be scored".
"""

import functools
import logging
import math
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from rljax import config
from rljax.data import arithmetic, tasks
from rljax.types import Episode, Task

log = logging.getLogger(__name__)

MAX_CHARS = 20_000  # only the end of a longer text is searched: answers stand there

# A minus is a sign unless a number or bracket stands before it: "3-5" ends in 5, "x = -5" in -5.
_NUMBER = re.compile(
    r"(?:(?<![0-9.)\]}])[-+])?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)?(?:\.?[0-9]+|(?<=[0-9])\.(?![0-9]))?"
)


def final_answer(text: str) -> tuple[str, bool]:
  """The part of a response that states its answer, and whether the response marked it.

  In this order: the last \\boxed{...}, the last <answer>...</answer>, the rest of the line after the
  last "####"; without any of them the whole text (its last MAX_CHARS characters). A mark that is
  opened and never closed (a response cut by its limit) states nothing: "".
  """
  text = text[-MAX_CHARS:]
  start = text.rfind("\\boxed{")
  if start >= 0:
    return _braces(text, start + len("\\boxed{")), True
  start = text.rfind("<answer>")
  if start >= 0:
    inside, end, _ = text[start + len("<answer>"):].partition("</answer>")
    return (inside.strip() if end else ""), True
  _, mark, rest = text.rpartition("####")
  if mark:
    return rest.strip().partition("\n")[0].strip(), True
  return text.strip(), False


def _braces(text: str, start: int) -> str:
  depth = 1
  for i in range(start, len(text)):
    depth += (text[i] == "{") - (text[i] == "}")
    if depth == 0:
      return text[start:i].strip()
  return ""
