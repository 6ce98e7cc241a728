"""Hugging Face checkpoint folders (config.json + safetensors) as policies. No torch.

Families: Llama (without rope scaling) and Qwen2 / Qwen2.5. Weights are stacked over layers as they
are read; one tensor is in host memory twice at most.
"""

import json
import os

import jax.numpy as jnp
import safetensors

from rljax.config import ConfigError
from rljax.models import policy, transformer
from rljax.types import PyTree

FAMILIES = {"LlamaForCausalLM": {"qkv_bias": False}, "Qwen2ForCausalLM": {"qkv_bias": True}}
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}


def model(vocab: int, *, path: str, remat: bool = True, dtype: str = "bfloat16",
          temperature: float = 1.0) -> policy.Policy:
  """The policy that a checkpoint folder describes.

  Args:
    vocab: the tokenizer's number of ids; the checkpoint may have more rows, not fewer.
    path: the folder. dtype: of activations and weights.

  Raises:
    ConfigError: no such folder, an architecture not known, or a tokenizer that does not fit.
  """
  hf = _config(path)
  arch = (hf.get("architectures") or ["?"])[0]
  if arch not in FAMILIES:
    raise ConfigError(f"{path}: architecture {arch!r} is not known; known: {', '.join(FAMILIES)}")
  rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
  if rope.get("rope_type", rope.get("type", "default")) != "default":
    raise ConfigError(f"{path}: rope scaling {rope} is not supported")
  if hf.get("use_sliding_window") or hf.get("attention_bias") or hf.get("mlp_bias"):
    raise ConfigError(f"{path}: sliding windows and biases outside q, k, v are not supported")
  if vocab > hf["vocab_size"]:
    raise ConfigError(
        f"{path}: the tokenizer has {vocab} ids, the embedding {hf['vocab_size']} rows")
  if hf["hidden_act"] not in ACTIVATIONS:
    raise ConfigError(f"{path}: activation {hf['hidden_act']!r} is not known")
  heads = hf["num_attention_heads"]
  cfg = transformer.TransformerConfig(
      vocab=hf["vocab_size"], width=hf["hidden_size"], layers=hf["num_hidden_layers"], heads=heads,
      kv_heads=hf.get("num_key_value_heads", heads),
      head_dim=hf.get("head_dim") or hf["hidden_size"] // heads, mlp=hf["intermediate_size"],
      activation=ACTIVATIONS[hf["hidden_act"]],
      rope_theta=float(rope.get("rope_theta") or hf.get("rope_theta", 10000.0)),
      norm_eps=hf["rms_norm_eps"], tied=hf.get("tie_word_embeddings", False), scale_embed=False,
      remat=remat, dtype=dtype, param_dtype=dtype, **FAMILIES[arch])
  return policy.Policy(cfg, temperature)


def params(setup, *, path: str) -> PyTree:
  """The weights of a folder, for the role's model.

  Raises:
    ConfigError: a missing or unreadable file, or a tensor that is missing or of another shape.
  """
  return read(setup.policy.cfg, path)


def read(cfg: transformer.TransformerConfig, path: str) -> PyTree:
  """See `params`."""
  index = _index(path)
  files: dict[str, safetensors.safe_open] = {}

  def get(name, shape):
    if name not in index:
      raise ConfigError(f"{path}: there is no tensor {name!r}")
    file = index[name]
    try:
      if file not in files:
        files[file] = safetensors.safe_open(file, framework="flax")
      x = files[file].get_tensor(name)
    except Exception as e:
      raise ConfigError(f"{file} cannot be read: {e}") from None
    if tuple(x.shape) != shape:
      raise ConfigError(f"{path}: tensor {name} has shape {tuple(x.shape)}, expected {shape}")
    return x.astype(cfg.param_dtype)

  D, H, K, Hd, M = cfg.width, cfg.heads, cfg.kv_heads, cfg.head_dim, cfg.mlp
  # our name -> (their name, their shape, turn theirs into ours)
  matrices = {
      "q": ("self_attn.q_proj.weight", (H * Hd, D), lambda x: x.T.reshape(D, H, Hd)),
      "k": ("self_attn.k_proj.weight", (K * Hd, D), lambda x: x.T.reshape(D, K, Hd)),
      "v": ("self_attn.v_proj.weight", (K * Hd, D), lambda x: x.T.reshape(D, K, Hd)),
      "o": ("self_attn.o_proj.weight", (D, H * Hd), lambda x: x.T.reshape(H, Hd, D)),
      "gate": ("mlp.gate_proj.weight", (M, D), lambda x: x.T),
      "up": ("mlp.up_proj.weight", (M, D), lambda x: x.T),
      "down": ("mlp.down_proj.weight", (D, M), lambda x: x.T),
  }
  if cfg.qkv_bias:
    matrices |= {f"{n}_bias": (f"self_attn.{n}_proj.bias", (k * Hd,),
                               lambda x, k=k: x.reshape(k, Hd))
                 for n, k in (("q", H), ("k", K), ("v", K))}
  stack = lambda name, shape, turn: jnp.stack(
      [turn(get(f"model.layers.{i}.{name}", shape)) for i in range(cfg.layers)])
  layers = {ours: stack(*spec) for ours, spec in matrices.items()}
  for ours, theirs in (("norm_attn", "input_layernorm"), ("norm_mlp", "post_attention_layernorm")):
    layers[ours] = {"scale": stack(f"{theirs}.weight", (D,), lambda x: x)}
  out = {"embed": get("model.embed_tokens.weight", (cfg.vocab, D)), "layers": layers,
         "norm": {"scale": get("model.norm.weight", (D,))}}
  if not cfg.tied:
    out["head"] = get("lm_head.weight", (cfg.vocab, D))
  return out


def _config(path):
  file = os.path.join(path, "config.json")
  if not os.path.exists(file):
    raise ConfigError(f"{path!r} is not a checkpoint folder: it has no config.json")
  with open(file) as f:
    return json.load(f)


def _index(path) -> dict[str, str]:
  """Tensor name -> file."""
  index = os.path.join(path, "model.safetensors.index.json")
  single = os.path.join(path, "model.safetensors")
  try:
    if os.path.exists(index):
      with open(index) as f:
        names = json.load(f)["weight_map"]
      return {name: os.path.join(path, file) for name, file in names.items()}
    with safetensors.safe_open(single, framework="flax") as f:
      return dict.fromkeys(f.keys(), single)
  except Exception as e:
    raise ConfigError(f"{path}: its safetensors cannot be read: {e}") from None
