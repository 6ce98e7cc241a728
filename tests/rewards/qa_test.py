"""Answers in words, against values by hand and against the packages' own functions."""

import pytest

from rljax.rewards import qa
from rljax.types import Task


def task(answer, choices=None):
  return Task("t", "p", answer=answer, info={"choices": choices} if choices else {})


def test_normalisation():
  assert qa.normalise("The U.S. Army!") == "us army"
  assert qa.normalise("  A  man-made an  Apple ") == "manmade apple"


@pytest.mark.parametrize("text, gold, em, sub, f1", [
    ("blue red", "red", 0, 1, 2 / 3), ("The  Red.", "red", 1, 1, 1), ("", "red", 0, 0, 0),
    ("<answer>a red</answer> blue", "red", 1, 1, 1), ("reddish", "red", 0, 0, 0),
    ("x red", ["green", "red"], 0, 1, 2 / 3), ("yes", "no", 0, 0, 0),
    ("yes it is", "yes", 0, 1, 0), ("yes", "yes", 1, 1, 1), ("red red", "red", 0, 1, 2 / 3),
    ("red red", "red red blue", 0, 0, 0.8), ("<answer>red", "red", 0, 0, 0)])
def test_exact_match_contains_and_f1(text, gold, em, sub, f1):
  t = task(gold)
  assert (qa.exact_match(t, text), qa.contains(t, text)) == (em, sub)
  assert qa.f1(t, text) == pytest.approx(f1)


COLOURS = {"A": "red", "B": "blue", "C": "green"}


@pytest.mark.parametrize("text, choices, chosen", [
    ("\\boxed{B}", None, "B"), ("\\boxed{(b)}", None, "B"), ("<answer>B. blue</answer>", None, "B"),
    ("The answer is (B).", None, "B"), ("The answer is option B", None, "B"),
    ("\\boxed{\\text{B}}", None, "B"), ("\\boxed{blue}", COLOURS, "B"), ("B", None, "B"),
    ("\\boxed{Blue.}", ["red", "blue"], "B"), ("(B)", None, "B"), ("A is not it, so B", None, "B"),
    ("I think it is (B)", None, "B"), ("\\boxed{A, B}", None, ""), ("\\boxed{A or B}", None, ""),
    ("\\boxed{}", None, ""), ("", None, ""), ("none of them", None, ""), ("\\boxed{Bob}", None, ""),
    ("\\boxed{yellow}", COLOURS, ""), ("I know A lot", None, "")])
def test_choice(text, choices, chosen):
  for gold in "ABCD":
    assert qa.choice(task(f"({gold})", choices), text) == float(gold == chosen)


def test_bleu_and_rouge_are_the_packages():
  sacrebleu = pytest.importorskip("sacrebleu")
  rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
  gold, said = "the cat sat on the mat", "the cats sat on a mat today"
  want = sacrebleu.sentence_bleu(said, [gold]).score / 100
  assert qa.bleu(task(gold), said) == pytest.approx(want) and 0.1 < want < 0.9
  assert qa.bleu(task(["x", gold]), gold) == pytest.approx(1)
  want = rouge_scorer.RougeScorer(["rougeL", "rouge2"], use_stemmer=True).score(gold, said)
  assert qa.rouge_l(task(["x", gold]), said) == pytest.approx(want["rougeL"].fmeasure)
  assert qa.rouge_2(task(gold), said) == pytest.approx(want["rouge2"].fmeasure)
  assert want["rougeL"].fmeasure != want["rouge2"].fmeasure
  assert qa.bleu(task(gold), "") == qa.rouge_l(task(gold), "") == 0


@pytest.mark.parametrize("judge", [qa.exact_match, qa.contains, qa.f1, qa.choice])
def test_every_judge_needs_an_answer_and_survives_anything(judge):
  with pytest.raises(ValueError, match="no answer"):
    judge(task(None), "x")
  for text in ("(" * 10**6, "a " * 10**6, "\\boxed{" * 10**5, "\ud800", "\0"):
    assert judge(task("zebra"), text) == 0
