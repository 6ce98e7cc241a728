"""Whether two mathematical answers are the same: exactly, for anything LaTeX can say.

Plain numbers are compared as fractions. Lists, sets, tuples, intervals, matrices, equations and
inequalities are taken apart and compared piece by piece. What is left, an expression, is read by
`math-verify`'s LaTeX parser and compared as a function: at several points, to 40 digits. Nothing is
rounded: "0.333" is not "1/3". `answer` may be slow on hostile text; the pool that runs it gives
such a sample up.
"""

import functools
import logging
import re
from fractions import Fraction

from rljax.data import arithmetic
from rljax.rewards import math_text, verify
from rljax.types import Task

MAX_CHARS = 600  # of an answer; longer ones are wrong
_OR = re.compile(r"\s*(?:\\text\{\s*(?:or|and)\s*\}|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z]))\s*")
_MATRIX = re.compile(r"\\begin\{(pmatrix|vmatrix)\}(.*)\\end\{\1\}", re.DOTALL)
_MIXED = re.compile(r"(-?)([0-9]+)\s*\\frac\{([0-9]+)\}\{([0-9]+)\}|(-?)([0-9]+) ([0-9]+)/([0-9]+)")
_FRACTION = re.compile(r"(-?)\\frac\{(-?[0-9.]+)\}\{(-?[0-9.]+)\}")
_VARIABLE = re.compile(r"(?:[A-Za-z]|\\[a-z]+)(?:_\{?[0-9A-Za-z]\}?)?(?:\([a-z]\))?"
                       r"|\([a-z](?:, ?[a-z])+\)")
_FUNCTION = re.compile(r"\\(sin|cos|tan|cot|sec|csc|log|ln)((?:\^\{?[0-9]\}?)?)\s*"
                       r"(\\?[A-Za-z]+)(?![\^A-Za-z])")
_FLIP = {"\\le": "\\ge", "\\ge": "\\le", "<": ">", ">": "<"}
_KNOWN = frozenset(
    "frac sqrt pi infty sin cos tan cot sec csc arcsin arccos arctan log ln exp theta alpha beta "
    "gamma phi omega lambda binom circ begin end pmatrix".split())


def answer(task: Task, text: str) -> float:
  """1 if the answer that `verify.final_answer` finds in the text is `task.answer`.

  Raises:
    ValueError: the task has no answer.
  """
  if task.answer is None or not str(task.answer).strip():
    raise ValueError(f"task {task.id} has no answer")
  found, marked = verify.final_answer(text)
  if not marked and not _whole(found):
    number = verify.number_in(text)
    found = "" if number is None else str(number)
  return float(equivalent(str(task.answer), found))


def warm() -> None:
  """Imports the slow part; `rljax.rewards.pool` calls it before any deadline runs."""
  _parse("x^2")


def _whole(text):
  """Whether an unmarked response is nothing but an answer: short, no words before its numbers."""
  words = re.sub(r"\\[A-Za-z]+(?:\{[a-z ]*\})?", "", text.partition("\n")[0])
  return len(text) <= 80 and not re.search(r"\n|(?!and\b|or\b)\b[A-Za-z]{2,}.*[0-9]", words)


def equivalent(gold: str, found: str) -> bool:
  """Whether two answers are the same; an unreadable `found` is not the same as anything."""
  if not found.strip() or len(found) > MAX_CHARS:
    return False
  return _same(*_prepare(gold), *_prepare(found))


@functools.lru_cache(maxsize=4096)
def _prepare(text):
  return math_text.take_unit(math_text.normalise(text))


def _same(gold, gold_unit, found, found_unit):
  if not found or not math_text.unit_matches(gold_unit, found_unit):
    return False
  if gold == found:
    return True
  a, b = _rational(gold), _rational(found)
  if a is not None and b is not None:
    percent = math_text.PERCENT in (gold_unit, found_unit)
    both = gold_unit == found_unit
    return a == b or (percent and not both and (
        a == b / 100 if found_unit == math_text.PERCENT else a / 100 == b))
  return _same_structure(gold, found)


