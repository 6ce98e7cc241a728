"""The sampler's interface: requests in, completions out, any number of them.

This engine runs waves of equal shape: simple, exact, and enough for short responses. A prompt
shared by several requests is prefilled once.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from rljax.sampling import decode
from rljax.types import LENGTH, STOP, Array, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """One response to sample.

  Attributes:
    prompt: int32 token ids, at least one.
    seed: two numbers that make this request's randomness its own, say (task number, sample number):
      the tokens do not depend on the slot, the neighbours or the order of the queue.
    max_tokens: at most this many, stop token included.
    temperature: > 0. top_k: 0 = off. top_p: in (0, 1]. min_p: in [0, 1). greedy: argmax.
  """

  prompt: np.ndarray
  seed: tuple[int, int]
  max_tokens: int
  temperature: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float = 0.0
  greedy: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Completion:
  """tokens int32 [n] with the stop token; logp under the warped distribution; raw_logp under the
  policy at temperature 1; entropy in nats; status STOP or LENGTH."""

  tokens: np.ndarray
  logp: np.ndarray
  raw_logp: np.ndarray
  entropy: np.ndarray
  status: str


class Engine:
  """Samples from a policy. Compiles once per (prompt bucket, prompts per wave).

  Args:
    policy: prefill, decode and logits.
    stop_ids: token ids that end a response.
    slots: requests per wave.
    prompt_buckets: prompt lengths to pad to; the largest is the limit.
    max_tokens: most tokens of a response.
    place: puts a host pytree on the devices.
  """

  def __init__(self, policy, *, stop_ids: Sequence[int], slots: int, prompt_buckets: Sequence[int],
               max_tokens: int, place=jax.device_put):
    self.stop_ids = np.asarray(sorted(stop_ids), np.int32)
    self.slots, self.max_tokens = slots, max_tokens
    self.buckets = sorted(prompt_buckets)
    self._place = place
    self._generate = jax.jit(functools.partial(decode.generate, policy, limit=max_tokens))

  def generate(self, params: PyTree, requests: Sequence[Request], key: Array) -> list[Completion]:
    """Completions in the order of the requests.

    Args:
      key: one jax key per call; with a request's seed it decides that request's tokens.

    Raises:
      ValueError: a request that does not fit, before any device work.
    """
    for i, r in enumerate(requests):
      self._check(i, r)
    by_bucket = {}
    for i, r in enumerate(requests):
      bucket = next(b for b in self.buckets if b >= len(r.prompt))
      by_bucket.setdefault(bucket, []).append(i)
    done: list[Completion | None] = [None] * len(requests)
    for bucket, indices in sorted(by_bucket.items()):
      waves = [self._pack(bucket, requests, indices[at:at + self.slots])
               for at in range(0, len(indices), self.slots)]
      rows = max(rows for _, rows in waves)
      outs = [self._generate(params, self._place(self._pad_rows(w, rows)), key) for w, _ in waves]
      for w, out in enumerate(jax.device_get(outs)):
        for slot, i in enumerate(indices[w * self.slots:(w + 1) * self.slots]):
          done[i] = _completion(out, slot)
    return done

  def _check(self, i, r):
    if not 1 <= len(r.prompt) <= self.buckets[-1]:
      raise ValueError(
          f"request {i}: prompt of {len(r.prompt)} tokens; 1 to {self.buckets[-1]} fit")
    if not 1 <= r.max_tokens <= self.max_tokens:
      raise ValueError(f"request {i}: max_tokens={r.max_tokens}; 1 to {self.max_tokens} fit")
    if not r.greedy and not r.temperature > 0:
      raise ValueError(
          f"request {i}: temperature={r.temperature} must be positive (or greedy=True)")
    if not 0 < r.top_p <= 1 or not 0 <= r.min_p < 1 or r.top_k < 0:
      raise ValueError(f"request {i}: top_p={r.top_p}, min_p={r.min_p}, top_k={r.top_k}")

  def _pack(self, bucket, requests, indices):
    """A wave with one prompt row per slot, and how many rows (a power of two) it needs."""
    S = self.slots
    prompts, rows = {}, np.zeros(S, np.int32)
    prompt_RP, length_R = np.zeros((S, bucket), np.int32), np.ones(S, np.int32)
    column = lambda name, fill, dtype: np.asarray(
        [getattr(requests[i], name) for i in indices] + [fill] * (S - len(indices)), dtype)
    for slot, i in enumerate(indices):
      tokens = np.asarray(requests[i].prompt, np.int32)
      row = prompts.setdefault(tokens.tobytes(), len(prompts))
      prompt_RP[row, :len(tokens)], length_R[row] = tokens, len(tokens)
      rows[slot] = row
    wave = decode.Wave(
        prompt_RP=prompt_RP, prompt_len_R=length_R, row_S=rows,
        seed_S2=column("seed", (0, 0), np.uint32), max_tokens_S=column("max_tokens", 0, np.int32),
        temperature_S=np.where(column("greedy", True, bool), 1.0,
                               column("temperature", 1.0, np.float32)).astype(np.float32),
        top_k_S=column("top_k", 0, np.int32), top_p_S=column("top_p", 1.0, np.float32),
        min_p_S=column("min_p", 0.0, np.float32), greedy_S=column("greedy", True, bool),
        stop_E=self.stop_ids)
    return wave, min(S, 1 << (len(prompts) - 1).bit_length())

  def _pad_rows(self, wave, rows):
    return wave.replace(prompt_RP=wave.prompt_RP[:rows], prompt_len_R=wave.prompt_len_R[:rows])


def _completion(out: decode.Sampled, slot: int) -> Completion:
  n = int(out.length_S[slot])
  return Completion(out.tokens_ST[slot, :n], out.logp_ST[slot, :n], out.raw_logp_ST[slot, :n],
                    out.entropy_ST[slot, :n], STOP if out.stopped_S[slot] else LENGTH)
