"""What a sampler is asked, and what it answers."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np

from rljax import types
from rljax.sampling import book
from rljax.types import LENGTH, STOP

STOP_IDS = 8  # most stop ids of a request, the engine's own included
STOP_SEQUENCES, STOP_LENGTH = 4, 16  # most stop sequences of a request, and tokens in each


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """One response to sample.

  Attributes:
    prompt: int32 token ids; at least one, unless there is a parent.
    seed: two numbers that make this request's randomness its own, say (task number, sample number):
      the tokens do not depend on the slot, the neighbours or the order of the queue.
    max_tokens: at most this many, stop token included.
    temperature: > 0. top_k: 0 = off. top_p: in (0, 1]. min_p: in [0, 1). greedy: argmax.
    stop_ids: token ids that end the response, besides the engine's.
    stop_sequences: sequences of token ids that end it; they stay in the response.
    allowed: token ids that may be drawn (after the forced ones); None = all.
    forced: first tokens of the response, given and scored instead of drawn.
    parent: the conversation that the prompt continues.
    keep: hold the cache, so that the completion's handle can be a parent.
    media: what the prompt's patch tokens stand for, an array as `Policy.table` makes it; of the
      whole conversation, if there is a parent.
  """

  prompt: np.ndarray
  seed: tuple[int, int]
  max_tokens: int
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  greedy: bool = False
  stop_ids: Sequence[int] = ()
  stop_sequences: Sequence[Sequence[int]] = ()
  allowed: Sequence[int] | None = None
  forced: Sequence[int] = ()
  parent: book.Handle | None = None
  keep: bool = False
  media: np.ndarray | None = None

  @functools.cached_property
  def sight(self) -> bytes:
    """Tells prompts apart whose tokens are the same and whose media differ."""
    if self.media is None:
      return b""
    return hashlib.blake2b(self.media.tobytes(), digest_size=16).digest()


@dataclasses.dataclass(frozen=True, eq=False)
class Completion:
  """A response.

  Attributes:
    tokens: int32 [n], with the stop token.
    logp: float32 [n] under the warped distribution (0 where greedy chose).
    raw_logp: float32 [n] under the policy at temperature 1.
    entropy: float32 [n] of the policy at the sampling temperature, nats.
    status: STOP or LENGTH.
    top_ids, top_logp: [n, A], the likeliest tokens and their raw log-probabilities (A is the
      engine's `alternatives`).
    handle: with `keep`, what a later request names as its parent.
  """

  tokens: np.ndarray
  logp: np.ndarray
  raw_logp: np.ndarray
  entropy: np.ndarray
  status: str
  top_ids: np.ndarray
  top_logp: np.ndarray
  handle: book.Handle | None = None


def queue(requests: Sequence[Request]) -> list[int]:
  """Their numbers, as a stack: the next one is last. Longest first; requests of one prompt side by
  side; conversations that hold a slot lead."""
  numbers: dict[bytes, int] = {}
  group = [numbers.setdefault(np.asarray(r.prompt, np.int32).tobytes() + r.sight, len(numbers))
           for r in requests]
  return sorted(range(len(requests)), key=lambda i: (
      requests[i].parent is None, -requests[i].max_tokens, group[i]))[::-1]


def completion(arrays: dict[str, np.ndarray], row: int, length: int, stopped: bool,
               handle: book.Handle | None) -> Completion:
  """One row of what `slots.collect` returns."""
  return Completion(**{name: x[row, :length] for name, x in arrays.items()},
                    status=STOP if stopped else LENGTH, handle=handle)


def check(requests: Sequence[Request], *, vocab: int, limit: int, capacity: int,
          stop_ids: Sequence[int]) -> None:
  """Raises ValueError for a request that cannot be served, before any device work.

  Args:
    limit: tokens of a response.
    capacity: tokens of prompt and response in all.
  """
  for i, r in enumerate(requests):
    problem = _problem(r, limit, capacity, stop_ids)
    if problem:
      raise ValueError(f"request {i}: {problem}")
  texts = [r.prompt if r.media is None else _text(r) for r in requests]
  joined = np.concatenate(texts) if texts else np.zeros(0)
  if len(joined) and not (0 <= joined.min() and joined.max() < vocab):
    i = next(i for i, t in enumerate(texts) if len(t) and not _inside(t, vocab))
    raise ValueError(f"request {i}: prompt has token ids outside 0 to {vocab - 1}")
  for i, r in enumerate(requests):
    for name, ids in (("forced", r.forced), ("allowed", r.allowed)):
      if ids is not None and len(ids) and not _inside(ids, vocab):
        raise ValueError(f"request {i}: {name} has token ids outside 0 to {vocab - 1}")


def _text(r: Request) -> np.ndarray:
  """The prompt without its patches."""
  prompt = np.asarray(r.prompt)
  return prompt[prompt < types.FIRST_PATCH]


def _inside(ids, vocab: int) -> bool:
  return 0 <= np.min(ids) and np.max(ids) < vocab


def _problem(r: Request, limit: int, capacity: int, stop_ids: Sequence[int]) -> str:
  """Why it cannot be served, whatever its token ids are; "" = it can."""
  size = len(r.prompt) + (len(r.parent.tokens) if r.parent else 0)
  if size < 1:
    return "an empty prompt; at least one token is needed"
  if not 1 <= r.max_tokens <= limit:
    return f"max_tokens={r.max_tokens}; 1 to {limit} fit"
  if size + r.max_tokens > capacity:
    return (f"{size} tokens of prompt and max_tokens={r.max_tokens} do not fit the cache of "
            f"{capacity}")
  if not r.greedy and not r.temperature > 0:
    return f"temperature={r.temperature} must be positive (or greedy=True)"
  if not 0 < r.top_p <= 1 or not 0 <= r.min_p < 1 or r.top_k < 0:
    return f"top_p={r.top_p} (in (0, 1]), min_p={r.min_p} (in [0, 1)), top_k={r.top_k} (>= 0)"
  ids = {*stop_ids, *r.stop_ids}
  if len(ids) > STOP_IDS:
    return f"{len(ids)} stop ids; at most {STOP_IDS} fit"
  if len(r.stop_sequences) > STOP_SEQUENCES:
    return f"{len(r.stop_sequences)} stop sequences; at most {STOP_SEQUENCES} fit"
  for sequence in r.stop_sequences:
    if not 1 <= len(sequence) <= min(STOP_LENGTH, r.max_tokens):
      return (f"a stop sequence of {len(sequence)} tokens; 1 to "
              f"{min(STOP_LENGTH, r.max_tokens)} can occur")
  if len(r.forced) > r.max_tokens:
    return f"{len(r.forced)} forced tokens, max_tokens={r.max_tokens}"
  if r.allowed is not None and not len(r.allowed):
    return "no token is allowed"
  return ""
