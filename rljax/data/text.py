"""Tokenizers behind one small interface: characters, given pieces, bytes, Hugging Face folders."""

import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from rljax import config as config_lib
from rljax import types

ConfigError = config_lib.ConfigError

_ANSWER, _QUESTION = "@the answer@", "@the question@"  # to find them again in a chat template


class Tokenizer:
  """What the rest of rljax asks of a tokenizer.

  Attributes:
    vocab_size: number of ids a model must have rows for.
    eos_id: the end token. pad_id: fills rows; never trained on.
    stop_ids: ids that end a response (eos_id among them).
    patches: tokens that an image in a prompt becomes; 0 = it reads text alone.
  """

  vocab_size: int
  eos_id: int
  pad_id: int
  stop_ids: tuple[int, ...]
  patches: int = 0

  def encode(self, text: str) -> np.ndarray:
    """int32 ids, no special tokens added."""
    raise NotImplementedError

  def decode(self, ids: Sequence[int]) -> str:
    """Text without special tokens."""
    raise NotImplementedError

  def render(self, prompt: str | list) -> np.ndarray:
    """Ids of a task's prompt; chat messages go through the chat template."""
    if isinstance(prompt, str):
      return self.encode(prompt)
    return self.encode("".join(f"{m['role']}: {m['content']}\n" for m in prompt) + "assistant: ")

  def message_frame(self, *, ended: bool) -> tuple[str, str]:
    """What stands before and after a later message of the user's, up to the next answer.

    Args:
      ended: the answer before it has its end token already, which then is not repeated.
    """
    del ended
    return "\nuser: ", "\nassistant: "

  def save(self, folder: str) -> None:
    """Writes it as `transformers` reads it, chat template included."""
    raise NotImplementedError

  def response(self, text: str) -> np.ndarray:
    """Ids of a whole response, end token included."""
    return np.append(self.encode(text), np.int32(self.eos_id))


class ImageTokenizer(Tokenizer):
  """Another tokenizer whose prompts may name images: each marker becomes the ids of its patches.

  Only `render` does this: what is encoded or sampled are the other tokenizer's ids.
  """

  def __init__(self, inner: Tokenizer, marker: str, patches: int):
    ids = inner.encode(marker)
    if len(ids) != 1 or patches < 1:
      raise ConfigError(f"tokenizer: the marker {marker!r} is {len(ids)} tokens, wanted one; and "
                        f"patches={patches}, at least 1")
    self.inner, self.mark, self.patches = inner, int(ids[0]), patches
    self.vocab_size, self.eos_id, self.pad_id, self.stop_ids = (
        inner.vocab_size, inner.eos_id, inner.pad_id, inner.stop_ids)
    self.encode, self.message_frame, self.save = inner.encode, inner.message_frame, inner.save

  def decode(self, ids: Sequence[int]) -> str:
    ids = np.asarray(ids)
    return self.inner.decode(ids[ids < types.FIRST_PATCH])

  def render(self, prompt: str | list) -> np.ndarray:
    ids = self.inner.render(prompt)
    out = np.repeat(ids, np.where(ids == self.mark, self.patches, 1)).astype(np.int32)
    named = np.flatnonzero(out == self.mark)
    out[named] = types.FIRST_PATCH + np.arange(len(named))
    return out


class _ListTokenizer(Tokenizer):
  """One id per string of a list; 0 pads, 1 ends. `pattern` finds the next string in a text."""

  def __init__(self, strings: Sequence[str], pattern: str):
    self.pad_id, self.eos_id, self.stop_ids = 0, 1, (1,)
    self.vocab_size = len(strings) + 2
    self._strings, self._pattern = tuple(strings), re.compile(pattern)
    self._ids = {x: i + 2 for i, x in enumerate(strings)}

  def decode(self, ids: Sequence[int]) -> str:
    return "".join(self._strings[i - 2] for i in np.asarray(ids).tolist()
                   if 2 <= i < self.vocab_size)

  def save(self, folder: str) -> None:
    import tokenizers
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(
        {"<pad>": self.pad_id, "<end>": self.eos_id, **self._ids}, unk_token="<pad>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(
        tokenizers.Regex(self._pattern.pattern), "isolated")
    made.decoder = tokenizers.decoders.Fuse()
    _save(made, folder)


class CharTokenizer(_ListTokenizer):
  """One id per character of an alphabet; 0 pads, 1 ends."""

  def __init__(self, alphabet: str):
    if len(set(alphabet)) != len(alphabet) or not alphabet:
      raise ConfigError(f"tokenizer: alphabet {alphabet!r} is empty or repeats a character")
    super().__init__(alphabet, r"[\s\S]")

  def encode(self, text: str) -> np.ndarray:
    try:
      return np.asarray([self._ids[c] for c in text], np.int32)
    except KeyError as e:
      raise ConfigError(
          f"tokenizer: character {e.args[0]!r} of {text[:60]!r} is not in the alphabet") from None


