"""Hugging Face folders: same numbers as transformers, and one sentence for what does not fit."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest

from rljax.config import ConfigError
from rljax.models import hf

torch = pytest.importorskip("torch", reason="torch writes the reference checkpoints")
transformers = pytest.importorskip("transformers")

SIZES = dict(vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, intermediate_size=24, rms_norm_eps=1e-5)


def save(path, family, **more):
  config = getattr(transformers, f"{family}Config")(**SIZES, **more)
  torch.manual_seed(0)
  model = getattr(transformers, f"{family}ForCausalLM")(config).float()
  for name, p in model.named_parameters():  # biases and norms start at 0 and 1: make them matter
    if p.ndim == 1:
      torch.nn.init.normal_(p, 1.0 if "norm" in name else 0.0, 0.3)
  model.save_pretrained(path, **({"max_shard_size": "6KB"} if more else {}))
  return model


@pytest.mark.parametrize("family, more", [
    ("Llama", {}), ("Llama", {"tie_word_embeddings": True}), ("Qwen2", {}),
    ("Llama", {"head_dim": 8})])
def test_logits_equal_transformers(tmp_path, family, more):
  reference = save(tmp_path, family, **more)
  policy = hf.model(29, path=str(tmp_path), dtype="float32", remat=False)
  params = hf.read(policy.cfg, str(tmp_path))
  x = np.random.default_rng(0).integers(0, 29, (3, 11))
  with torch.no_grad():
    want = reference(torch.tensor(x)).logits.numpy()
  hidden, _ = policy.module.apply({"params": params}, jnp.asarray(x))
  got = np.stack([policy.logits(params, h) for h in hidden])
  np.testing.assert_allclose(got, want, atol=1e-4)
  # both layouts read
  assert os.path.exists(tmp_path / "model.safetensors.index.json") == bool(more)


def edit(path, **changes):
  file = path / "config.json"
  file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_mistakes(tmp_path):
  save(tmp_path, "Llama")
  path = str(tmp_path)
  with pytest.raises(ConfigError, match="not a checkpoint folder"):
    hf.model(29, path=str(tmp_path / "nothing"))
  with pytest.raises(ConfigError, match="30 ids, the embedding 29 rows"):
    hf.model(30, path=path)
  policy = hf.model(29, path=path)
  edit(tmp_path, intermediate_size=25)
  with pytest.raises(
      ConfigError, match=r"gate_proj.weight has shape \(24, 16\), expected \(25, 16\)"):
    hf.read(hf.model(29, path=path).cfg, path)
  edit(tmp_path, intermediate_size=24, num_hidden_layers=3)
  with pytest.raises(ConfigError, match="no tensor 'model.layers.2"):
    hf.read(hf.model(29, path=path).cfg, path)
  edit(tmp_path, architectures=["MambaForCausalLM"])
  with pytest.raises(ConfigError, match="'MambaForCausalLM' is not known; known: Llama"):
    hf.model(29, path=path)
  weights = tmp_path / "model.safetensors"
  weights.write_bytes(weights.read_bytes()[:500])
  with pytest.raises(ConfigError, match="cannot be read"):
    hf.read(policy.cfg, path)
