"""Search over a local corpus as a tool: BM25 by `bm25s`, or any encoder of texts.

A corpus is a JSON-lines file, one passage a line: {"id", "title", "text"}. Ranks are by score, then
by place in the file, so they never depend on a sort's whims.
"""

import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rljax import config
from rljax.envs import base

_WORD = re.compile(r"\w+")
_FORM = "Doc {n}(Title: {title}) {text}\n"


def read_corpus(path: str) -> list[dict]:
  """The passages of a file.

  Raises:
    ConfigError: no such file, a line that is no passage, an id that occurs twice, or no passage.
  """
  if not os.path.exists(path):
    raise config.ConfigError(f"retrieval: there is no file {path}")
  passages, seen = [], set()
  with open(path, encoding="utf-8") as f:
    for number, line in enumerate(f, 1):
      try:
        row = json.loads(line)
        passage = {"id": str(row["id"]), "title": str(row.get("title", "")),
                   "text": str(row["text"])}
      except (ValueError, KeyError, TypeError, AttributeError):
        raise config.ConfigError(
            f"{path}:{number}: expected an object with id and text, found {line[:60]!r}") from None
      if passage["id"] in seen:
        raise config.ConfigError(f"{path}:{number}: the id {passage['id']!r} occurs twice")
      seen.add(passage["id"])
      passages.append(passage)
  if not passages:
    raise config.ConfigError(f"{path}: an empty corpus")
  return passages


def words(text: str) -> list[str]:
  """Lower-case words; no stemming, no stop words."""
  return _WORD.findall(text.lower())


def best(scores: np.ndarray, k: int) -> np.ndarray:
  """Indices of the k highest scores above 0, highest first, ties by index."""
  k = min(k, len(scores))
  least = np.partition(scores, len(scores) - k)[len(scores) - k]
  found = np.flatnonzero((scores >= least) & (scores > 0))
  return found[np.argsort(-scores[found], kind="stable")][:k]


class Index:
  """Passages and a function that scores all of them for a query."""

  def __init__(self, passages: Sequence[Mapping], score: Callable[[str], np.ndarray]):
    self.passages, self._score = passages, score

  def search(self, query: str, k: int) -> list[tuple[Mapping, float]]:
    """At most k (passage, score), best first; [] where no passage has anything of the query."""
    scores = self._score(query)
    return [(self.passages[i], float(scores[i])) for i in best(scores, k)]


class Search(base.Tool):
  """A query in, the best passages out. Without state."""

  def __init__(self, index: Index, top: int, output: str, empty: str, form: str):
    self.index, self.output, self._top = index, output, top
    self._empty, self._form = empty, form

  def call(self, state, text):
    found = self.index.search(text, self._top)
    lines = [self._form.format(n=n, title=p["title"], text=p["text"])
             for n, (p, _) in enumerate(found, 1)]
    return state, "".join(lines) or self._empty, not found


# --- BM25 -----------------------------------------------------------------------------------------


def bm25_index(passages: Sequence[Mapping], *, method: str = "lucene", k1: float = 0.9,
               b: float = 0.4) -> Index:
  """BM25 over title and text.

  score(q, d) = sum_w idf(w) tf / (tf + k1 (1 - b + b |d| / mean |d|)), with Lucene's
  idf = ln(1 + (N - df + 0.5) / (df + 0.5)), which is never negative; k1 and b are Pyserini's.

  Args:
    method: of `bm25s`: "lucene", "robertson" or "atire".

  Raises:
    ConfigError: the package is missing, or it has no such method.
  """
  try:
    import bm25s
  except ModuleNotFoundError:
    raise config.ConfigError("BM25 search needs the package bm25s: pip install bm25s") from None
  methods = ("lucene", "robertson", "atire")
  if method not in methods:
    raise config.ConfigError(f"bm25: method is one of {', '.join(methods)}, found {method!r}")
  logging.getLogger("bm25s").setLevel(logging.WARNING)
  index = bm25s.BM25(k1=k1, b=b, method=method)
  vocabulary: dict[str, int] = {}
  ids = [[vocabulary.setdefault(w, len(vocabulary)) for w in words(f"{p['title']} {p['text']}")]
         for p in passages]
  if not vocabulary:
    raise config.ConfigError("bm25: no passage has a word")
  index.index((ids, vocabulary), create_empty_token=False, show_progress=False)

  def score(query):
    known = [vocabulary[w] for w in words(query) if w in vocabulary]
    if not known:
      return np.zeros(len(passages), np.float32)
    return index.get_scores_from_ids(known)

  return Index(passages, score)


def bm25(*, corpus: str | Callable, top: int = 3, method: str = "lucene", k1: float = 0.9,
         b: float = 0.4, output: str = "information", empty: str = "Nothing found.",
         form: str = _FORM) -> base.Tool:
  """BM25 search as a tool of `rljax.envs.base.tools`; the index is built with the environment.

  Args:
    corpus: a file (see the module), or a leaf of `() -> passages`. top: passages per query.
    method, k1, b: see `bm25_index`.
    output: the tag around the passages. empty: read where nothing was found.
    form: of one passage, with {n}, {title} and {text}.
  """
  return Search(bm25_index(_passages(corpus), method=method, k1=k1, b=b), top, output, empty, form)


def _passages(corpus):
  return corpus() if callable(corpus) else read_corpus(corpus)


# --- dense ----------------------------------------------------------------------------------------


def dense_index(passages: Sequence[Mapping], encode: Callable[[Sequence[str]], np.ndarray]
                ) -> Index:
  """Inner products of unit vectors, over all passages, exactly.

  Args:
    encode: texts -> float array [n, width]; rows need not be of unit length.
  """
  matrix = _unit(encode([f"{p['title']} {p['text']}" for p in passages]))
  return Index(passages, lambda query: matrix @ _unit(encode([query]))[0])


def _unit(x):
  x = np.asarray(x, np.float32)
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)


def dense(*, corpus: str | Callable, top: int = 3, encoder: Callable | None = None,
          output: str = "information", empty: str = "Nothing found.",
          form: str = _FORM) -> base.Tool:
  """Dense search as a tool of `rljax.envs.base.tools`.

  Args:
    corpus, top, output, empty, form: as in `bm25`.
    encoder: leaf of a function that makes an encoder, `() -> (texts -> [n, width])`; None =
      `hashed`. It may wrap any model; queries and passages go through the same one.
  """
  index = dense_index(_passages(corpus), (encoder or hashed)())
  return Search(index, top, output, empty, form)


def hashed(*, width: int = 64, seed: int = 0) -> Callable[[Sequence[str]], np.ndarray]:
  """An encoder without training: every word is a random direction, fixed by its hash."""
  @functools.lru_cache(maxsize=2**18)
  def direction(word):
    digest = hashlib.sha256(f"{seed}/{word}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(digest, "big")).standard_normal(width)

  def encode(texts):
    return np.stack([sum(map(direction, words(t)), np.zeros(width)) for t in texts])

  return encode