class PiecesTokenizer(_ListTokenizer):
  """One id per string of a list, at every place the longest that fits; 0 pads, 1 ends."""

  def __init__(self, pieces: Sequence[str]):
    if len(set(pieces)) != len(pieces) or not pieces or not all(pieces):
      raise ConfigError("tokenizer: pieces are strings, all different and not empty")
    longest_first = sorted(pieces, key=len, reverse=True)
    super().__init__(pieces, "|".join(map(re.escape, longest_first)))

  def encode(self, text: str) -> np.ndarray:
    found = self._pattern.findall(text)
    if sum(map(len, found)) != len(text):
      raise ConfigError(f"tokenizer: {text[:60]!r} is not made of the pieces of the tokenizer")
    return np.asarray([self._ids[p] for p in found], np.int32)


class ByteTokenizer(Tokenizer):
  """UTF-8 bytes as ids 0..255, then the end token and padding."""

  def __init__(self):
    self.eos_id, self.pad_id, self.stop_ids, self.vocab_size = 256, 257, (256,), 258

  def encode(self, text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

  def decode(self, ids: Sequence[int]) -> str:
    return bytes(i for i in np.asarray(ids).tolist() if i < 256).decode(errors="replace")

  def save(self, folder: str) -> None:
    import tokenizers
    # The letter that stands for a byte: itself where it can be printed, else the next free one.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    ids = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(rest)}
    ids |= {"<end>": self.eos_id, "<pad>": self.pad_id}
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    _save(made, folder)


CHAT_TEMPLATE = ("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
                 "{% if add_generation_prompt %}assistant: {% endif %}")  # that of `render`


def _save(made, folder):
  import transformers
  out = transformers.PreTrainedTokenizerFast(
      tokenizer_object=made, pad_token="<pad>", eos_token="<end>", chat_template=CHAT_TEMPLATE,
      clean_up_tokenization_spaces=False)
  out.save_pretrained(folder)


class HFTokenizer(Tokenizer):
  """A tokenizer folder as `transformers` writes it."""

  def __init__(self, path: str, stop_tokens: Sequence[str] = ()):
    if not os.path.isdir(path):
      raise ConfigError(f"tokenizer: there is no folder {path}")
    import transformers  # only here: it costs a second
    try:
      self.hf = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as e:
      raise ConfigError(f"tokenizer: {path} cannot be read by transformers: {e}") from None
    if self.hf.eos_token_id is None:
      raise ConfigError(
          f"tokenizer: {path} has no end token; responses could never end. Set eos_token in it.")
    extra = self.hf.convert_tokens_to_ids(list(stop_tokens))
    if any(i is None or i == self.hf.unk_token_id for i in extra):
      raise ConfigError(f"tokenizer: {path} does not have all stop tokens of {list(stop_tokens)}")
    self.eos_id = self.hf.eos_token_id
    self.stop_ids = tuple(sorted({self.eos_id, *extra}))
    self.pad_id = self.hf.pad_token_id if self.hf.pad_token_id is not None else self.eos_id
    self.vocab_size = len(self.hf)

  def encode(self, text: str) -> np.ndarray:
    return np.asarray(self.hf.encode(text, add_special_tokens=False), np.int32)

  def decode(self, ids: Sequence[int]) -> str:
    return self.hf.decode(np.asarray(ids).tolist(), skip_special_tokens=True)

  def save(self, folder: str) -> None:
    self.hf.save_pretrained(folder)

  def render(self, prompt: str | list) -> np.ndarray:
    if isinstance(prompt, str):
      return np.asarray(self.hf.encode(prompt), np.int32)
    if not self.hf.chat_template:
      return super().render(prompt)
    out = self.hf.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    return self.encode(out)

  def message_frame(self, *, ended: bool) -> tuple[str, str]:
    if not self.hf.chat_template:
      return super().message_frame(ended=ended)
    messages = [{"role": "user", "content": "."}, {"role": "assistant", "content": _ANSWER},
                {"role": "user", "content": _QUESTION}]
    before, after = _between(self.hf.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False))
    ends = self.hf.convert_ids_to_tokens(list(self.stop_ids)) if ended else []
    return next((before.removeprefix(e) for e in ends if before.startswith(e)), before), after


def _between(text: str) -> tuple[str, str]:
  _, _, rest = text.partition(_ANSWER)
  before, _, after = rest.partition(_QUESTION)
  return before, after


def char(*, alphabet: str = "0123456789+-*/()=., ") -> Tokenizer:
  """Characters of an alphabet.

  Raises:
    ConfigError: an empty alphabet or a repeated character; later, a character outside it.
  """
  return CharTokenizer(alphabet)


def pieces(*, pieces: tuple) -> Tokenizer:
  """The given strings, such as words and tags, each of which is one token.

  Raises:
    ConfigError: no pieces, an empty or a repeated one; later, text that they do not make up.
  """
  return PiecesTokenizer(pieces)


def byte() -> Tokenizer:
  """UTF-8 bytes."""
  return ByteTokenizer()


def images(*, tokenizer: Callable, marker: str, patches: int) -> Tokenizer:
  """Prompts that name images, over another tokenizer.

  Args:
    tokenizer: leaf of it. marker: the token that stands for an image in a prompt.
    patches: of an image, as the model has it.

  Raises:
    ConfigError: the marker is not one token, or patches below 1.
  """
  return ImageTokenizer(tokenizer(), marker, patches)


def hf(*, path: str, stop_tokens: tuple = ()) -> Tokenizer:
  """A Hugging Face tokenizer folder.

  Raises:
    ConfigError: no such folder, unreadable, without an end token, or an unknown stop token.
  """
  return HFTokenizer(path, stop_tokens)
