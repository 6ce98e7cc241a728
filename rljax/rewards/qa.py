"""Answers in words: exact match and F1 as SQuAD counts them, choices, BLEU and ROUGE.

All are verifiers `(task, text) -> float` in [0, 1]; name one in `Task.verifier`, or in
`rljax.rewards.verify:verified_by`. `Task.answer` is the gold answer or a list of them; the best
counts. What is compared is `verify.final_answer(text)`: the last boxed, <answer> or "answer is"
part, else the whole text, of which the last `verify.MAX_CHARS` characters count.
"""

import collections
import functools
import re
import string
from collections.abc import Callable, Sequence

from rljax.rewards import verify
from rljax.types import Task

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_YES_NO = ("yes", "no", "noanswer")
_OPTION = re.compile(r"\(?\s*([A-Za-z])\s*(?:[).:]|$)|\b(?:option|choice)\s+\(?([A-Za-z])\b")
_LETTERS = re.compile(r"\(?\b([A-Za-z])\b\)?(?=\s*(?:$|,|or\b|and\b|/))")
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_LAST_OPTION = re.compile(r"\(([A-Z])\)|\b([A-Z])\b(?!')")


def normalise(text: str) -> str:
  """Lower case, without ASCII punctuation, articles and extra spaces, in this order (SQuAD 1.1)."""
  return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def golds(task: Task) -> list[str]:
  """The accepted answers of a task.

  Raises:
    ValueError: there are none.
  """
  many = isinstance(task.answer, Sequence) and not isinstance(task.answer, str)
  found = [str(a) for a in (task.answer if many else [task.answer]) if a is not None]
  if not found:
    raise ValueError(f"task {task.id} has no answer")
  return found


@verify.bounded
def exact_match(task: Task, text: str) -> float:
  """1 if the normalised answer is one of the normalised gold answers (SQuAD's EM)."""
  said = normalise(verify.final_answer(text)[0])
  return float(any(said == normalise(g) for g in golds(task)))


@verify.bounded
def contains(task: Task, text: str) -> float:
  """1 if a normalised gold answer is a part of the normalised answer, in whole words (sub-EM)."""
  said = f" {normalise(verify.final_answer(text)[0])} "
  return float(any(f" {normalise(g)} " in said for g in golds(task) if normalise(g)))


@verify.bounded
def f1(task: Task, text: str) -> float:
  """Best F1 of the answer's words against a gold answer's, both normalised, counted as multisets.

  2PR / (P + R) with P, R = shared words / words of the answer, of the gold answer. As HotpotQA
  does, "yes", "no" and "noanswer" on one side score 0 unless the other side is the same.
  """
  said = normalise(verify.final_answer(text)[0])
  return max(_f1(said, normalise(g)) for g in golds(task))


def _f1(said, gold):
  if said == gold:
    return 1.0
  if said in _YES_NO or gold in _YES_NO:
    return 0.0
  a, b = collections.Counter(said.split()), collections.Counter(gold.split())
  shared = (a & b).total()
  return 2 * shared / (a.total() + b.total()) if shared else 0.0


@verify.bounded
def choice(task: Task, text: str) -> float:
  """1 if the response chooses the option `Task.answer`, a letter.

  Read in this order: a marked answer that is a letter, with or without brackets, or begins with one
  ("(B) blue"); a marked answer that is the text of an option in `info["choices"]` (letter -> text,
  or a list); without any mark the last capital letter that stands alone. A marked answer with two
  letters chooses nothing.
  """
  gold = golds(task)[0].strip().strip("().").upper()
  return float(_chosen(task, text) == gold)


def _chosen(task, text):
  said, marked = verify.final_answer(text)
  said = _TEXT.sub(r"\1", said).strip()
  if not marked and len(said) > 3:
    found = [a or b for a, b in _LAST_OPTION.findall(said)]
    found = [x for x in found if x not in ("I", "A") or x in _options(task)]
    return found[-1] if found else ""
  options = _options(task)
  named = [k for k, v in options.items() if v and normalise(v) == normalise(said)]
  if len(named) == 1:
    return named[0]
  match = _OPTION.match(said)
  if not match or len(set(_LETTERS.findall(said))) > 1:
    return ""
  return (match[1] or match[2]).upper()


def _options(task):
  given = task.info.get("choices", {})
  if not isinstance(given, dict):
    given = dict(zip(string.ascii_uppercase, given))
  return {str(k).upper(): str(v) for k, v in given.items()}


@verify.bounded
def bleu(task: Task, text: str) -> float:
  """Sentence BLEU / 100 of the answer, all gold answers as references: `sacrebleu`'s defaults with
  effective order (a short sentence is judged by the n-grams it can have)."""
  said = verify.final_answer(text)[0][:MAX_TEXT]
  return _sacrebleu().sentence_score(said, golds(task)).score / 100


@verify.bounded
def rouge_l(task: Task, text: str) -> float:
  """Best ROUGE-L F-measure of the answer against a gold answer: `rouge-score` with stemming."""
  return _rouge(task, text, "rougeL")


@verify.bounded
def rouge_2(task: Task, text: str) -> float:
  """Best ROUGE-2 F-measure, as `rouge_l`."""
  return _rouge(task, text, "rouge2")


MAX_TEXT = 5_000  # characters for BLEU and ROUGE, whose time grows faster than the text


@functools.cache
def _sacrebleu():
  import sacrebleu
  return sacrebleu.metrics.BLEU(effective_order=True)


@functools.cache
def _scorer(kind: str) -> Callable:
  from rouge_score import rouge_scorer
  return rouge_scorer.RougeScorer([kind], use_stemmer=True).score


def _rouge(task, text, kind):
  said = verify.final_answer(text)[0][:MAX_TEXT]
  return max(_scorer(kind)(g[:MAX_TEXT], said)[kind].fmeasure for g in golds(task))
