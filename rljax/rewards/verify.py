"""Verifiers `(task, text) -> float` in [0, 1], and the rewards that call them.

Text comes from a policy and may be anything. A response that cannot be read scores 0, however long
or deep it is; a *task* that cannot be judged (an answer that is no number) raises, and
`task_verifier` turns that into NaN, "could not be scored".
"""

import collections
import functools
import math
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from rljax import config
from rljax.data import arithmetic, tasks
from rljax.rewards import pool, run
from rljax.types import Episode, Task

MAX_CHARS = 20_000  # only the end of a longer text is searched: answers stand there

# A minus is a sign unless a number or bracket stands before it: "3-5" ends in 5, "x = -5" in -5.
_SIGN = r"(?:(?<![0-9.)\]}])[-+])?"
_NUMBER = re.compile(
    _SIGN + r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?"
    r"(?:/[0-9]+(?:\.[0-9]+)?)?|" + _SIGN + r"(?<![0-9])\.[0-9]+")
_STATED = re.compile(
    r"(?i)\banswer(?:\s+(?:is(?! not|n't)|(?:must|should|could|might|may) be)\b|\s*[:=])[\s*:]*")
_REASON = re.compile(r"\n|[.!?;](?=\s|$)|,?\s+(?:because|since|as|so|which|but)\b|\*\*")
_CHOICE = re.compile(r"\bor\s*\$?$")
_UNITS = re.compile(r"\\(?:text|mathrm|mbox|textbf)\{[^{}]*\}")
_FRAC = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")


