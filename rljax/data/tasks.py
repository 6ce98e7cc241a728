"""Task sets, the split rule, and procedural generators.

A generator is a function of keyword-only hyperparameters that returns a `TaskSet`; a config names
it as a leaf, `fn("rljax.data.tasks:addition", digits=3, split="train", size=20000)`. Task i is a
function of (seed, generator, split, i), whatever was drawn before it.

Train and test never share a problem, whatever their seeds and sizes: `split_of` sends a problem to
one of them by a hash of its canonical key, and a generator rejects draws of the other split. Where
the space is small a task set repeats problems, but never a task id.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence

from rljax import rng
from rljax.data import arithmetic
from rljax.types import Task

MAX_DRAWS = 5000  # rejections before a split counts as empty; one problem in 500 is still found
_CACHED = 2**16  # tasks kept: a draw of a rare split is slow, and evals ask for the same again


class TaskSet(Sequence):
  """A read-only sequence of tasks: `len(ts)`, `ts[i]`, iteration, slices (task sets again).

  Args:
    tasks: the tasks, or a function of the index.
    size: number of tasks; needed with a function.
    counts: what a reader left out, by reason, for the report.
  """

  def __init__(self, tasks: Sequence[Task] | Callable[[int], Task], size: int | None = None, *,
               counts: Mapping[str, int] | None = None):
    self.counts = dict(counts or {})
    self._draw = tasks if callable(tasks) else tuple(tasks).__getitem__
    self._size = len(tasks) if size is None else size

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, i):
    if isinstance(i, slice):
      chosen = range(self._size)[i]
      return TaskSet(lambda j: self._draw(chosen[j]), len(chosen), counts=self.counts)
    if not -self._size <= i < self._size:
      raise IndexError(f"task {i} of {self._size}")
    return self._draw(int(i) % self._size)


def split_of(key: str, test_share: float) -> str:
  """"test" for the share of all keys whose hash falls below `test_share`, else "train"."""
  first = hashlib.sha256(key.encode()).digest()[:8]
  return "test" if int.from_bytes(first, "big") < test_share * 2**64 else "train"


def check_split(name: str, split: str, test_share: float) -> None:
  """Raises ValueError for an unknown split, or one that `test_share` leaves empty."""
  if split not in ("train", "test"):
    raise ValueError(f"{name}: split must be 'train' or 'test', found {split!r}")
  if not 0 <= test_share <= 1:
    raise ValueError(f"{name}: test_share must lie between 0 and 1, found {test_share}")
  if test_share == (0 if split == "test" else 1):
    raise ValueError(f"{name}: split {split!r} has no problems with test_share={test_share}")


def fill(template: str, fields: Mapping[str, object]) -> str:
  """Puts `fields` where the template says "{name}"; other braces (LaTeX, JSON) stay.

  Raises:
    ValueError: the template leaves a field out, which would make all prompts alike.
  """
  for name in fields:
    if "{" + name + "}" not in template:
      raise ValueError(f"the template {template!r} lacks {{{name}}}")
  # One pass, so a value that itself contains "{name}" stays text.
  return re.sub(r"\{(" + "|".join(fields) + r")\}", lambda m: str(fields[m[1]]), template)


def _check(name, split, size, test_share) -> None:
  check_split(name, split, test_share)
  if size < 1:
    raise ValueError(f"{name}: size must be at least 1, found {size}")


def generate(name, draw, *, split, size, seed, test_share) -> TaskSet:
  """A task set of drawn problems; see the module's docstring for what holds of it.

  Args:
    draw: `(numpy generator) -> (canonical key, Task)`, or None to draw again.

  Raises:
    ValueError: the split has no problems with these settings.
  """
  _check(name, split, size, test_share)

  @functools.lru_cache(maxsize=_CACHED)
  def task(i):
    generator = rng.host(seed, name, split, i)
    for _ in range(MAX_DRAWS):
      drawn = draw(generator)
      if drawn is not None and split_of(drawn[0], test_share) == split:
        return dataclasses.replace(drawn[1], id=f"{name}/{split}/{i}")
    raise ValueError(f"{name}: split {split!r} has no problems with these settings "
                     f"({MAX_DRAWS} draws, test_share={test_share})")

  task(0)  # an empty split is told at build, not in the middle of a run
  return TaskSet(task, size)


def at_least(name, least, values: Mapping[str, float]) -> None:
  for key, value in values.items():
    if value < least:
      raise ValueError(f"{name}: {key} must be at least {least}, found {value}")


def _operators(name, operators, known) -> list[str]:
  if not operators or set(operators) - set(known):
    raise ValueError(f"{name}: operators must be some of {known!r}, found {operators!r}")
  return list(operators)


def _task(prompt, answer, verifier, demo, info=None) -> Task:
  return Task(id="", prompt=prompt, answer=answer, verifier=f"rljax.rewards.verify:{verifier}",
              demo=demo, info=info or {})


def addition(*, digits: int = 3, pad: bool = False, template: str = "{problem}=",
             split: str = "train", size: int = 20000, seed: int = 0,
             test_share: float = 0.1) -> TaskSet:
  """"123+45=" -> "168"; operands uniform in [0, 10**digits).

  `pad` writes operands with `digits` digits and the answer with one more ("123+045=" -> "0168"),
  which fixes all lengths. a+b and b+a belong to one split.
  """
  at_least("addition", 1, {"digits": digits})

  def draw(generator):
    a, b = (int(x) for x in generator.integers(0, 10**digits, size=2))
    left, right = (str(x).zfill(digits * pad) for x in (a, b))
    answer = str(a + b).zfill((digits + 1) * pad)
    key = arithmetic.key(arithmetic.parse(f"{a}+{b}"))
    return key, _task(fill(template, {"problem": f"{left}+{right}"}), answer, "exact", answer)

  return generate("addition", draw, split=split, size=size, seed=seed, test_share=test_share)


def modular(*, modulus: int = 97, operators: str = "+-*", template: str = "{problem}=",
            split: str = "train", size: int = 20000, seed: int = 0,
            test_share: float = 0.1) -> TaskSet:
  """"(12*34)%97=" -> "20"; operands uniform in [0, modulus), the answer too."""
  at_least("modular", 2, {"modulus": modulus})
  ops = _operators("modular", operators, "+-*")

  def draw(generator):
    a, b = (int(x) for x in generator.integers(0, modulus, size=2))
    op = ops[generator.integers(len(ops))]
    answer = str({"+": a + b, "-": a - b, "*": a * b}[op] % modulus)
    key = arithmetic.key((op, ("num", str(a)), ("num", str(b)))) + f"%{modulus}"
    problem = f"({a}{op}{b})%{modulus}"
    return key, _task(fill(template, {"problem": problem}), answer, "exact", answer)

  return generate("modular", draw, split=split, size=size, seed=seed, test_share=test_share)


def compare(*, digits: int = 3, template: str = "{problem}=", split: str = "train",
            size: int = 20000, seed: int = 0, test_share: float = 0.1) -> TaskSet:
  """"12?305=" -> "<"; each of < > = is the answer equally often."""
  at_least("compare", 1, {"digits": digits})

  def draw(generator):
    a, b = (int(x) for x in generator.integers(0, 10**digits, size=2))
    wanted = "<>="[generator.integers(3)]
    if wanted != "=" and a == b:
      return None
    a, b = {"<": (min(a, b), max(a, b)), ">": (max(a, b), min(a, b)), "=": (a, a)}[wanted]
    key = f"{min(a, b)}?{max(a, b)}"
    return key, _task(fill(template, {"problem": f"{a}?{b}"}), wanted, "exact", wanted)

  return generate("compare", draw, split=split, size=size, seed=seed, test_share=test_share)


def sorting(*, length: int = 5, low: int = 0, high: int = 9, separator: str = " ",
            template: str = "sort {problem}=", split: str = "train", size: int = 20000,
            seed: int = 0, test_share: float = 0.1) -> TaskSet:
  """"sort 3 1 2=" -> "1 2 3"; `length` numbers uniform in [low, high], repeats allowed.

  An empty `separator` writes digits side by side ("sort 312="). Two orders of the same numbers
  are different problems with one answer, and belong to one split.
  """
  at_least("sorting", 1, {"length": length})
  at_least("sorting", low, {"high": high})
  if separator.strip(", ") or (not separator and not 0 <= low <= high <= 9):
    raise ValueError("sorting: separator must be spaces or commas, or empty for digits 0 to 9, "
                     f"found {separator!r}")

  def draw(generator):
    items = [int(x) for x in generator.integers(low, high + 1, size=length)]
    answer = sorted(items)
    prompt = fill(template, {"problem": separator.join(map(str, items))})
    return separator.join(map(str, answer)), _task(
        prompt, answer, "sorted_list", separator.join(map(str, answer)), {"separator": separator})

  return generate("sorting", draw, split=split, size=size, seed=seed, test_share=test_share)


def strings(*, how: str = "reverse", length: int = 5, min_length: int = 1,
            alphabet: str = "abcdefghij", template: str = "{problem}=", split: str = "train",
            size: int = 20000, seed: int = 0, test_share: float = 0.1) -> TaskSet:
  """"abca=" -> "acba" (`how="reverse"`) or "abca" (`"copy"`); length uniform in its range."""
  rules = {"reverse": lambda s: s[::-1], "copy": lambda s: s}
  if how not in rules:
    raise ValueError(f"strings: how must be one of {', '.join(rules)}, found {how!r}")
  at_least("strings", 1, {"min_length": min_length, "letters of the alphabet": len(alphabet)})
  at_least("strings", min_length, {"length": length})

  def draw(generator):
    n = generator.integers(min_length, length + 1)
    text = "".join(alphabet[k] for k in generator.integers(0, len(alphabet), size=n))
    answer = rules[how](text)
    return text, _task(fill(template, {"problem": text}), answer, "exact", answer)

  return generate("strings", draw, split=split, size=size, seed=seed, test_share=test_share)


def arithmetic_chain(*, steps: int = 3, min_steps: int | None = None, low: int = 0, high: int = 20,
                     operators: str = "+-*/", forms: Sequence[str] = ("integer",),
                     places: int = 2, max_value: float = 1e6, template: str = "{problem}=",
                     split: str = "train", size: int = 20000, seed: int = 0,
                     test_share: float = 0.1) -> TaskSet:
  """Random expressions of k binary steps, k uniform in [min_steps, steps] (default: k = steps).

  RandomCalculation (github.com/wumingqi/LLM-Math-Evaluation): operands are integers in [low, high]
  and fractions, squares or cubes of them (`forms`: "integer", "fraction", "square", "cube"); each
  step puts one more operand on either side. The operator and bracket probabilities of the paper
  are not published; ours are uniform, with the fewest brackets that keep the meaning.

  Values are exact; division by zero and anything beyond `max_value` on the way is redrawn; the
  answer is rounded once, at the end, to `places` decimals (half to even). `info["exact"]` keeps
  the fraction.
  """
  least = steps if min_steps is None else min_steps
  at_least("arithmetic_chain", 1, {"min_steps": least})
  at_least("arithmetic_chain", least, {"steps": steps})
  at_least("arithmetic_chain", low, {"high": high})
  ops = _operators("arithmetic_chain", operators, "+-*/")
  if not forms or set(forms) - set(_FORMS):
    raise ValueError(f"arithmetic_chain: forms must be some of {', '.join(_FORMS)}, found {forms}")

  def operand(generator):
    a, b = (int(x) for x in generator.integers(low, high + 1, size=2))
    return _FORMS[forms[generator.integers(len(forms))]](_number(a), _number(b))

  def draw(generator):
    tree, k = operand(generator), int(generator.integers(least, steps + 1))
    try:
      for _ in range(k):
        op, new = ops[generator.integers(len(ops))], operand(generator)
        tree = (op, tree, new) if generator.integers(2) else (op, new, tree)
        if abs(arithmetic.value(tree)) > max_value:
          return None
    except ArithmeticError:
      return None
    exact = arithmetic.value(tree)
    answer = arithmetic.decimal_text(exact, places)
    return arithmetic.key(tree), _task(
        fill(template, {"problem": arithmetic.render(tree)}), answer, "number", answer,
        {"steps": k, "exact": str(exact)})

  return generate("arithmetic_chain", draw, split=split, size=size, seed=seed,
                   test_share=test_share)


_FORMS = {
    "integer": lambda a, b: a,
    "fraction": lambda a, b: ("/", a, b),
    "square": lambda a, b: ("^", a, ("num", "2")),
    "cube": lambda a, b: ("^", a, ("num", "3")),
}


def _number(x: int) -> tuple:
  return ("num", str(x)) if x >= 0 else ("neg", ("num", str(-x)))


def countdown(*, numbers: int = 3, low: int = 1, high: int = 20, max_target: int = 100,
              operators: str = "+-*/", use_all: bool = True, template: str = "{numbers}:{target}=",
              split: str = "train", size: int = 20000, seed: int = 0,
              test_share: float = 0.1) -> TaskSet:
  """"3 7 5:22=" -> "3*5+7": an expression over the numbers, each used at most once, for the target.

  Every problem has a solution with whole, non-negative intermediate values (the demo). With
  `use_all` each number must be used exactly once; without, any part of them may do.
  """
  at_least("countdown", 2, {"numbers": numbers})
  at_least("countdown", 1, {"low": low, "max_target": max_target})
  at_least("countdown", low, {"high": high})
  ops = _operators("countdown", operators, "+-*/")

  def draw(generator):
    given = [int(x) for x in generator.integers(low, high + 1, size=numbers)]
    pool = [_number(x) for x in given]
    for _ in range(numbers - 1 if use_all else generator.integers(1, numbers)):
      i, j = generator.permutation(len(pool))[:2]
      new = (ops[generator.integers(len(ops))], pool[i], pool[j])
      try:
        if arithmetic.value(new) < 0 or arithmetic.value(new).denominator != 1:
          return None
      except ArithmeticError:
        return None
      pool = [new] + [t for k, t in enumerate(pool) if k not in (i, j)]
    target = int(arithmetic.value(pool[0]))
    if not 1 <= target <= max_target:
      return None
    prompt = fill(template, {"numbers": " ".join(map(str, given)), "target": target})
    return f"{sorted(given)}:{target}", _task(
        prompt, target, "countdown", arithmetic.render(pool[0]),
        {"numbers": given, "use_all": use_all})

  return generate("countdown", draw, split=split, size=size, seed=seed, test_share=test_share)


def reasoning_gym(*, name: str, config: Mapping | None = None, template: str = "{question}",
                  split: str = "train", size: int = 20000, seed: int = 0,
                  test_share: float = 0.1) -> TaskSet:
  """A reasoning-gym data set, scored by its own `score_answer`.

  Train and test draw from different seeds, and the hash of the question decides the split as
  everywhere here, so a test question never occurs in any train set. (reasoning-gym seeds item i
  with seed + i: two seeds alone would give shifted copies of the same questions.)

  Args:
    name: of the data set, such as "chain_sum".
    config: its own settings, without `seed` and `size`.
    size: of this set; reasoning-gym is asked for several times as many, to choose from. A few of
      its data sets (acre) make all of them up front: give those a small size.

  Raises:
    ValueError: an unknown name or setting, or the package is missing.
  """
  _check("reasoning_gym", split, size, test_share)
  share = test_share if split == "test" else 1 - test_share
  tries = 1 if share == 1 else math.ceil(math.log(1e-9) / math.log(1 - share))
  spec = json.dumps({"name": name, "config": dict(config or {}), "size": size * tries,
                     "seed": rng.number(f"{name}/{split}/{seed}")}, sort_keys=True)
  data = gym_dataset(spec)

  def task(i):
    for index in range(i, size * tries, size):  # item i, or the next one that is of this split
      entry = data[index]
      if split_of(entry["question"], test_share) == split:
        demo = entry["answer"] if isinstance(entry["answer"], str) else ""
        return dataclasses.replace(
            _task(fill(template, {"question": entry["question"]}), entry["answer"],
                  "reasoning_gym", demo, {"spec": spec, "index": index}),
            id=f"reasoning_gym/{name}/{split}/{i}")
    raise ValueError(f"reasoning_gym {name!r}: split {split!r} has no problems with "
                     f"test_share={test_share}")

  task(0)
  return TaskSet(functools.lru_cache(maxsize=_CACHED)(task), size)


@functools.lru_cache(maxsize=32)
def gym_dataset(spec: str):
  """The reasoning-gym data set of a task's `info["spec"]`; the verifier asks for the same one."""
  fields = json.loads(spec)
  try:
    from reasoning_gym import factory
  except ModuleNotFoundError as e:
    raise ValueError(f"reasoning_gym tasks need the package {e.name!r}: "
                     "pip install reasoning-gym") from None
  if fields["name"] not in factory.DATASETS:
    close = difflib.get_close_matches(fields["name"], list(factory.DATASETS), n=1)
    raise ValueError(f"reasoning_gym has no data set {fields['name']!r}"
                     + (f"; did you mean {close[0]!r}?" if close else ""))
  try:
    return factory.create_dataset(fields["name"], **fields["config"], seed=fields["seed"],
                                  size=fields["size"])
  except (TypeError, ValueError, AssertionError) as e:
    raise ValueError(f"reasoning_gym {fields['name']!r} refuses {fields['config']}: {e}") from None
