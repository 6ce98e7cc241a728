"""Rewards for form: which tagged blocks a response has, and in which order."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from rljax import config
from rljax.types import Episode

_TAG = re.compile(r"<(/?)([A-Za-z_][A-Za-z0-9_]*)>")

# Search-R1: (think search information)* think answer; the environment writes `information`.
SEARCH = {"": ["think"], "think": ["search", "answer"], "search": ["information"],
          "information": ["think"], "answer": [""]}


def blocks(text: str, tags: Sequence[str]) -> list[tuple[str, str]] | None:
  """[(tag, inside), ...] of a text that is nothing but these blocks and white space, else None.

  A block ends at the first tag after its opening, which must be its own closing: blocks do not
  nest. Names that are not in `tags` are plain text inside a block.
  """
  found, position, name, start = [], 0, None, 0
  for match in _TAG.finditer(text):
    if match[2] not in tags:
      continue
    closing = match[1] == "/"
    if closing != (name is not None) or (closing and match[2] != name):
      return None
    if closing:
      found.append((name, text[start:match.start()]))
      name, position = None, match.end()
    else:
      if text[position:match.start()].strip():
        return None
      name, start = match[2], match.end()
  return None if name or text[position:].strip() else found


def follows(found: Sequence[tuple[str, str]] | None, order: Mapping[str, Sequence[str]]) -> bool:
  """Whether the blocks are a path of the automaton from "" to "": order[state] = next states."""
  if found is None:
    return False
  path = ["", *(name for name, _ in found), ""]
  return len(path) > 2 and all(b in order.get(a, ()) for a, b in zip(path, path[1:]))


def tags(episodes: Sequence[Episode], ctx, *, sequence: Sequence[str] = ("think", "answer"),
         filled: bool = True) -> np.ndarray:
  """1 where the response is exactly these blocks in this order, with only white space between.

  Args:
    filled: a block of nothing but white space does not count.

  Returns:
    float32 [B].
  """
  del ctx
  want = list(sequence)

  def valid(episode):
    found = blocks(episode.response, want)
    return (found is not None and [n for n, _ in found] == want
            and (not filled or all(inside.strip() for _, inside in found)))
  return np.array([valid(e) for e in episodes], np.float32)


def automaton(episodes: Sequence[Episode], ctx, *, order: dict | None = None) -> np.ndarray:
  """1 where the blocks of the whole episode, observations included, follow `order`.

  Args:
    order: state -> next states, "" at both ends; None = Search-R1's grammar, `SEARCH`.

  Returns:
    float32 [B].

  Raises:
    ConfigError: a next state that is no state.
  """
  del ctx
  order = SEARCH if order is None else order
  for state in {s for following in order.values() for s in following} - set(order) - {""}:
    raise config.ConfigError(f"automaton: {state!r} is a next state, and says nothing of its own")
  names = [n for n in order if n]
  text = lambda e: "".join(t.text for t in _after_prompt(e.turns))
  return np.array([follows(blocks(text(e), names), order) for e in episodes], np.float32)


def _after_prompt(turns):
  first = next((i for i, t in enumerate(turns) if t.role == "assistant"), len(turns))
  return turns[first:]


def soft_tags(episodes: Sequence[Episode], ctx, *, names: Sequence[str] = ("think", "answer")
              ) -> np.ndarray:
  """The share of the tags (opening and closing apart) that occur exactly once: a smooth start.

  Returns:
    float32 [B].
  """
  del ctx
  marks = [m for n in names for m in (f"<{n}>", f"</{n}>")]
  return np.array([np.mean([e.response.count(m) == 1 for m in marks]) for e in episodes],
                  np.float32)


def search_outcome(episodes: Sequence[Episode], ctx, *, correct, valid, structure: float = 0.2,
                   final: float = 0.1) -> np.ndarray:
  """Search-R1's graded outcome, https://arxiv.org/abs/2503.09516 (code release v0.3).

  correct and valid 1; correct alone 1 - structure; valid alone `structure`; neither, but an
  <answer> block, `final`; else 0.

  Args:
    correct: reward, at least 0.5 where the answer is right. valid: reward, at least 0.5 where the
      form is.

  Returns:
    float32 [B].
  """
  right = np.asarray(correct(episodes, ctx)) >= 0.5
  formed = np.asarray(valid(episodes, ctx)) >= 0.5
  answered = np.array([bool(re.search(r"<answer>.*?</answer>", e.response, re.DOTALL))
                       for e in episodes], bool)
  values = np.select([right & formed, right, formed, answered],
                     [1.0, 1 - structure, structure, final])
  return values.astype(np.float32)


def repetition(episodes: Sequence[Episode], ctx, *, n: int = 4, scale: float = 1.0) -> np.ndarray:
  """-scale (1 - distinct / all) over the n-grams of the response's own tokens; 0 if shorter than n.

  The penalty of https://arxiv.org/abs/2502.03373 per response, over the whole of it.

  Returns:
    float32 [B].

  Raises:
    ConfigError: n below 1.
  """
  del ctx
  if n < 1:
    raise config.ConfigError(f"repetition: n is at least 1, found {n}")

  def share(e):
    grams = [g for t in e.turns if t.role == "assistant"
             for g in zip(*(t.tokens[i:].tolist() for i in range(n)))]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
  return np.array([0.0 - scale * share(e) for e in episodes], np.float32)