def _rational(text: str) -> Fraction | None:
  """The exact value of a plain number: decimal, fraction, \\frac or mixed number."""
  text = text.strip()
  mixed = _MIXED.fullmatch(text)
  try:
    if mixed:
      sign, whole, top, bottom = (g for g in mixed.groups() if g is not None)
      value = Fraction(int(whole)) + Fraction(int(top), int(bottom))
      return -value if sign else value
    fraction = _FRACTION.fullmatch(text)
    if fraction:
      value = arithmetic.parse_number(fraction[2]) / arithmetic.parse_number(fraction[3])
      return -value if fraction[1] else value
    return arithmetic.parse_number(text)
  except (ArithmeticError, ValueError):
    return None


# --- structure ------------------------------------------------------------------------------------


def _same_structure(gold, found):
  for compare in (_lists, _matrices, _relations, _brackets, _unions, _ratios, _bases):
    same = compare(gold, found)
    if same is not None:
      return same
  if math_text.is_words(gold) or math_text.is_words(found):
    return math_text.text_key(gold) == math_text.text_key(found)
  return _same_expression(gold, found)


def _pieces(gold, found):
  return len(gold) == len(found) and all(
      _same(*_prepare(a), *_prepare(b)) for a, b in zip(gold, found))


def _unordered(gold, found):
  """Whether the lists are equal as multisets (each found piece is used once)."""
  found = list(found)
  for a in gold:
    match = next((b for b in found if _same(*_prepare(a), *_prepare(b))), None)
    if match is None:
      return False
    found.remove(match)
  return not found


def _as_list(text):
  """The items of "1, 2", "1 or 2", "\\{1, 2\\}" or "1 \\pm 2"; None if it is no list."""
  inner = re.fullmatch(r"\\lbrace(.*)\\rbrace", text, re.DOTALL)
  inside = (inner[1] if inner else text).strip()
  items = [x for part in _OR.split(inside) for x in math_text.split_top(part, (",",)) if x]
  items = [y for x in items for y in _both_signs(x)]
  return items if inner or len(items) > 1 else None


def _both_signs(text):
  if text.count("\\pm") != 1:
    return [text]
  before = text.partition("\\pm")[0].strip()
  plus = "+" if before and before[-1] not in "=({" else ""
  return [text.replace("\\pm", plus), text.replace("\\pm", "-")]


def _lists(gold, found):
  a, b = _as_list(gold), _as_list(found)
  if a is None and b is None:
    return None
  return _unordered(a or [gold], b or [found])


def _matrices(gold, found):
  a, b = (_MATRIX.fullmatch(x) for x in (gold, found))
  if not a and not b:
    return None
  if not a or not b or a[1] != b[1]:
    return False
  rows = [[row.split("&") for row in m[2].strip(math_text.ROW + " ").split(math_text.ROW)]
          for m in (a, b)]
  return len(rows[0]) == len(rows[1]) and all(
      _pieces([x.strip() for x in p], [x.strip() for x in q]) for p, q in zip(*rows))


def _relation(text):
  """(sides, signs) of an equation, inequality or chain of them; one side if it is none."""
  parts = re.split(r"(\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|[<>=])", text)
  sides, signs = [p.strip() for p in parts[::2]], parts[1::2]
  if signs and signs[0] in (">", "\\ge"):
    sides, signs = sides[::-1], [_FLIP.get(s, s) for s in signs[::-1]]
  return sides, signs


def _relations(gold, found):
  (a, how_a), (b, how_b) = _relation(gold), _relation(found)
  if not how_a and not how_b:
    return None
  if how_a == how_b == ["="]:
    return _pieces(a, b) or _same_equation(a, b)
  if how_a and how_b:
    return how_a == how_b and _pieces(a, b)
  sides, how, other = (a, how_a, found) if how_a else (b, how_b, gold)
  named = _VARIABLE.fullmatch(sides[0]) and not (how_a and re.search("[a-z]", sides[-1]))
  if set(how) != {"="} or not (named or _same(*_prepare(sides[0]), *_prepare(sides[-1]))):
    return False  # "x > 3" against a number; "2x + 1" for the line "y = 2x + 1"; "5 = 6"
  return _same(*_prepare(sides[-1]), *_prepare(other))


