"""Tokenizers: round trips, end tokens, chat templates, mistakes."""

import functools
import json

import numpy as np
import pytest
import tokenizers

from rljax import types
from rljax.config import ConfigError
from rljax.data import text


def test_characters():
  t = text.char(alphabet="012+=")
  assert t.encode("1+2=").tolist() == [3, 5, 4, 6] and t.vocab_size == 7
  assert t.decode([3, 5, 4, 6, t.eos_id, t.pad_id]) == "1+2="
  assert t.response("1").tolist() == [3, t.eos_id]
  with pytest.raises(ConfigError, match="character 'x' of '1x' is not in the alphabet"):
    t.encode("1x")
  with pytest.raises(ConfigError, match="repeats"):
    text.char(alphabet="11")


def test_pieces(tmp_path):
  t = text.pieces(pieces=("e1", "e12", "<a>", "?"))
  assert t.encode("e12e1<a>?").tolist() == [3, 2, 4, 5] and t.vocab_size == 6  # the longest wins
  assert t.decode([3, 2, t.eos_id, t.pad_id]) == "e12e1" and t.stop_ids == (1,)
  with pytest.raises(ConfigError, match="'e3' is not made of the pieces"):
    t.encode("e3")
  for bad in ((), ("a", "a"), ("a", "")):
    with pytest.raises(ConfigError, match="pieces"):
      text.pieces(pieces=bad)
  t.save(str(tmp_path))
  assert text.hf(path=str(tmp_path)).encode("e12e1<a>?").tolist() == [3, 2, 4, 5]


def test_bytes_round_trip_any_text():
  t = text.byte()
  assert t.decode(t.response("naïve ≠ 🙂")) == "naïve ≠ 🙂"
  assert t.decode([0xC3, t.eos_id]) == "\ufffd"  # half a character is shown, not raised
  assert t.render([{"role": "user", "content": "hi"}]).tolist() == list(b"user: hi\nassistant: ")


def folder(path, *, eos="</s>", template=None):
  words = {"<unk>": 0, "</s>": 1, "hello": 2, "world": 3, "user": 4}
  t = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
  t.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  t.save(str(path / "tokenizer.json"))
  config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
  config |= {"eos_token": eos} if eos else {}
  config |= {"chat_template": template} if template else {}
  (path / "tokenizer_config.json").write_text(json.dumps(config))
  return str(path)


def test_hugging_face_folder(tmp_path):
  t = text.hf(path=folder(tmp_path))
  assert t.encode("hello world").tolist() == [2, 3] and t.eos_id == 1 and t.stop_ids == (1,)
  assert t.decode([2, 3, 1]) == "hello world"
  assert t.pad_id == 1  # no pad token: any id will do, masks never look at it


def test_chat_template_renders(tmp_path):
  template = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %} world"
  t = text.hf(path=folder(tmp_path, template=template))
  assert t.render([{"role": "user", "content": "hello"}]).tolist() == [4, 2, 3]


def test_later_messages_are_framed_as_the_template_frames_them(tmp_path):
  template = ("{{ 'system prompt' }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>\n"
              "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")
  t = text.hf(path=folder(tmp_path, template=template))
  assert t.message_frame(ended=False) == ("</s>\n<user>", "</s>\n<assistant>")
  assert t.message_frame(ended=True) == ("\n<user>", "</s>\n<assistant>")  # </s> was sampled
  plain = text.hf(path=folder(tmp_path))
  assert plain.message_frame(ended=True) == text.byte().message_frame(ended=False) == (
      "\nuser: ", "\nassistant: ")


def test_stop_tokens(tmp_path):
  assert text.hf(path=folder(tmp_path), stop_tokens=("user",)).stop_ids == (1, 4)
  with pytest.raises(ConfigError, match="stop tokens"):
    text.hf(path=folder(tmp_path), stop_tokens=("<|nothing|>",))


def test_mistakes(tmp_path):
  with pytest.raises(ConfigError, match="no end token"):
    text.hf(path=folder(tmp_path, eos=None))
  with pytest.raises(ConfigError, match="no folder"):
    text.hf(path=str(tmp_path / "missing"))
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(ConfigError, match="cannot be read"):
    text.hf(path=str(tmp_path))


def test_images_in_a_prompt_become_their_patches_in_order():
  t = text.images(tokenizer=functools.partial(text.char, alphabet="ab#:"), marker="#", patches=3)
  first = types.FIRST_PATCH
  ids = t.render("a##b:")
  assert ids.tolist() == [2, *range(first, first + 6), 3, 5] and ids.dtype == np.int32
  assert t.decode(ids) == "ab:" and t.encode("#").tolist() == [4]  # what is said is no image
  assert t.response("a").tolist() == [2, 1] and t.vocab_size == 6 and t.stop_ids == (1,)
  assert t.render("ab").tolist() == [2, 3]
  chat = text.images(tokenizer=text.byte, marker="\x00", patches=2)
  shown = chat.render([{"role": "user", "content": "x\x00"}])
  assert shown.tolist() == [*b"user: x", first, first + 1, *b"\nassistant: "]
  for marker, patches in (("##", 3), ("#", 0)):
    with pytest.raises(ConfigError, match="wanted one"):
      text.images(tokenizer=functools.partial(text.char, alphabet="#"), marker=marker,
                  patches=patches)
