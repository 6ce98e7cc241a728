"""`rljax-generate`: sample from a run's checkpoint or a Hugging Face folder, at the terminal."""

import os
import types
from collections.abc import Callable, Sequence

import jax

from rljax import rng
from rljax.config import ConfigError
from rljax.data import text
from rljax.models import hf
from rljax.sampling import engine as engine_lib
from rljax.train import export


def load(source: str, role: str = "policy", dtype: str = ""):
  """(policy, its weights, its tokenizer, the mesh they lie on) of a run or Hugging Face folder.

  Args:
    role: of the run. dtype: of a folder's activations; "" = float32 on a CPU, else bfloat16.

  Raises:
    ConfigError: neither kind of folder, or one that cannot be read.
  """
  if os.path.exists(os.path.join(source, "metrics.jsonl")):
    _, run, _ = export.load_run(source, role)
    return (run.roles.specs[role].policy, run.roles.sampler_params(role), run.tokenizer,
            run.mesh)
  tokenizer = text.hf(path=source)
  dtype = dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  policy = hf.model(tokenizer.vocab_size, path=source, dtype=dtype)
  setup = types.SimpleNamespace(policy=policy, layout=None, tokenizer=tokenizer)
  return policy, policy.for_sampling(hf.params(setup, path=source)), tokenizer, None


def sample(policy, params, tokenizer, mesh, prompts: Sequence[str | list], *, n: int = 1,
           seed: int = 0, max_tokens: int = 256, stop: Sequence[str] = (),
           show: Callable[[int, str], None] | None = None, **settings) -> list[str]:
  """n texts per prompt, prompt by prompt.

  Args:
    prompts: texts, or chat messages for the tokenizer's template.
    stop: strings that end a response; each is one sequence of tokens, as the tokenizer writes it.
    mesh: what the weights lie on; None = one device.
    show: called with (number of the response, its text so far) while it grows.
    **settings: temperature, top_k, top_p, min_p, greedy.

  Raises:
    ConfigError: a prompt the tokenizer cannot write, or settings the sampler refuses.
  """
  tokens = [tokenizer.render(p) for p in prompts]
  longest = max(map(len, tokens), default=1)
  devices = mesh.shape["data"] if mesh else 1
  engine = engine_lib.Engine(
      policy, stop_ids=tokenizer.stop_ids, max_tokens=max_tokens, mesh=mesh,
      slots=devices * -(-min(max(n * len(tokens), 1), 64) // devices),
      prompt_buckets=sorted({longest, *(b for b in (32, 128, 512, 2048) if b < longest)}))
  requests = [engine_lib.Request(
      t, (rng.number(str(p)), k), max_tokens, stop_sequences=[tokenizer.encode(s) for s in stop],
      **settings) for p, t in zip(prompts, tokens) for k in range(n)]
  watch = (lambda i, ids: show(i, tokenizer.decode(ids))) if show else None
  try:
    done = engine.generate(params, requests, jax.random.key(seed), watch=watch)
  except ValueError as e:
    raise ConfigError(str(e)) from None
  return [tokenizer.decode(c.tokens) for c in done]


class Terminal:
  """Prints one growing text as it comes."""

  def __init__(self, write: Callable[[str], object]):
    self._write, self._shown = write, ""

  def show(self, so_far: str) -> None:
    """What is new, up to what later tokens can no longer change."""
    so_far = so_far.rstrip("\ufffd")  # half of a character
    if so_far.startswith(self._shown):
      self._write(so_far[len(self._shown):])
      self._shown = so_far


def run(source: str, prompts: Sequence[str], write: Callable[[str], object], *, chat: bool = False,
        role: str = "policy", dtype: str = "", n: int = 1, **settings) -> None:
  """The command: one response streams; several would mix, so they come whole, numbered."""
  loaded = load(source, role, dtype)
  asked = [[{"role": "user", "content": p}] if chat else p for p in prompts]
  if n * len(asked) == 1:
    terminal = Terminal(write)
    texts = sample(*loaded, asked, show=lambda _, text: terminal.show(text), **settings)
    terminal.show(texts[0])
    write("\n")
    return
  texts = sample(*loaded, asked, n=n, **settings)
  for i, said in enumerate(texts):
    write(f"--- {prompts[i // n]!r} ({i % n + 1}/{n})\n{said}\n")
