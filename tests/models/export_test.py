"""There and back: what we write, transformers reads; import, export, import is the same bits."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import main
from rljax.config import ConfigError
from rljax.data import text
from rljax.models import export, heads, hf, lora, policy, transformer, tree
from rljax.train import loop
from tests.train import loop_test

torch = pytest.importorskip("torch", reason="torch reads what is exported")
import transformers  # noqa: E402

from tests.models import reference  # noqa: E402


def logits_of(model, params, tokens):
  hidden = transformer.forward(model.cfg, params, jnp.asarray(tokens)).hidden
  return np.asarray(model.logits(params, hidden[0]))


def transformers_logits(folder, tokens):
  theirs = transformers.AutoModelForCausalLM.from_pretrained(
      folder, attn_implementation="eager", dtype=torch.float32).eval()
  with torch.no_grad():
    return theirs(torch.tensor(tokens)).logits[0].numpy()


@pytest.mark.parametrize("case", reference.CASES)
def test_round_trip_is_bitwise_and_transformers_agrees(tmp_path, case):
  theirs = reference.save(tmp_path / "a", case)
  model = hf.model(29, path=str(tmp_path / "a"), dtype="float32", remat="none")
  params = hf.read(model.cfg, str(tmp_path / "a"))
  shard = 4000 if case in ("qwen3", "gemma2") else 10**9
  export.write(model, params, str(tmp_path / "b"), shard_bytes=shard,
               template=hf.read_config(str(tmp_path / "a")))
  assert (tmp_path / "b" / "model.safetensors").exists() == (shard == 10**9)
  again = hf.model(29, path=str(tmp_path / "b"), dtype="float32", remat="none")
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, params, hf.read(model.cfg, str(tmp_path / "b")))
  x = np.random.default_rng(0).integers(0, 29, (1, 9))
  want = reference.logits(theirs, x, [9])[0]
  np.testing.assert_allclose(transformers_logits(tmp_path / "b", x), want, atol=1e-5)


def test_bfloat16_round_trip(tmp_path):
  reference.save(tmp_path / "a", "qwen3")
  model = hf.model(29, path=str(tmp_path / "a"), param_dtype="bfloat16")
  params = hf.read(model.cfg, str(tmp_path / "a"))
  assert params["embed"].dtype == jnp.bfloat16
  export.write(model, params, str(tmp_path / "b"))
  assert hf.read_config(str(tmp_path / "b"))["torch_dtype"] == "bfloat16"
  jax.tree.map(np.testing.assert_array_equal, params, hf.read(model.cfg, str(tmp_path / "b")))


def test_our_own_decoder_is_a_gemma(tmp_path):
  """The quickstart's model: relu, scaled tied embeddings, plain norms."""
  model = policy.decoder(13, width=16, layers=2, heads=2, activation="relu", scan=False)
  params = model.init(jax.random.key(0))
  export.write(model, params, str(tmp_path))
  x = np.random.default_rng(0).integers(0, 13, (1, 9))
  np.testing.assert_allclose(
      transformers_logits(tmp_path, x), logits_of(model, params, x), atol=1e-5)


def test_adapters_are_merged_and_heads_go_beside(tmp_path):
  plain = policy.decoder(13, width=16, layers=2, heads=2)
  cfg = dataclasses.replace(plain.cfg, lora=lora.lora(rank=2, targets=("q", "o", "down")))
  model = dataclasses.replace(plain, cfg=cfg, head=heads.head(outputs=2))
  flat = tree.flatten(model.init(jax.random.key(0)))
  key = jax.random.key(1)
  params = tree.nest({p: jax.random.normal(key, x.shape) * 0.3 if p.endswith("_b") else x
                      for p, x in flat.items()})
  export.write(model, params, str(tmp_path))
  x = np.random.default_rng(0).integers(0, 13, (1, 9))
  got = transformers_logits(tmp_path, x)
  np.testing.assert_allclose(got, logits_of(model, params, x), atol=1e-4)
  base = lora.split(params)[0]
  assert np.abs(got - logits_of(plain, base, x)).max() > 1e-2
  assert (tmp_path / export.HEAD_FILE).exists()


def test_a_model_without_a_family(tmp_path):
  model = policy.decoder(13, width=16, layers=2, heads=2)
  model = dataclasses.replace(model, cfg=dataclasses.replace(
      model.cfg, scale_embed=False, attention_softcap=3.0))
  with pytest.raises(ConfigError, match="no Hugging Face architecture .* attention_softcap"):
    export.write(model, model.init(jax.random.key(0)), str(tmp_path))
  with pytest.raises(ConfigError, match="dtype='int8'; one of float32"):
    export.write(model, {}, str(tmp_path), dtype="int8")


@pytest.mark.parametrize("tokenizer", [text.char(alphabet="abc 0?"), text.byte()])
def test_tokenizers_are_readable_by_transformers(tmp_path, tokenizer):
  tokenizer.save(str(tmp_path))
  theirs = text.hf(path=str(tmp_path))
  words = "a0 cab?" if len(tokenizer.stop_ids) and tokenizer.vocab_size < 20 else "naïve  ☃\n0"
  np.testing.assert_array_equal(theirs.encode(words), tokenizer.encode(words))
  assert theirs.decode(tokenizer.encode(words)) == words
  assert (theirs.eos_id, theirs.pad_id) == (tokenizer.eos_id, tokenizer.pad_id)
  if tokenizer.vocab_size > 20:
    chat = [{"role": "user", "content": "hi"}]
    np.testing.assert_array_equal(theirs.render(chat), tokenizer.render(chat))


def test_the_command_exports_a_run(tmp_path, capsys):
  run, out = str(tmp_path / "run"), str(tmp_path / "out")
  states = loop.train(loop_test.load(steps=1, eval__every=0), run, quiet=True)
  assert main.export([run, out]) == 0
  assert "policy of step 1" in capsys.readouterr().out
  model = hf.model(14, path=out, dtype="float32")
  params = hf.read(model.cfg, out)
  np.testing.assert_array_equal(params["embed"], states["policy"].params["embed"])
  setup = types.SimpleNamespace(policy=model, layout=None, tokenizer=text.hf(path=out))
  hf.params(setup, path=out)
  assert main.export([run, out, "--role", "nobody"]) == 2
  assert "there is no role 'nobody'" in capsys.readouterr().err
  assert main.export([str(tmp_path / "nothing"), out]) == 2
  (tmp_path / "nothing").mkdir()
  (tmp_path / "nothing" / "config.json").write_text(json.dumps(
      json.load(open(f"{run}/config.json"))))
  assert main.export([str(tmp_path / "nothing"), out]) == 2
  assert "has no checkpoint" in capsys.readouterr().err