def final_answer(text: str) -> tuple[str, bool]:
  """The part of a response that states its answer, and whether the response marked it.

  In this order: the last \\boxed{...}, the last <answer>...</answer>, the rest of the line after
  the last "####", the rest of the sentence after the last "answer is" or "answer:"; without any of
  them the whole text (its last MAX_CHARS characters). A mark that is opened and never closed (a
  response cut by its limit) states nothing: "".
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
    return rest.partition("\n")[0].strip(), True
  *_, last = [None, *_STATED.finditer(text)]
  if last:
    return _REASON.split(text[last.end():].strip(), maxsplit=1)[0].strip(), True
  return text.strip(), False


def _braces(text: str, start: int) -> str:
  depth = 1
  for i in range(start, len(text)):
    depth += (text[i] == "{") - (text[i] == "}")
    if depth == 0:
      return text[start:i].strip()
  return ""


def number_in(text: str) -> Fraction | None:
  r"""The number a response states as its answer, exact; None if there is none.

  Looks at `final_answer`. A marked answer must hold exactly one number (units and $ may stand
  beside it, other LaTeX such as \sqrt or a power may not) or end in "= " and one; in unmarked text
  the last number counts, unless it is one of several ("3 or 4").
  Read: signs, thousands commas, decimals, 3/4 and \frac{3}{4}, 1e-5. A percent sign is left as it
  is: "50%" is 50. More than 100 digits, nan, inf or a zero denominator are no number.
  """
  text, marked = final_answer(text)
  text = text.replace("\u2212", "-").replace("{,}", ",").replace("\\,", "").replace("\\!", "")
  text = _FRAC.sub(r"\1/\2", _UNITS.sub(" ", text)).replace("\\%", "%").replace("\\$", "")
  text = text.replace("$", "")
  if marked:
    text = text.rpartition("=")[2]
  found = _NUMBER.findall(text)
  if not found or (marked and (len(found) > 1 or "\\" in text or "^" in text)):
    return None
  if not marked and _CHOICE.search(text[:text.rfind(found[-1])].rstrip()):
    return None
  try:
    return arithmetic.parse_number(found[-1])
  except ArithmeticError:
    return None


# --- verifiers ------------------------------------------------------------------------------------


def bounded(verifier):
  """Marks a verifier that is quick and frugal on any text: it needs no process of its own."""
  verifier.bounded = True
  return verifier


@bounded
def exact(task: Task, text: str) -> float:
  """1 if the whole text, stripped of surrounding white space, is the answer.

  Raises:
    ValueError: the task has no answer.
  """
  if task.answer is None:
    raise ValueError(f"task {task.id} has no answer")
  return float(text.strip() == str(task.answer).strip())


@bounded
def number(task: Task, text: str) -> float:
  """1 if `number_in(text)` equals the answer exactly: "0.5" is "1/2", "0.33" is not "1/3".

  Raises:
    ArithmeticError: the task's answer is not a number.
  """
  answer = arithmetic.to_fraction(task.answer)
  return float(number_in(text) == answer)


@bounded
def countdown(task: Task, text: str) -> float:
  """1 if the expression reaches `task.answer` with the numbers of `task.info`.

  Each number of `info["numbers"]` may be used at most once, and must be used when
  `info["use_all"]`. Operators + - * / and brackets, exact arithmetic; a trailing "= target" is
  allowed if it is true. The expression is `final_answer(text)`; it is parsed, not run as code.
  """
  target = arithmetic.to_fraction(task.answer)
  text = final_answer(text)[0].replace("\u2212", "-")
  for sign, names in {"*": ("\u00d7", "\\times"), "/": ("\u00f7", "\\div")}.items():
    for name in names:
      text = text.replace(name, sign)
  left, equals, right = text.partition("=")
  try:
    tree = arithmetic.parse(left)
    if "^" in left or (equals and arithmetic.parse_number(right) != target):
      return 0.0
    used = collections.Counter(arithmetic.literals(tree))
    given = collections.Counter(Fraction(x) for x in task.info["numbers"])
    allowed = used == given if task.info["use_all"] else used <= given
    return float(allowed and arithmetic.value(tree) == target)
  except ArithmeticError:
    return 0.0


@bounded
def sorted_list(task: Task, text: str) -> float:
  """1 if the text is the list `task.answer` of whole numbers, in order, and nothing else.

  Items are separated by spaces or commas, [brackets] around them allowed; with
  `info["separator"] == ""` every character is an item.
  """
  text = final_answer(text)[0]
  if task.info.get("separator", " ") == "":
    items = list(text)
  else:
    if text[:1] == "[" and text[-1:] == "]":
      text = text[1:-1]
    items = re.split(r"\s*,\s*|\s+", text.strip())
  if not all(re.fullmatch("-?[0-9]{1,100}", x) for x in items):
    return 0.0
  return float([int(x) for x in items] == list(task.answer))


@bounded
def placed(task: Task, text: str) -> float:
  """Of a sort (`data.tasks:sorting` with digits): the share of places that hold the right digit,
  less 0.05 for each digit too many or too few. White space is not read.

  Raises:
    ValueError: the task's answer is not a list of digits.
  """
  want = "".join(str(x) for x in task.answer)
  if not want.isdigit() or len(want) != len(task.answer):
    raise ValueError(f"placed: the answer {task.answer!r} is not a list of digits")
  said = "".join(text.split())
  right = sum(a == b for a, b in zip(said, want))
  return right / len(want) - 0.05 * abs(len(said) - len(want))


def reasoning_gym(task: Task, text: str) -> float:
  """The data set's own `score_answer` (which may give partial credit), kept within [0, 1].

  It judges what stands between the last <answer> tags, or the whole text without them.

  Raises:
    ValueError: the installed reasoning-gym makes another problem than the task's.
  """
  data = tasks.gym_dataset(task.info["spec"])
  entry = _gym_entry(task.info["spec"], task.info["index"])
  if entry["question"] not in task.prompt:
    raise ValueError(f"task {task.id}: reasoning-gym no longer makes this question")
  _, tag, rest = text[-MAX_CHARS:].rpartition("<answer>")
  inside = rest.partition("</answer>")[0] if tag else rest
  return min(max(float(data.score_answer(inside.strip(), entry)), 0.0), 1.0)


@functools.lru_cache(maxsize=4096)
def _gym_entry(spec, index):
  return tasks.gym_dataset(spec)[index]


# --- rewards --------------------------------------------------------------------------------------


def task_verifier(episodes: Sequence[Episode], ctx, *, deadline: float = 5.0) -> np.ndarray:
  """Each task's own verifier on the episode's response.

  A verifier marked `bounded` runs here; any other runs in `rljax.rewards.pool`. One that raises, is
  late, or gives no finite number, makes that episode NaN; the first time, the reason is logged.

  Args:
    deadline: processor seconds for one response.

  Returns:
    float32 [B].
  """
  return _verify(episodes, [e.task.verifier for e in episodes], ctx, deadline)


def verified_by(episodes: Sequence[Episode], ctx, *, verifier: str, deadline: float = 5.0
                ) -> np.ndarray:
  """`task_verifier` with one verifier, "module:function", for all tasks whatever they name."""
  return _verify(episodes, [verifier] * len(episodes), ctx, deadline)


def _verify(episodes, names, ctx, deadline):
  out = np.full(len(episodes), math.nan, np.float32)
  rows = collections.defaultdict(list)
  for i, name in enumerate(names):
    rows[name].append(i)
  for name, indices in rows.items():
    items = [(episodes[i].task, episodes[i].response) for i in indices]
    for i, outcome in zip(indices, _outcomes(name, items, ctx, deadline)):
      out[i] = _score(name, outcome, episodes[i].task.id, ctx)
  return out


def _outcomes(name, items, ctx, deadline):
  try:
    if not name:
      raise ValueError("the task names no verifier")
    verifier = _verifier(name)
  except (ValueError, config.ConfigError) as e:
    return [pool.Outcome("error", error=str(e))] * len(items)
  if not getattr(verifier, "bounded", False):
    until = math.inf if ctx is None else ctx.until
    return pool.shared().map(name, items, deadline=deadline, until=until)
  out = []
  for item in items:
    try:
      out.append(pool.Outcome("ok", verifier(*item)))
    except Exception as e:  # a task that cannot be judged
      out.append(pool.Outcome("error", error=f"{type(e).__name__}: {e}"))
  return out


def _score(name, outcome, task_id, ctx) -> float:
  if outcome.status != "ok":
    kind = {"error": "verifier_error"}.get(outcome.status, "sample_timeout")
    run.count(ctx, kind, why=f"verifier {name!r} cannot score task {task_id}: {outcome.error}")
    return math.nan
  value = outcome.value
  if not isinstance(value, int | float | np.number) or not math.isfinite(value):
    why = f"verifier {name!r} returned {value} for task {task_id}"
    run.count(ctx, "verifier_error", why=why)
    return math.nan
  return float(value)


_verifier = functools.cache(config.resolve)


def dense_number(episodes: Sequence[Episode], ctx) -> np.ndarray:
  """Half for the absolute, half for the relative error of `number_in(response)`.

  r = 1 - 0.5 * min(|a - b|, 1) - 0.5 * min(|a - b| / (|b| + 1e-6), 1), a the response, b the answer
  (RandomCalculation, github.com/wumingqi/LLM-Math-Evaluation). No number, nan or inf: 0. A task
  whose answer is not a number: NaN.

  Returns:
    float32 [B].
  """
  del ctx
  return np.array([_closeness(e) for e in episodes], np.float32)


def _closeness(episode: Episode) -> float:
  try:
    b = arithmetic.to_fraction(episode.task.answer)
  except ArithmeticError:
    return math.nan
  a = number_in(episode.response)
  if a is None:
    return 0.0
  error = abs(a - b)  # exact, so that no float overflows
  return float(1 - min(error, 1) / 2 - min(error / (abs(b) + Fraction(1, 10**6)), 1) / 2)