def _brackets(gold, found):
  a, b = math_text.enclosing(gold), math_text.enclosing(found)
  items = [math_text.split_top(x[1], (",",)) if x else [] for x in (a, b)]
  if max(map(len, items)) < 2:
    return None
  return bool(a and b) and a[0] == b[0] and _pieces(*items)


def _unions(gold, found):
  a, b = (math_text.split_top(x, ("\\cup",)) for x in (gold, found))
  return _unordered(a, b) if max(len(a), len(b)) > 1 else None


def _ratios(gold, found):
  a, b = (math_text.split_top(x, (":",)) for x in (gold, found))
  return _pieces(a, b) if max(len(a), len(b)) > 1 else None


def _bases(gold, found):
  a, b = math_text.split_base(gold), math_text.split_base(found)
  if not a and not b:
    return None
  digits = [x[0] if x else y.strip().lower() for x, y in ((a, gold), (b, found))]
  return digits[0] == digits[1] and (not a or not b or a[1] == b[1])


# --- expressions ----------------------------------------------------------------------------------


def _same_expression(gold, found):
  a, b = _parse(gold), _parse(found)
  if a is None or b is None:
    return gold.replace(" ", "") == found.replace(" ", "")
  return a == b or all(abs(x - y) <= 1e-30 * max(abs(x), abs(y), 1)
                       for x, y in _values(a, b, least=2))


def _same_equation(a, b):
  """Whether L1 - R1 is a constant times L2 - R2: the equations have the same solutions."""
  sides = [[_parse(x) for x in pair] for pair in (a, b)]
  if any(x is None for pair in sides for x in pair):
    return False
  (p, q), (r, s) = sides
  ratios = [x / y for x, y in _values(p - q, r - s, least=3) if abs(y) > 1e-30]
  return len(ratios) >= 3 and abs(ratios[0]) > 1e-30 and all(
      abs(x - ratios[0]) <= 1e-25 * abs(ratios[0]) for x in ratios)


_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def _values(a, b, least):
  """Pairs of values at the same rational points, positive and negative; [(0, 1)] if too few."""
  import sympy
  symbols = sorted(a.free_symbols | b.free_symbols, key=str)
  pairs = []
  for k in range(5 if symbols else 1):
    point = {s: sympy.Rational((-1) ** (k + i) * (_PRIMES[(3 * k + i) % 12] + 1),
                               _PRIMES[(k + 5 * i + 2) % 12]) for i, s in enumerate(symbols)}
    pair = [sympy.N(x.xreplace(point), 45) for x in (a, b)]
    if all(x.is_number and x.is_finite and not x.has(sympy.nan, sympy.zoo) for x in pair):
      pairs.append(tuple(pair))
  return pairs if len(pairs) >= (least if symbols else 1) else [(0, 1)]


@functools.lru_cache(maxsize=4096)
def _parse(text):
  """A sympy expression (i is the imaginary unit), or None: not read, or not all of it."""
  if not _readable(text):
    return None
  import math_verify
  import sympy
  logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it sets no timeout
  text = _FUNCTION.sub(r"\\\1\2(\3)", text)
  try:
    found = math_verify.parse(f"${text}$", [math_verify.LatexExtractionConfig()],
                              parsing_timeout=None)
    tree = found[0] if found and not isinstance(found[0], str) else None
    if tree is None or not isinstance(tree, sympy.Expr):
      return None
    return tree.xreplace({sympy.Symbol("i"): sympy.I}).doit()
  except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, IndexError):
    return None


def _readable(text):
  """Known commands, no two numbers side by side (the parser adds them), no tower of powers."""
  names = re.findall(r"\\([A-Za-z]+)", text)
  huge = r"[0-9]{60}|[0-9]{4}!|[)}!]!|\^\{?-?[0-9]{5}|\^\{[^}]*[\^!]|\^[^\^]\^"
  return (all(n in _KNOWN for n in names) and not re.search(r"[0-9] +[0-9]|" + huge, text)
          and text.count("^") + text.count("!") <= 12 and not math_text.is_words(text)
          and bool(re.search(r"[0-9A-Za-z]", text)))
