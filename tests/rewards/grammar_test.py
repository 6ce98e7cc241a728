"""Tagged forms."""

import numpy as np
import pytest

from rljax import config
from rljax.rewards import grammar
from rljax.types import Episode, Task, Turn
from tests.rewards import make

NAMES = ("think", "answer")


@pytest.mark.parametrize("text, found", [
    ("<think>a</think> <answer>b</answer>\n", [("think", "a"), ("answer", "b")]),
    ("<think>a<b>c</b></think>", [("think", "a<b>c</b>")]), ("", []), ("x<think>a</think>", None),
    ("<think>a</think>x", None), ("<think>a", None), ("a</think>", None),
    ("<think><think>a</think></think>", None), ("<think>a</answer>", None),
    ("<think>a</think>x<answer>b</answer>", None), ("<think >a</think>", None)])
def test_blocks(text, found):
  assert grammar.blocks(text, NAMES) == found


def test_tags():
  texts = ["<think>a</think><answer>b</answer>", "<answer>b</answer><think>a</think>",
           "<think> </think><answer>b</answer>", "<think>a</think><answer>b</answer> so",
           "<think>a</think><answer>b</answer><answer>b</answer>", ""]
  episodes = [make.episode(t) for t in texts]
  assert grammar.tags(episodes, None).tolist() == [1, 0, 0, 0, 0, 0]
  assert grammar.tags(episodes, None, filled=False).tolist() == [1, 0, 1, 0, 0, 0]
  assert grammar.tags(episodes, None, sequence=("answer", "think")).tolist() == [0, 1, 0, 0, 0, 0]
  assert grammar.soft_tags(episodes, None).tolist() == [1, 1, 1, 1, 0.5, 0]
  assert grammar.soft_tags(episodes, None, names=("think",)).tolist() == [1, 1, 1, 1, 1, 0]


def searching(*parts):
  ids = np.zeros(1, np.int32)
  turns = [Turn("user", ids, text="<think>prompt")]
  turns += [Turn(role, ids, text=text) for role, text in parts]
  return Episode(Task("t", "p"), tuple(turns))


def test_the_search_grammar():
  a = "assistant"
  good = searching((a, "<think>a</think><search>q</search>"),
                   ("tool", "\n<information>d</information>\n"),
                   (a, "<think>b</think><answer>c</answer>"))
  direct = searching((a, "<think>a</think><answer>c</answer>"))
  no_think = searching((a, "<answer>c</answer>"))
  ends_early = searching((a, "<think>a</think><search>q</search>"))
  own_information = searching((a, "<information>d</information>"))
  episodes = [good, direct, no_think, ends_early, own_information, searching((a, ""))]
  assert grammar.automaton(episodes, None).tolist() == [1, 1, 0, 0, 0, 0]
  order = {"": ["answer"], "answer": ["", "answer"]}
  assert grammar.automaton(episodes, None, order=order).tolist() == [0, 0, 1, 0, 0, 0]
  with pytest.raises(config.ConfigError, match="'b' is a next state"):
    grammar.automaton([], None, order={"": ["a"], "a": ["b"]})


def test_search_outcome():
  texts = ["<answer>x</answer>", "<answer>x</answer>", "x", "<answer>x</answer>", ""]
  out = lambda **k: grammar.search_outcome(
      [make.episode(t) for t in texts], None, correct=make.given([1, 1, 0, 0, 0]),
      valid=make.given([1, 0, 1, 0, 0]), **k).tolist()
  np.testing.assert_allclose(out(), [1, 0.8, 0.2, 0.1, 0])
  np.testing.assert_allclose(out(structure=0.4, final=0.3), [1, 0.6, 0.4, 0.3, 0])


def test_repetition():
  episodes = [make.episode(tokens=t) for t in ([1, 2, 3, 4], [1, 2, 1, 2, 1], [1], [])]
  out = lambda **k: grammar.repetition(episodes, None, **k).tolist()
  np.testing.assert_allclose(out(n=2), [0, -0.5, 0, 0])
  np.testing.assert_allclose(out(n=2, scale=3.0), [0, -1.5, 0, 0])
  np.testing.assert_allclose(out(n=1), [0, -0.6, 0, 0], atol=1e-7)
  assert out() == [0, 0, 0, 0]
  with pytest.raises(config.ConfigError, match="at least 1"):
    out(n=0)
