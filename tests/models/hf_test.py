"""Hugging Face folders: the numbers of transformers, and one sentence for what does not fit."""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax.config import ConfigError
from rljax.models import families, hf, transformer
from rljax.sampling import engine as engine_lib

torch = pytest.importorskip("torch", reason="torch writes the reference checkpoints")
from tests.models import reference, transformer_test  # noqa: E402

LENGTHS = [11, 6, 3]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """case -> (folder, transformers model), each written once."""
  done = {}
  def get(case):
    if case not in done:
      path = tmp_path_factory.mktemp(case)
      sharded = {"max_shard_size": "6KB"} if case in ("llama-tied", "gemma3") else {}
      done[case] = str(path), reference.save(path, case, **sharded)
    return done[case]
  return get


def tokens():
  return np.random.default_rng(0).integers(0, 29, (3, 11)).astype(np.int32)


def load(path, **kwargs):
  policy = hf.model(29, path=path, **{"dtype": "float32", "remat": "none", **kwargs})
  return policy, hf.read(policy.cfg, path)


@pytest.mark.parametrize("case", reference.CASES)
def test_logits_equal_transformers(folders, case):
  """Rows of mixed length, right-padded; real positions compared."""
  path, model = folders(case)
  policy, params = load(path)
  hidden = transformer.forward(policy.cfg, params, jnp.asarray(tokens())).hidden
  want = reference.logits(model, tokens(), LENGTHS)
  for row, n in enumerate(LENGTHS):
    got = policy.logits(params, hidden[row, :n])
    np.testing.assert_allclose(got, want[row, :n], atol=1e-4)


@pytest.mark.parametrize("case", ["mistral", "qwen3moe", "gemma2", "gemma3"])
def test_prefill_and_decode_equal_the_whole_forward(folders, case):
  """Windows, soft-caps, two rotary bases and experts, through the cache."""
  path, _ = folders(case)
  policy, params = load(path)
  x, lengths = tokens(), np.array([5, 4, 2])
  whole = transformer.forward(policy.cfg, params, jnp.asarray(x)).hidden
  prompt = np.where(np.arange(5) < lengths[:, None], x[:, :5], 0)
  h, cache = transformer_test.read(policy, params, prompt, lengths, capacity=11)
  rows = np.arange(3)
  for t in range(6):
    np.testing.assert_allclose(h, whole[rows, lengths + t - 1], atol=5e-5)
    h, cache = transformer_test.decode(policy, params, x[rows, lengths + t], lengths + t, cache)


@pytest.mark.parametrize("case", reference.CASES)
def test_greedy_sampling_equals_transformers(folders, case):
  """Prompts of mixed length in fewer slots than requests, 12 tokens behind each."""
  path, model = folders(case)
  policy, params = load(path)
  prompts = [tokens()[i % 3, :n] for i, n in enumerate((7, 1, 4, 3, 6))]
  engine = engine_lib.Engine(policy, stop_ids=(2,), slots=2, prompt_buckets=(4, 8), max_tokens=12)
  done = engine.generate(params, [engine_lib.Request(p, (i, 0), 12, greedy=True)
                                  for i, p in enumerate(prompts)], jax.random.key(0))
  for p, c in zip(prompts, done):
    np.testing.assert_array_equal(c.tokens, reference.greedy(model, p, 12))


def test_scanned_layers_of_two_kinds_equal_unrolled_ones(folders):
  path, _ = folders("gemma3")
  policy, params = load(path)
  assert len(set(policy.cfg.windowed())) == 2
  import dataclasses
  flat = dataclasses.replace(policy.cfg, scan=False)
  a, b = (transformer.forward(c, params, jnp.asarray(tokens())).hidden for c in (policy.cfg, flat))
  np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("case", reference.CASES)
def test_config_and_names_go_both_ways(folders, case):
  """config.json -> ours -> config.json -> ours is the identity; no two tensors share a name."""
  path, _ = folders(case)
  theirs = hf.read_config(path)
  cfg = families.to_ours(theirs, path)
  again = families.to_theirs(cfg)
  assert families.to_ours(again, path) == cfg
  names = families.names(cfg, families.family_of(theirs, path))
  assert len(set(names.values())) == len(names)
  found = set(hf.Tensors(path).files)
  ours = {t.format(l=l, e=e) for t in names.values()
          for l in range(cfg.layers) for e in range(cfg.experts or 1)}
  assert ours == found


def edit(path, **changes):
  file = f"{path}/config.json"
  config = {**hf.read_config(path), **changes}
  with open(file, "w") as f:
    json.dump(config, f)


@pytest.fixture()
def llama(tmp_path):
  reference.save(tmp_path, "llama")
  return str(tmp_path)


def test_a_folder_that_does_not_fit(llama, tmp_path):
  with pytest.raises(ConfigError, match="not a checkpoint folder"):
    hf.model(29, path=str(tmp_path / "nothing"))
  with pytest.raises(ConfigError, match="30 ids, the embedding 29 rows"):
    hf.model(30, path=llama)
  edit(llama, intermediate_size=25)
  with pytest.raises(
      ConfigError, match=r"gate_proj.weight has shape \(24, 16\), expected \(25, 16\)"):
    load(llama)
  edit(llama, intermediate_size=24, num_hidden_layers=3)
  with pytest.raises(ConfigError, match="no tensor 'model.layers.2"):
    load(llama)
  edit(llama, num_hidden_layers=2, architectures=["MambaForCausalLM"])
  with pytest.raises(ConfigError, match="'MambaForCausalLM' is not known; known: Llama"):
    load(llama)


@pytest.mark.parametrize("change, message", [
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope scaling 'yarn'"),
    ({"attention_bias": True}, "attention_bias=True is not supported"),
    ({"hidden_act": "tanh"}, "activation 'tanh' is not known"),
    ({"num_key_value_heads": 3}, "multiple of kv_heads")])
def test_a_config_that_cannot_be_expressed(llama, change, message):
  edit(llama, **change)
  with pytest.raises(ConfigError, match=message):
    hf.model(29, path=llama)


def test_files_that_cannot_be_read(llama, tmp_path):
  import safetensors.numpy
  weights = tmp_path / "model.safetensors"
  tensors = safetensors.numpy.load_file(weights)
  safetensors.numpy.save_file(
      {**tensors, "model.norm.weight": tensors["model.norm.weight"].astype(np.int8)}, weights)
  with pytest.raises(ConfigError, match="model.norm.weight has type I8; loadable: F64"):
    load(llama)
  weights.write_bytes(weights.read_bytes()[:500])
  with pytest.raises(ConfigError, match="cannot be read"):
    load(llama)
  weights.unlink()
  with pytest.raises(ConfigError, match="neither model.safetensors nor an index"):
    load(llama)


def test_a_missing_shard_is_named(tmp_path):
  reference.save(tmp_path, "llama", max_shard_size="6KB")
  shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
  shard.unlink()
  with pytest.raises(ConfigError, match=f"names {shard.name}, which is missing"):
    load(str(tmp_path))


def test_a_tokenizer_with_another_end_token(llama):
  policy = hf.model(29, path=llama, dtype="float32")
  setup = lambda eos: types.SimpleNamespace(
      policy=policy, layout=None, tokenizer=types.SimpleNamespace(eos_id=eos))
  with pytest.raises(ConfigError, match="ends with token id 2, the tokenizer with 7"):
    hf.params(setup(7), path=llama)
  hf.params(setup(2), path=llama)
  hf.params(setup(7), path=llama, check_end=False)
