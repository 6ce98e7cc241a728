"""Exact arithmetic on untrusted text: a bounded parser, its values, and canonical forms.

Nothing here calls `eval`. Text comes from a model, so length, nesting depth and the size of every
intermediate value are bounded, and whatever exceeds a bound is an `ArithmeticError`, quickly.

A tree is `("num", text)`, `("neg", x)` or `(op, x, y)` with op one of `+ - * / ^`.
"""

import re
from fractions import Fraction

MAX_CHARS = 500  # of an expression
MAX_DEPTH = 40  # of nesting, far below Python's recursion limit
MAX_BITS = 4096  # of any numerator or denominator on the way
MAX_DIGITS = 100  # of one literal
MAX_EXPONENT = 400  # of one literal in scientific notation

_TOKEN = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+|[-+*/^()])")
_NUMBER = re.compile(r"([-+]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,6}))?")
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4, "num": 5}


def parse_number(text: str) -> Fraction:
  """The exact value of "12", "-1,234.50", "3/4" or "1e-5" (the whole text, spaces stripped).

  Raises:
    ArithmeticError: anything else (nan, inf, a zero denominator, too many digits).
  """
  text = text.strip()
  if len(text) > 2 * MAX_DIGITS + 10:
    raise ArithmeticError("a number with too many digits")
  if re.fullmatch(r"[-+]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?", text):
    text = text.replace(",", "")
  top, slash, bottom = text.partition("/")
  if not slash:
    return _decimal(top)
  divisor = _decimal(bottom)
  if divisor == 0:
    raise ArithmeticError("division by zero")
  return _decimal(top) / divisor


def _decimal(text: str) -> Fraction:
  match = _NUMBER.fullmatch(text.strip())
  if not match or not (match[2] or match[3]):
    raise ArithmeticError(f"not a number: {text[:40]!r}")
  whole, part, exponent = match[2] or "", match[3] or "", int(match[4] or 0)
  if len(whole) + len(part) > MAX_DIGITS or abs(exponent) > MAX_EXPONENT:
    raise ArithmeticError("a number with too many digits")
  value = Fraction(int(whole + part), 10 ** len(part)) * Fraction(10) ** exponent
  return -value if match[1] == "-" else value


def to_fraction(value) -> Fraction:
  """The exact value of a task's answer: an int, a float (as it prints) or text.

  Raises:
    ArithmeticError: not a finite number.
  """
  if isinstance(value, int | Fraction) and not isinstance(value, bool):
    return Fraction(value)
  if isinstance(value, float | str):
    return parse_number(str(value))
  raise ArithmeticError(f"not a number: {value!r}")


def parse(text: str) -> tuple:
  """The tree of an infix expression; `* /` bind tighter than `+ -`, `^` takes a literal exponent.

  Raises:
    ArithmeticError: not an expression, or beyond MAX_CHARS or MAX_DEPTH.
  """
  tokens = _tokens(text)
  tree, rest = _sum(tokens, 0, 0)
  if rest != len(tokens):
    raise ArithmeticError(f"unexpected {tokens[rest]!r}")
  return tree


def _tokens(text):
  if len(text) > MAX_CHARS:
    raise ArithmeticError(f"an expression of more than {MAX_CHARS} characters")
  tokens, position, text = [], 0, text.rstrip()
  while position < len(text):
    match = _TOKEN.match(text, position)
    if not match:
      raise ArithmeticError(f"cannot read {text[position:position + 20]!r}")
    tokens.append(match[1])
    position = match.end()
  return tokens


def _sum(tokens, i, depth):
  if depth > MAX_DEPTH:
    raise ArithmeticError(f"more than {MAX_DEPTH} levels of nesting")
  tree, i = _product(tokens, i, depth)
  while i < len(tokens) and tokens[i] in "+-":
    right, j = _product(tokens, i + 1, depth)
    tree, i = (tokens[i], tree, right), j
  return tree, i


def _product(tokens, i, depth):
  tree, i = _signed(tokens, i, depth)
  while i < len(tokens) and tokens[i] in "*/":
    right, j = _signed(tokens, i + 1, depth)
    tree, i = (tokens[i], tree, right), j
  return tree, i


def _signed(tokens, i, depth):
  if i < len(tokens) and tokens[i] in "+-":  # one sign only: "3--2" is a number, "3---2" a slip
    tree, j = _power(tokens, i + 1, depth)
    return (tree if tokens[i] == "+" else ("neg", tree)), j
  return _power(tokens, i, depth)


