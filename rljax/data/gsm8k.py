"""Task sets from any file of GSM8K's form: `question`, `answer` with the result after "####".

Data: github.com/openai/grade-school-math (MIT). The worked solutions annotate each calculation as
`<<48/2=24>>`; `gsm8k_calc` makes real, small problems of these for models that cannot read yet.
"""

import collections
import logging
import re

from rljax import config
from rljax.data import arithmetic, datasets, tasks
from rljax.types import Task

log = logging.getLogger(__name__)

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_ALLOWED = frozenset("0123456789+-*/(). ")


def gsm8k(*, path: str | None = None, template: str = "{question}", chat: bool = True,
          on_bad_row: str = "error", limit: int | None = None) -> tasks.TaskSet:
  """The word problems. The demo is the worked solution without annotations, ending in "#### n".

  Args:
    path: anything `datasets.rows` reads.
    template: wraps the question at "{question}".
    chat: the prompt is one user message, else plain text.
    limit: keep the first `limit` problems.

  Raises:
    ConfigError: as `datasets.rows`; a row without `question`, `answer` or a number after "####"
      (counted instead with `on_bad_row="skip"`).
  """
  datasets.check_template(template, "question")

  def make(row):
    prompt = tasks.fill(template, {"question": datasets.field(row, "question")})
    solution, mark, last = str(datasets.field(row, "answer")).rpartition("####")
    answer = last.strip().replace(",", "").replace("$", "")
    try:
      arithmetic.parse_number(answer if mark else "")
    except ArithmeticError:
      raise datasets.BadRow("has no number after '####' in its field 'answer'") from None
    demo = f"{_ANNOTATION.sub('', solution).rstrip()}\n#### {answer}".lstrip()
    return Task(id="", prompt=[{"role": "user", "content": prompt}] if chat else prompt,
                answer=answer, verifier="rljax.rewards.verify:number", demo=demo)

  return datasets.from_rows("gsm8k", datasets.rows(path, on_bad_row=on_bad_row), make,
                            on_bad_row=on_bad_row, limit=limit)


def gsm8k_calc(*, path: str | None = None, split: str = "train", test_share: float = 0.2,
               max_chars: int = 32, template: str = "{problem}=", on_bad_row: str = "error",
               limit: int | None = None) -> tasks.TaskSet:
  """The annotated calculations, "48/2=" -> "24", each equation once, in order of appearance.

  Both sides are made plain ("0.50*4" and ".5*4" are one equation). Kept is what consists of digits
  and + - * / ( ) . and whose exact value is the annotated result, or rounds to it at the decimals
  that the annotation shows. Equations are split by hash, and those that differ only by the order of
  operands or by brackets stay together: the train set of one file and the test set of another never
  share one. (So `split="test"` of test.jsonl is its `test_share`, not all of it.)

  Args:
    max_chars: of the plain left side.

  The result's `counts` say what became of the annotations: "annotations", "rounded" (kept);
  "unreadable", "trivial" ("125=125"), "wrong", "too_long", "duplicate", "other_split" (left out);
  and "skipped" rows.

  Raises:
    ConfigError: as `datasets.rows`; a row without `answer`; nothing left.
    ValueError: an unknown split, or one that `test_share` leaves empty.
  """
  tasks.check_split("gsm8k_calc", split, test_share)
  datasets.check_template(template, "problem")
  if limit is not None and limit < 1:
    raise config.ConfigError(f"gsm8k_calc: limit must be at least 1, found {limit}")
  found = datasets.rows(path, on_bad_row=on_bad_row)
  annotated = datasets.from_rows(
      "gsm8k_calc", found, lambda row: Task(id="", prompt="", answer=datasets.field(row, "answer")),
      on_bad_row=on_bad_row)
  counts = collections.Counter(annotated.counts)
  kept: dict[str, str] = {}
  for task in annotated:
    for text in _ANNOTATION.findall(str(task.answer)):
      counts["annotations"] += 1
      _add_equation(kept, counts, text, max_chars=max_chars, split=split, test_share=test_share)
  log.info("%s: %d equations, %s", found.path, len(kept), dict(counts))
  if not kept:
    raise config.ConfigError(f"{found.path} has no equations for split {split!r} ({dict(counts)})")
  return tasks.TaskSet([
      Task(id=f"gsm8k_calc/{split}/{i}", prompt=tasks.fill(template, {"problem": left}),
           answer=right, verifier="rljax.rewards.verify:exact", demo=right)
      for i, (left, right) in enumerate(list(kept.items())[:limit])], counts=counts)


def _add_equation(kept, counts, text, *, max_chars, split, test_share):
  left, _, right = text.partition("=")
  try:
    tree, result = arithmetic.parse(left), arithmetic.parse_number(right)
    left, answer = arithmetic.tidy(left), arithmetic.decimal_text(result)
    value = arithmetic.value(tree)
    key = arithmetic.key(tree)
  except ArithmeticError:
    counts["unreadable"] += 1
    return
  places = len(answer.partition(".")[2])
  if set(left) - _ALLOWED:
    counts["unreadable"] += 1
  elif tree[0] == "num" or (tree[0] == "neg" and tree[1][0] == "num"):
    counts["trivial"] += 1
  elif abs(value - result) * 10**places * 2 > 1:
    counts["wrong"] += 1
  elif len(left) > max_chars:
    counts["too_long"] += 1
  elif left in kept:
    counts["duplicate"] += 1
  elif tasks.split_of(key, test_share) != split:
    counts["other_split"] += 1
  else:
    counts["rounded"] += value != result
    kept[left] = answer


def generated_calc(*, digits: int = 3, max_chars: int = 32, template: str = "{problem}=",
                   split: str = "train", size: int = 100000, seed: int = 0,
                   test_share: float = 0.2) -> tasks.TaskSet:
  """Random calculations in the form of `gsm8k_calc`: "15*4=", "84/2=", "110-60-15=".

  One operation, or two or three of one kind; operands have 1 to `digits` digits (uniform in the
  number of digits), a product at most `digits` + 1 digits of operands in all, differences are not
  negative, quotients are whole. Equations are split by the hash that `gsm8k_calc` uses: a base
  trained on the train split of one has seen no test equation of the other.
  """
  tasks.at_least("generated_calc", 1, {"digits": digits})

  def operand(generator):
    return int(generator.integers(1, 10 ** int(generator.integers(1, digits + 1))))

  def draw(generator):
    op = "+-*/"[generator.integers(4)]
    count = 2 if op in "*/" else int(generator.choice([2, 2, 2, 3, 4]))
    numbers = [operand(generator) for _ in range(count)]
    if op in "*/" and len(f"{numbers[0]}{numbers[1]}") > digits + 1:
      return None
    if op == "-":
      numbers.sort(reverse=True)
    if op == "/":
      numbers[0] *= numbers[1]
    left = op.join(map(str, numbers))
    tree = arithmetic.parse(left)
    value = arithmetic.value(tree)
    if value < 0 or len(left) > max_chars:
      return None
    answer = arithmetic.decimal_text(value)
    return arithmetic.key(tree), Task(
        id="", prompt=tasks.fill(template, {"problem": left}), answer=answer,
        verifier="rljax.rewards.verify:exact", demo=answer)

  return tasks.generate("generated_calc", draw, split=split, size=size, seed=seed,
                        test_share=test_share)
