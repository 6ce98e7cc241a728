"""Families as data: Hugging Face architectures, their config fields and their tensor names.

A family is a row of `FAMILIES`: the switches of our one transformer it always has, the config.json
keys it alone knows, and its names for the norms. Both directions are read off the same tables.
"""

import dataclasses
from typing import NamedTuple

from rljax.config import ConfigError
from rljax.models import transformer

ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
_ACTIVATION_NAMES = {"silu": "silu", "gelu": "gelu_pytorch_tanh", "relu": "relu"}
_LLAMA_NORMS = {"norm_attn": "input_layernorm", "norm_mlp": "post_attention_layernorm"}
_GEMMA_NORMS = {"norm_attn": "input_layernorm", "norm_attn_out": "post_attention_layernorm",
                "norm_mlp": "pre_feedforward_layernorm",
                "norm_mlp_out": "post_feedforward_layernorm"}
# our config field -> theirs, in every family
_FIELDS = {"vocab": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers",
           "heads": "num_attention_heads", "kv_heads": "num_key_value_heads",
           "head_dim": "head_dim", "mlp": "intermediate_size", "norm_eps": "rms_norm_eps",
           "tied": "tie_word_embeddings"}
_GEMMA2_FIELDS = {"attention_softcap": "attn_logit_softcapping",
                  "softcap": "final_logit_softcapping"}


class Family(NamedTuple):
  """One architecture.

  Attributes:
    model_type: theirs. switches: our fields that are fixed. fields: our field -> their key, beyond
      those of every family. norms: our norm -> theirs. defaults: what a config.json may leave out.
    activation: their key of the activation.
    windows: which layers have the sliding window when `layer_types` does not say: "never", "all",
      "other" (the even ones), "late" (from max_window_layers on), "sixth" (all but every n-th).
  """

  model_type: str
  switches: dict
  fields: dict = {}
  norms: dict = _LLAMA_NORMS
  defaults: dict = {}
  activation: str = "hidden_act"
  windows: str = "never"


_GEMMA = {"scale_embed": True, "norm_plus_one": True}
_PLAIN = {"scale_embed": False}
_GEMMA_DEFAULTS = {"tie_word_embeddings": True, "head_dim": 256, "query_pre_attn_scalar": 256,
                   "hidden_act": "gelu_pytorch_tanh", "sliding_window": 4096}

