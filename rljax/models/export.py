"""A policy as a Hugging Face folder: config.json and safetensors that `transformers` loads."""

import json
import os
from collections.abc import Iterator

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy

from rljax.config import ConfigError
from rljax.models import families, lora, policy, tree
from rljax.types import PyTree

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
HEAD_FILE = "value_head.safetensors"  # what transformers has no place for, under our own names


def write(model: policy.Policy, params: PyTree, folder: str, *, dtype: str = "",
          template: dict | None = None, tokenizer=None, shard_bytes: int = 5_000_000_000) -> None:
  """Writes a folder that `transformers` (and `rljax.models.hf`) loads. Adapters are merged.

  config.json is written last, so a folder that was not finished is not taken for a checkpoint.

  Args:
    model, params: the policy and its parameters.
    dtype: of the tensors; "" = that of the parameters.
    template: the config.json that the model came from: what does not describe its shape (token ids,
      the longest context) is kept.
    tokenizer: has `save(folder)` and `eos_id`; None = write none.
    shard_bytes: a file grows to about this size; several have an index.

  Raises:
    ConfigError: a model that no known architecture can express, or an unknown dtype.
  """
  cfg = model.cfg
  if (dtype or cfg.param_dtype) not in DTYPES:
    raise ConfigError(f"dtype={dtype!r}; one of {', '.join(DTYPES)}")
  if model.tower:
    raise ConfigError("a model that reads images has no Hugging Face architecture here")
  theirs = families.to_theirs(cfg)
  family = families.FAMILIES[theirs["architectures"][0]]
  if template and template.get("architectures") == theirs["architectures"]:
    known = {"rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "torch_dtype",
             "dtype", "layer_types", "sliding_window", "num_local_experts"}
    theirs = {**{k: v for k, v in template.items() if k not in known}, **theirs}
  theirs.setdefault("max_position_embeddings", 32768)
  theirs["torch_dtype"] = dtype or cfg.param_dtype
  if cfg.lora:
    params = lora.merge(cfg, params)
  os.makedirs(folder, exist_ok=True)
  stored = os.path.join(folder, "config.json")
  if os.path.exists(stored):
    os.remove(stored)
  tensors = _tensors(cfg, family, params, DTYPES[theirs["torch_dtype"]])
  _write_shards(tensors, folder, shard_bytes)
  if model.head:
    head = {k: np.asarray(v) for k, v in tree.flatten({"value": params["value"]}).items()}
    safetensors.numpy.save_file(head, os.path.join(folder, HEAD_FILE))
  if tokenizer is not None:
    tokenizer.save(folder)
    theirs["pad_token_id"] = tokenizer.pad_id
    if tokenizer.eos_id not in np.atleast_1d(theirs.get("eos_token_id") or -1):
      theirs["eos_token_id"] = tokenizer.eos_id
  with open(stored, "w") as f:
    json.dump(theirs, f, indent=2)


def _tensors(cfg, family, params, dtype) -> Iterator[tuple[str, np.ndarray]]:
  """(their name, their array) one by one, layer by layer last."""
  flat = tree.flatten(params)
  shift = family.switches.get("norm_plus_one", False) and not cfg.norm_plus_one
  specs = policy.Policy(cfg).specs()
  for ours, theirs in families.names(cfg, family).items():
    spec, x = specs[ours], np.asarray(jax.device_get(flat[ours]))
    if shift and ours.endswith("/scale"):
      x = x - 1
    lead = sum(a in ("layers", "experts") for a in spec.axes)
    for at in np.ndindex(*spec.shape[:lead]):
      part = x[at]
      if spec.inputs:  # [inputs..., outputs...] here, [outputs, inputs] there
        part = part.reshape(int(np.prod(part.shape[:spec.inputs])), -1).T
      elif theirs.endswith(".bias"):
        part = part.reshape(-1)
      name = theirs.format(**dict(zip("le", at)))
      yield name, np.ascontiguousarray(part.astype(dtype))


def _write_shards(tensors, folder, shard_bytes):
  """Files of about `shard_bytes`; one is called model.safetensors, several have an index."""
  files, shard, size, total = [], {}, 0, 0
  def flush():
    files.append((f"part-{len(files)}.safetensors", list(shard)))
    safetensors.numpy.save_file(shard, os.path.join(folder, files[-1][0]), {"format": "pt"})
    shard.clear()
  for name, x in tensors:
    if shard and size + x.nbytes > shard_bytes:
      flush()
      size = 0
    shard[name] = x
    size, total = size + x.nbytes, total + x.nbytes
  flush()
  for file in os.listdir(folder):  # of an export that was here before
    if file.startswith("model") and file.endswith((".safetensors", ".index.json")):
      os.remove(os.path.join(folder, file))
  final = lambda i: ("model.safetensors" if len(files) == 1
                     else f"model-{i + 1:05d}-of-{len(files):05d}.safetensors")
  for i, (file, _) in enumerate(files):
    os.replace(os.path.join(folder, file), os.path.join(folder, final(i)))
  if len(files) > 1:
    index = {"metadata": {"total_size": total},
             "weight_map": {n: final(i) for i, (_, names) in enumerate(files) for n in names}}
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
      json.dump(index, f, indent=2)