def _power(tokens, i, depth):
  tree, i = _atom(tokens, i, depth)
  if i < len(tokens) and tokens[i] == "^":
    if i + 1 >= len(tokens) or not re.fullmatch("[0-9]{1,2}", tokens[i + 1]):
      raise ArithmeticError("an exponent must be a small whole number")
    tree, i = ("^", tree, ("num", tokens[i + 1])), i + 2
  return tree, i


def _atom(tokens, i, depth):
  if i >= len(tokens):
    raise ArithmeticError("the expression ends too early")
  if tokens[i] == "(":
    tree, i = _sum(tokens, i + 1, depth + 1)
    if i >= len(tokens) or tokens[i] != ")":
      raise ArithmeticError("a bracket is not closed")
    return tree, i + 1
  if tokens[i][0] not in "0123456789.":
    raise ArithmeticError(f"unexpected {tokens[i]!r}")
  return ("num", tokens[i]), i + 1


def value(tree: tuple) -> Fraction:
  """The exact value.

  Raises:
    ArithmeticError: division by zero (a ZeroDivisionError), or a value beyond MAX_BITS.
  """
  op = tree[0]
  if op == "num":
    return _decimal(tree[1])
  if op == "neg":
    return -value(tree[1])
  a, b = value(tree[1]), value(tree[2])
  if op == "^" and int(b) * _bits(a) > MAX_BITS:  # before the power is taken, not after
    raise ArithmeticError("a value that is too large")
  if op == "/" and b == 0:
    raise ZeroDivisionError("division by zero")
  result = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b,
            "^": lambda: a ** int(b)}[op]()
  if _bits(result) > MAX_BITS:
    raise ArithmeticError("a value that is too large")
  return result


def _bits(x: Fraction) -> int:
  return max(x.numerator.bit_length(), x.denominator.bit_length())


def literals(tree: tuple) -> list[Fraction]:
  """The numbers written in the expression, left to right."""
  if tree[0] == "num":
    return [_decimal(tree[1])]
  return [x for child in tree[1:] for x in literals(child)]


def render(tree: tuple) -> str:
  """The expression with few brackets that parses back to the same tree ("2-(-3)", not "2--3")."""
  op = tree[0]
  if op == "num":
    return tree[1]
  if op == "neg":
    return "-" + _bracket(tree[1], _PRECEDENCE["neg"] + 1)
  mine = _PRECEDENCE[op]
  left = _bracket(tree[1], mine + (op == "^"))
  right = _bracket(tree[2], mine + 1)
  return left + op + (f"({right})" if right[0] == "-" else right)


def _bracket(tree, least):
  text = render(tree)
  return text if _PRECEDENCE[tree[0]] >= least else f"({text})"


def key(tree: tuple) -> str:
  """Canonical text: equal for expressions that differ by spaces, brackets, zeros or operand order.

  Two problems with one key are the same problem, so they are never on both sides of a split.
  """
  op = tree[0]
  if op == "num":
    return decimal_text(_decimal(tree[1]))
  if op == "neg":
    return f"(-{key(tree[1])})"
  if op in "+*":
    return "(" + op.join(sorted(key(x) for x in _terms(tree, op))) + ")"
  return f"({key(tree[1])}{op}{key(tree[2])})"


def tidy(text: str) -> str:
  """The expression without spaces and a leading "+", its numbers plain (".50" -> "0.5").

  Raises:
    ArithmeticError: as `parse`.
  """
  return "".join(decimal_text(_decimal(token)) if token[0] in "0123456789." else token
                 for token in _tokens(text)).removeprefix("+")


def _terms(tree, op):
  return _terms(tree[1], op) + _terms(tree[2], op) if tree[0] == op else [tree]


def decimal_text(x: Fraction, places: int | None = None) -> str:
  """"12", "-0.5": no exponent, no trailing zeros. `places` rounds half to even first.

  Raises:
    ArithmeticError: no `places`, and the decimal expansion does not end.
  """
  if places is not None:
    x = Fraction(round(x, places))
  n, d = x.denominator, 0
  while n % 10 == 0:
    n, d = n // 10, d + 1
  for prime in (2, 5):
    while n % prime == 0:
      n, d = n // prime, d + 1
  if n != 1:
    raise ArithmeticError(f"{x} has no finite decimal form")
  digits = str(abs(x.numerator) * 10 ** d // x.denominator).rjust(d + 1, "0")
  text = (digits[:-d] + "." + digits[-d:]).rstrip("0").rstrip(".") if d else digits
  return "-" + text if x < 0 else text