FAMILIES: dict[str, Family] = {
    "LlamaForCausalLM": Family("llama", _PLAIN),
    "MistralForCausalLM": Family("mistral", _PLAIN, windows="all"),
    "Qwen2ForCausalLM": Family("qwen2", {**_PLAIN, "qkv_bias": True}, windows="late"),
    "Qwen3ForCausalLM": Family("qwen3", {**_PLAIN, "qk_norm": True}, defaults={"head_dim": 128},
                               windows="late"),
    "Qwen3MoeForCausalLM": Family(
        "qwen3_moe", {**_PLAIN, "qk_norm": True},
        {"experts": "num_experts", "experts_per_token": "num_experts_per_tok",
         "mlp": "moe_intermediate_size", "norm_routes": "norm_topk_prob"},
        defaults={"norm_topk_prob": False}, windows="all"),
    "GemmaForCausalLM": Family("gemma", _GEMMA, defaults=_GEMMA_DEFAULTS),
    "Gemma2ForCausalLM": Family(
        "gemma2", {**_GEMMA, "post_norms": True}, _GEMMA2_FIELDS, _GEMMA_NORMS,
        {**_GEMMA_DEFAULTS, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        "hidden_activation", "other"),
    "Gemma3ForCausalLM": Family(
        "gemma3_text", {**_GEMMA, "post_norms": True, "qk_norm": True}, _GEMMA2_FIELDS,
        _GEMMA_NORMS,
        {**_GEMMA_DEFAULTS, "rope_theta": 1e6, "rope_local_base_freq": 1e4}, "hidden_activation",
        "sixth"),
}


def family_of(hf: dict, path: str) -> Family:
  """The row for a config.json.

  Raises:
    ConfigError: an architecture that is not in the table.
  """
  arch = (hf.get("architectures") or ["?"])[0]
  if arch not in FAMILIES:
    raise ConfigError(f"{path}: architecture {arch!r} is not known; known: {', '.join(FAMILIES)}")
  return FAMILIES[arch]


# --- config.json <-> TransformerConfig ------------------------------------------------------------


def to_ours(hf: dict, path: str, **overrides) -> transformer.TransformerConfig:
  """The TransformerConfig of a config.json.

  Raises:
    ConfigError: an unknown architecture or a field this transformer cannot express, named.
  """
  family = family_of(hf, path)
  given = {k: v for k, v in hf.items() if v is not None}
  hf = {"rms_norm_eps": 1e-6, "tie_word_embeddings": False, "rope_theta": 10000.0,
        **family.defaults, **given}
  if "num_local_experts" in hf:  # what transformers 5 calls it
    hf.setdefault("num_experts", hf["num_local_experts"])
  for key in ("attention_bias", "mlp_bias", "mlp_only_layers", "use_bidirectional_attention"):
    if hf.get(key):
      raise ConfigError(f"{path}: {key}={hf[key]!r} is not supported")
  if hf.get("decoder_sparse_step", 1) != 1:
    raise ConfigError(f"{path}: decoder_sparse_step={hf['decoder_sparse_step']} is not supported")
  name = hf.get(family.activation) or hf.get("hidden_act", "silu")
  if family.model_type == "gemma" and name == "gelu":  # as its first configs called the tanh form
    name = "gelu_pytorch_tanh"
  if name not in ACTIVATIONS:
    raise ConfigError(f"{path}: activation {name!r} is not known; known: {', '.join(ACTIVATIONS)}")
  hf.setdefault("num_key_value_heads", hf["num_attention_heads"])
  hf.setdefault("head_dim", hf["hidden_size"] // hf["num_attention_heads"])
  ours = {o: hf[t] for o, t in {**_FIELDS, **family.fields}.items() if t in hf}
  window, local = _windows(hf, family)
  scalar = hf.get("query_pre_attn_scalar") if "gemma" in family.model_type[:5] else None
  query_scale = scalar ** -0.5 if scalar and scalar != ours["head_dim"] else 0.0
  if family.model_type == "gemma":
    query_scale = 0.0
  try:
    return transformer.TransformerConfig(
        **ours, **family.switches, **_rope(hf, path), activation=ACTIVATIONS[name], window=window,
        local=local, query_scale=query_scale, **overrides)
  except ValueError as e:
    raise ConfigError(f"{path}: {e}") from None


def _windows(hf, family) -> tuple[int, tuple[bool, ...]]:
  """(window, which layers have it); 0 when none has."""
  L, size = hf["num_hidden_layers"], hf.get("sliding_window") or 0
  if "use_sliding_window" in hf and not hf["use_sliding_window"]:
    size = 0
  if hf.get("layer_types"):
    local = tuple(t == "sliding_attention" for t in hf["layer_types"])
  else:
    rule = {"never": lambda i: False, "all": lambda i: True, "other": lambda i: i % 2 == 0,
            "late": lambda i: i >= hf.get("max_window_layers", 28),
            "sixth": lambda i: (i + 1) % hf.get("sliding_window_pattern", 6) != 0}
    local = tuple(rule[family.windows](i) for i in range(L))
  if not size or not any(local):
    return 0, ()
  return int(size), () if all(local) else local


def _rope(hf, path) -> dict:
  """Rotary fields from any of the three forms in which config.json has had them."""
  new = hf.get("rope_parameters") or {}
  own = new.get("full_attention", new if "rope_type" in new or "rope_theta" in new else {})
  near = new.get("sliding_attention", {})
  scaling = own or hf.get("rope_scaling") or {}
  kind = scaling.get("rope_type", scaling.get("type", "default"))
  out = {"rope_theta": float(own.get("rope_theta", hf["rope_theta"]))}
  local = near.get("rope_theta", hf.get("rope_local_base_freq"))
  if local is not None and float(local) != out["rope_theta"]:
    out["rope_theta_local"] = float(local)
  if kind == "linear":
    out["rope_scaling"] = transformer.RopeScaling("linear", float(scaling["factor"]))
  elif kind == "llama3":
    out["rope_scaling"] = transformer.RopeScaling(
        "llama3", float(scaling["factor"]), float(scaling["low_freq_factor"]),
        float(scaling["high_freq_factor"]), int(scaling["original_max_position_embeddings"]))
  elif kind != "default":
    raise ConfigError(f"{path}: rope scaling {kind!r} is not supported; known: linear, llama3")
  return out


def to_theirs(cfg: transformer.TransformerConfig) -> dict:
  """A config.json (without token ids) of the first family that can express this config.

  Raises:
    ConfigError: there is none; says which fields are in the way of the nearest.
  """
  reasons = {}
  for arch, family in FAMILIES.items():
    hf = _theirs(cfg, arch, family)
    back = to_ours(hf, arch, scan=cfg.scan, remat=cfg.remat, query_chunk=cfg.query_chunk,
                   dtype=cfg.dtype, param_dtype=cfg.param_dtype, lora=cfg.lora)
    if family.model_type == "gemma":  # 1 + scale is written as scale: the same function
      back = dataclasses.replace(back, norm_plus_one=cfg.norm_plus_one)
    differ = [f.name for f in dataclasses.fields(cfg)
              if getattr(cfg, f.name) != getattr(back, f.name)]
    if not differ:
      return hf
    reasons[arch] = differ
  nearest = min(reasons, key=lambda a: len(reasons[a]))
  raise ConfigError(f"no Hugging Face architecture has these settings; the nearest, {nearest}, "
                    f"differs in {', '.join(reasons[nearest])}")


def _theirs(cfg, arch, family) -> dict:
  hf = {"architectures": [arch], "model_type": family.model_type,
        "intermediate_size": cfg.mlp, family.activation: _ACTIVATION_NAMES[cfg.activation]}
  for ours, theirs in {**_FIELDS, **family.fields}.items():
    value = getattr(cfg, ours)
    hf[theirs] = None if theirs.endswith("softcapping") and not value else value
  hf["rope_theta"] = cfg.rope_theta
  if cfg.rope_theta_local or family.model_type == "gemma3_text":
    hf["rope_local_base_freq"] = cfg.rope_theta_local or cfg.rope_theta
  if cfg.rope_scaling:
    s = cfg.rope_scaling
    hf["rope_scaling"] = {"rope_type": s.kind, "factor": s.factor}
    if s.kind == "llama3":
      hf["rope_scaling"] |= {"low_freq_factor": s.low, "high_freq_factor": s.high,
                             "original_max_position_embeddings": s.original}
  if family.model_type in ("gemma2", "gemma3_text"):
    hf["query_pre_attn_scalar"] = round(cfg.query_scale ** -2) if cfg.query_scale else cfg.head_dim
  if family.windows != "never":
    hf["sliding_window"] = cfg.window or None
    if family.model_type.startswith("qwen"):
      hf["use_sliding_window"] = bool(cfg.window)
    if family.windows != "all":
      hf["layer_types"] = ["sliding_attention" if w else "full_attention" for w in cfg.windowed()]
  if family.windows == "all" and cfg.window and cfg.local:
    hf.pop("sliding_window")  # every layer or none: another family must take it
  return hf


# --- tensor names -----------------------------------------------------------------------------


def names(cfg: transformer.TransformerConfig, family: Family) -> dict[str, str]:
  """Our path -> their tensor name, with {l} for the layer and {e} for the expert. One to one."""
  mlp = "mlp.experts.{e}." if cfg.experts else "mlp."
  layer = {n: f"self_attn.{n}_proj.weight" for n in "qkvo"}
  layer |= {n: f"{mlp}{n}_proj.weight" for n in ("gate", "up", "down")}
  layer |= {f"{n}_bias": f"self_attn.{n}_proj.bias" for n in "qkv"}
  layer |= {f"norm_{n}/scale": f"self_attn.{n}_norm.weight" for n in "qk"}
  layer |= {f"{ours}/scale": f"{theirs}.weight" for ours, theirs in family.norms.items()}
  layer["router"] = "mlp.gate.weight"
  out = {f"layers/{ours}": f"model.layers.{{l}}.{theirs}" for ours, theirs in layer.items()}
  out |= {"embed": "model.embed_tokens.weight", "norm/scale": "model.norm.weight",
          "head": "lm_head.weight"}
  return {path: out[path] for path in transformer.specs(dataclasses.replace(cfg, lora=None))}
