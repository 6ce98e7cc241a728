"""Mathematical answers as text: one spelling for many, and units taken off.

Answers come from a policy or a data set, as plain text or LaTeX: "\\dfrac{1}{2}", "$0.50", "½",
"x = 5", "(1, 2]", "5 cm". Nothing here evaluates anything; `rljax.rewards.math` does.
"""

import re

_SYMBOLS = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*", "\u00f7": "/",
    "\u2044": "/", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u222a": "\\cup ", "\u2264": "\\le ",
    "\u2265": "\\ge ", "\u2260": "\\ne ", "\u00b1": "\\pm ", "\u00b0": "^\\circ ",
    "\u2208": "\\in ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u00bd": " \\frac{1}{2}",
    "\u00bc": " \\frac{1}{4}", "\u00be": " \\frac{3}{4}", "\u2153": " \\frac{1}{3}",
    "\u2154": " \\frac{2}{3}", "\u2205": "\\emptyset ", "\u00b2": "^{2}", "\u00b3": "^{3}",
    "\u2074": "^{4}", "\u03b8": "\\theta ", "\u03b1": "\\alpha ", "\u03b2": "\\beta "})
_NAMES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "cdot": "*", "times": "*", "div": "/",
    "leq": "le", "geq": "ge", "neq": "ne", "lbrace": "{", "rbrace": "}", "lvert": "|",
    "rvert": "|", "varnothing": "emptyset", "dots": "ldots", "lbrack": "[", "rbrack": "]",
    "langle": "(", "rangle": ")", "bmatrix": "pmatrix", "degree": "^\\circ"}
_DROPPED = re.compile(
    r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|textstyle|limits|boxed)(?![A-Za-z])"
    r"|\\[!,;:]|\\(?:quad|qquad)(?![A-Za-z])|\\[()\[\]]")
_STYLE = re.compile(r"\\(?:mathbf|mathrm|mathit|mathsf|mathbb|bold|boldsymbol|mathcal|operatorname)"
                    r"\s*\{([^{}]*)\}")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|hbox)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<![0-9.,])([0-9]{1,3})((?:,[0-9]{3})+)(?![0-9,])")
_ROOT = re.compile("\u221a\\s*(?:\\(([^()]*)\\)|([0-9A-Za-z]+))")
_SHORT_FRAC = re.compile(r"\\frac\s*(\{[^{}]*\}|[0-9A-Za-z])\s*(\{[^{}]*\}|[0-9A-Za-z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*([0-9A-Za-z])")
_NUMBER = r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_VALUE = rf"(?:{_NUMBER}(?:/[0-9]+)?|-?(?:[0-9]+\s*)?\\frac\{{[0-9]+\}}\{{[0-9]+\}})"
# A number and words: "5 cm", "12 square inches", "3 m/s^2".
_WITH_UNIT = re.compile(
    rf"({_VALUE})\s*([A-Za-z][A-Za-z .]*(?:/\s*[A-Za-z]+)?(?:\^\{{?[23]\}}?)?)\.?")
_BASE = re.compile(r"([0-9A-Fa-f]+)_\{?([0-9]{1,2})\}?")

# Words that change what a number means, or say that it is not meant.
_NOT_UNITS = frozenset(
    "or and not is isnt are was to than more less fewer plus minus times over squared cubed half "
    "percent pct hundred thousand million billion trillion dozen pair pairs pi sqrt root log ln "
    "sin cos tan exp mod maybe about approximately wrong incorrect if else factorial choose "
    "k mil mn bn e i x y z n no none nor but except unless either both another other".split())
_LETTER_UNITS = frozenset("m g s h l km cm mm kg mg ml ft in mi yd lb oz hr min sec mph".split())
_ALIASES = {
    "centimeter": "cm", "centimetre": "cm", "meter": "m", "metre": "m", "kilometer": "km",
    "kilometre": "km", "millimeter": "mm", "millimetre": "mm", "inche": "in", "inch": "in",
    "foot": "ft", "feet": "ft", "mile": "mi", "yard": "yd", "gram": "g", "kilogram": "kg",
    "hour": "h", "hr": "h", "minute": "min", "second": "s", "sec": "s", "liter": "l", "litre": "l",
    "pound": "lb", "ounce": "oz", "sq": "square", "degree": "deg", "unit": "", "dollar": "$",
    "usd": "$", "buck": "$"}
ROW = "\x1e"  # stands for the end of a matrix's row
DEGREE, DOLLAR, PERCENT = "deg", "$", "%"


def normalise(text: str) -> str:
  """One spelling: ASCII and short LaTeX, without layout, thousands separators or a final stop."""
  text = text.strip().translate(_SYMBOLS).replace("\\\\", ROW)
  text = text.replace("\\%", "%").replace("\\$", "USD ")
  text = text.replace("{,}", ",").replace(",\\!", ",")
  text = text.replace("$", "USD " if _is_price(text) else "")
  text = _DROPPED.sub("", text).replace("\\ ", " ").replace("~", " ")
  text = text.replace("\\{", "\\lbrace ").replace("\\}", "\\rbrace ")
  text = re.sub(r"\\([A-Za-z]+)", _rename, text)
  text = text.replace("{bmatrix}", "{pmatrix}")
  for _ in range(3):
    text = _STYLE.sub(r"\1", text)
  text = _ROOT.sub(lambda m: "\\sqrt{" + (m[1] or m[2]) + "}", text)
  text = _SHORT_ROOT.sub(r"\\sqrt{\1}", text)
  text = _SHORT_FRAC.sub(lambda m: "\\frac" + _braced(m[1]) + _braced(m[2]), text)
  text = _THOUSANDS.sub(lambda m: m[1] + m[2].replace(",", ""), text)
  text = re.sub(r"[ \t\n\r]+", " ", text).strip()
  text = re.sub(r"\\log_([0-9a-z]) ?([0-9a-z]+)", r"\\log_{\1}(\2)", text)
  text = re.sub(r"^[A-Za-z] ?\\in(?![a-z]) ?", "", text)
  return text[:-1].strip() if text.endswith(".") else text


