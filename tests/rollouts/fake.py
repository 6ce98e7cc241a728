"""A sampler that answers by a function of the context's text: rollouts without a model."""

import dataclasses

import jax
import numpy as np

from rljax import types
from rljax.data import text

ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-*/()=.,:;!?<>[]\n '\"_%"


@dataclasses.dataclass(frozen=True)
class Completion:
  """What rollouts read of a sampler's completion."""

  tokens: np.ndarray
  logp: np.ndarray
  raw_logp: np.ndarray
  status: str
  handle: object = None


class Sampler:
  """`reply(context text, seed) -> text`; an end token follows unless the text ends in "~".

  Attributes:
    calls: (contexts as token ids, seeds, key data, settings) of every `generate`.
    held: the context that each kept handle stands for. resumed: how many turns went on behind one.
  """

  def __init__(self, reply, *, tokenizer=None, prompt=200, response=200, observation=400):
    self.reply, self.calls, self.held, self.resumed = reply, [], {}, 0
    self.tokenizer = tokenizer or text.char(alphabet=ALPHABET)
    self.defaults = {}
    self.limits = {"prompt": prompt, "response": response, "observation": observation}

  def generate(self, prompts, seeds, key, *, max_tokens, handles=None, keep=False, media=None,
               **settings):
    for prompt, handle in zip(prompts, handles or []):
      if handle is not None:  # it goes on behind what was read; of what was said some may be cut
        read = self.held.pop(handle)
        assert len(read) < len(prompt) and np.array_equal(prompt[:len(read)], read)
        self.resumed += 1
    self.calls.append(([np.asarray(p) for p in prompts], list(seeds),
                       tuple(jax.random.key_data(key).tolist()), settings))
    most = np.broadcast_to(max_tokens, len(prompts))
    done = [self._one(p, s, m) for p, s, m in zip(prompts, seeds, most, strict=True)]
    if keep:
      done = [dataclasses.replace(c, handle=self._keep(p)) for p, c in zip(prompts, done)]
    return done

  def _keep(self, tokens):
    handle = object()
    self.held[handle] = tokens
    return handle

  def fork(self, handle):
    return self._keep(self.held[handle])

  def release(self, handle):
    del self.held[handle]

  def _one(self, prompt, seed, most):
    said = self.reply(self.tokenizer.decode(prompt), seed)
    tokens = (self.tokenizer.encode(said[:-1]) if said.endswith("~")
              else self.tokenizer.response(said))
    status = types.STOP if len(tokens) <= most and not said.endswith("~") else types.LENGTH
    tokens = tokens[:most].astype(np.int32)
    logp = -np.arange(1, len(tokens) + 1, dtype=np.float32)  # recognisable, one per position
    return Completion(tokens, logp, logp / 2, status)