def _rename(match):
  name = _NAMES.get(match[1])
  if match[1] in ("lbrace", "rbrace"):
    return match[0]
  return match[0] if name is None else ("\\" + name if name.isalpha() else name)


def _is_price(text):
  return text.count("$") == 1 and re.search(r"\$\s*-?[0-9.]", text) is not None


def _braced(part):
  return part if part.startswith("{") else "{" + part + "}"


def take_unit(text: str) -> tuple[str, str]:
  """(value, unit) of a normalised answer; unit "" when there is none, singular where known.

  A unit stands after a plain number in words, or in \\text{}; "$", "%" and degrees count too. Words
  that change the number ("5 million", "3 or 4", "2x") are no unit.
  """
  if text.startswith("USD "):
    text, found = text[4:].strip(), DOLLAR
  elif text.startswith("-USD "):
    text, found = "-" + text[5:].strip(), DOLLAR
  else:
    found = ""
  for ending, unit in (("%", PERCENT), ("^\\circ", DEGREE), ("^{\\circ}", DEGREE),
                       ("\\text{percent}", PERCENT), (" percent", PERCENT)):
    if text.endswith(ending) and not found:
      return text[:-len(ending)].strip(), unit
  match = re.fullmatch(r"(.*[0-9A-Za-z})\]])\s*\\(?:text|mbox|textrm)\s*\{([^{}]*)\}"
                       r"((?:\^\{?[23]\}?)?)", text)
  if match:
    name = _unit_name(match[2] + match[3], quoted=True)
    if name and re.search("[0-9]|\\\\", match[1]):
      return match[1].strip(), _join(found, name)
  match = _WITH_UNIT.fullmatch(text)
  if match:
    name = _unit_name(match[2], quoted=False)
    if name and not (text[match.end(1)] != " " and name not in _LETTER_UNITS and len(name) < 3):
      return match[1].strip(), _join(found, name)
  return text, found


def _join(found, name):
  return found if found and name in (found, "") else (name.strip() or found)


def _unit_name(text, quoted):
  words = re.findall(r"[A-Za-z]+|[23]|/", text.lower())
  if not words or len(words) > 6 or any(w in _NOT_UNITS for w in words):
    return ""
  if not quoted and any(len(w) == 1 and w.isalpha() and w not in _LETTER_UNITS for w in words):
    return ""
  words = [_ALIASES.get(w.rstrip("s") if len(w) > 2 else w, w.rstrip("s") if len(w) > 2 else w)
           for w in words]
  if words[0] in ("square", "cubic") and len(words) > 1:
    words = [*words[1:], "2" if words[0] == "square" else "3"]
  return " ".join(w for w in words if w) or " "


def unit_matches(a: str, b: str) -> bool:
  """Whether two units may belong to the same quantity: one is missing, or they are the same."""
  return not a or not b or a == b


def text_key(text: str) -> str:
  """What is compared of an answer in words: lower case, without \\text{}, brackets and spaces."""
  text = _TEXT.sub(r"\1", text).casefold()
  match = re.fullmatch(r"\s*\(([a-z])\)\s*", text)
  return re.sub(r"\s+", "", match[1] if match else text).strip(".")


def is_words(text: str) -> bool:
  """Whether the answer holds words rather than mathematics."""
  bare = re.sub(r"\\[A-Za-z]+", " ", _TEXT.sub(" wordy ", text))
  return bool(re.search(r"[A-Za-z]{2,}|[^\x00-\x7f]", bare))


def split_base(text: str) -> tuple[str, str] | None:
  """("1110", "4") of "1110_4"; None without a base."""
  match = _BASE.fullmatch(text.replace(" ", ""))
  return (match[1].lower(), match[2]) if match else None


def split_top(text: str, separators: tuple[str, ...]) -> list[str]:
  """The parts between separators that stand outside all brackets."""
  parts, depth, start, i = [], 0, 0, 0
  while i < len(text):
    if text[i] in "([{":
      depth += 1
    elif text[i] in ")]}":
      depth -= 1
    found = next((s for s in separators if depth == 0 and text.startswith(s, i)), None)
    if found:
      parts.append(text[start:i].strip())
      i = start = i + len(found)
    else:
      i += 1
  return [*parts, text[start:].strip()]


def enclosing(text: str) -> tuple[str, str] | None:
  """("(]", inside) if one pair of ( or [ brackets encloses the whole text, of either kind."""
  if len(text) < 2 or text[0] not in "([" or text[-1] not in ")]":
    return None
  depth = 0
  for i, c in enumerate(text):
    depth += (c in "([{") - (c in ")]}")
    if depth == 0:
      return (text[0] + text[-1], text[1:-1]) if i == len(text) - 1 else None
  return None
