"""Hugging Face checkpoint folders (config.json + safetensors) as policies. No torch.

Tensors are read straight into the layout of the run: each host reads, of each stacked parameter,
only the slices its devices hold. See `families` for what is known, `export` for the way back.
"""

import functools
import itertools
import json
import math
import os

import jax
import numpy as np
import safetensors

from rljax.config import ConfigError
from rljax.models import families, policy, transformer, tree
from rljax.types import PyTree

LOADABLE = ("F64", "F32", "F16", "BF16")


def model(vocab: int, *, path: str, remat: str = "full", dtype: str = "bfloat16",
          param_dtype: str = "float32", temperature: float = 1.0) -> policy.Policy:
  """The policy that a checkpoint folder describes.

  Args:
    vocab: the tokenizer's number of ids; the checkpoint may have more rows, not fewer.
    path: the folder. dtype: of activations. param_dtype: of weights; a learning rate of 1e-6 is
      below what bfloat16 weights can follow.
    remat: what the backward pass recomputes, see `transformer.REMAT`.

  Raises:
    ConfigError: no such folder, an architecture not known, or a tokenizer that does not fit.
  """
  cfg = families.to_ours(read_config(path), path, remat=remat, dtype=dtype, param_dtype=param_dtype)
  if vocab > cfg.vocab:
    raise ConfigError(f"{path}: the tokenizer has {vocab} ids, the embedding {cfg.vocab} rows")
  return policy.Policy(cfg, temperature)


def shape(vocab: int, *, config: dict, remat: str = "full", dtype: str = "bfloat16",
          param_dtype: str = "float32", temperature: float = 1.0) -> policy.Policy:
  """The policy that the content of a config.json describes, for which no weights are at hand.

  Args and raises: as `model`; config: the content, as a dict.
  """
  cfg = families.to_ours(dict(config), "config.json", remat=remat, dtype=dtype,
                         param_dtype=param_dtype)
  if vocab > cfg.vocab:
    raise ConfigError(f"the tokenizer has {vocab} ids, the embedding {cfg.vocab} rows")
  return policy.Policy(cfg, temperature)


def params(setup, *, path: str, check_end: bool = True) -> PyTree:
  """The weights of a folder, for the role's model.

  Args:
    check_end: the tokenizer's end token must be one of those in the folder's config.json.

  Raises:
    ConfigError: a missing or unreadable file, a tensor that is missing, of another shape or of a
      type that is not loaded, or a tokenizer with another end token.
  """
  ends = read_config(path).get("eos_token_id")
  ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
  if check_end and ends and setup.tokenizer.eos_id not in ends:
    raise ConfigError(
        f"{path}: the model ends with token id {', '.join(map(str, ends))}, the tokenizer with "
        f"{setup.tokenizer.eos_id}; is it this model's tokenizer? (init.check_end=False allows it)")
  return read(setup.policy.cfg, path, setup.layout)


def read_config(path: str) -> dict:
  """config.json of a folder.

  Raises:
    ConfigError: no such file, or it is not JSON.
  """
  file = os.path.join(path, "config.json")
  if not os.path.exists(file):
    raise ConfigError(f"{path!r} is not a checkpoint folder: it has no config.json")
  with open(file) as f:
    try:
      return json.load(f)
    except ValueError as e:
      raise ConfigError(f"{file} cannot be read: {e}") from None


def read(cfg: transformer.TransformerConfig, path: str, layout=None) -> PyTree:
  """The parameters of a folder (without adapters), placed by a `sharding.Layout`; see `params`."""
  tensors = Tensors(path)
  out = {}
  for ours, theirs in families.names(cfg, families.family_of(read_config(path), path)).items():
    spec = transformer.specs(cfg)[ours]
    # Devices that hold the same part share one read.
    part = functools.cache(
        lambda bounds, spec=spec, theirs=theirs: tensors.part(
            theirs, spec, [range(*b) for b in bounds]).astype(cfg.param_dtype))
    def fetch(index, spec=spec, part=part):
      return part(tuple(s.indices(n) for s, n in zip(index, spec.shape)))
    place = (layout.sharding(spec.axes, spec.shape) if layout is not None
             else jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    out[ours] = jax.make_array_from_callback(spec.shape, place, fetch)
  return tree.nest(out)


class Tensors:
  """The tensors of a folder by name: one safetensors file, or several with an index."""

  def __init__(self, path: str):
    self.path = path
    self._open: dict[str, safetensors.safe_open] = {}
    index = os.path.join(path, "model.safetensors.index.json")
    single = os.path.join(path, "model.safetensors")
    if os.path.exists(index):
      try:
        with open(index) as f:
          names = json.load(f)["weight_map"]
      except (ValueError, KeyError) as e:
        raise ConfigError(f"{index} cannot be read: {e!r}") from None
      self.files = {name: os.path.join(path, file) for name, file in names.items()}
      missing = sorted({f for f in self.files.values() if not os.path.exists(f)})
      if missing:
        raise ConfigError(f"{path}: its index names {os.path.basename(missing[0])}, which is "
                          f"missing ({len(missing)} of {len(set(self.files.values()))} files)")
    elif os.path.exists(single):
      self.files = dict.fromkeys(self._file(single).keys(), single)
    else:
      raise ConfigError(f"{path} has neither model.safetensors nor an index of several")

  def _file(self, file):
    if file not in self._open:
      try:
        self._open[file] = safetensors.safe_open(file, framework="numpy")
      except Exception as e:  # of a Rust library: no narrower class
        raise ConfigError(f"{file} cannot be read: {e}") from None
    return self._open[file]

  def slice(self, name: str, shape: tuple[int, ...], bounds: list[tuple[int, int]]) -> np.ndarray:
    """Part of a tensor, which must have this shape."""
    if name not in self.files:
      raise ConfigError(f"{self.path}: there is no tensor {name!r}")
    try:
      found = self._file(self.files[name]).get_slice(name)
      size, dtype = tuple(found.get_shape()), found.get_dtype()
    except ConfigError:
      raise
    except Exception as e:
      raise ConfigError(f"{self.files[name]} has no tensor {name}: {e}") from None
    if size != shape:
      raise ConfigError(f"{self.path}: tensor {name} has shape {size}, expected {shape}")
    if dtype not in LOADABLE:
      raise ConfigError(f"{self.path}: tensor {name} has type {dtype}; "
                        f"loadable: {', '.join(LOADABLE)}")
    return found[tuple(slice(a, b) for a, b in bounds)]

  def part(self, template: str, spec: tree.Spec, ranges: list[range]) -> np.ndarray:
    """The part of one of our stacked parameters that these ranges of its axes select."""
    lead = sum(a in ("layers", "experts") for a in spec.axes)
    named = [a[0] for a in spec.axes[:lead]]  # "l", "e"
    parts = [self._matrix(template.format(**dict(zip(named, at))), spec, lead, ranges[lead:])
             for at in itertools.product(*ranges[:lead])]
    return np.stack(parts).reshape([len(r) for r in ranges])

  def _matrix(self, name, spec, lead, ranges):
    """One tensor of theirs as (a part of) ours: kernels are [out, in] there, [in, out] here."""
    shape = spec.shape[lead:]
    if not spec.inputs:
      tail = math.prod(shape[1:])
      flat = name.endswith(".bias")
      theirs = (math.prod(shape),) if flat else shape
      bounds = [(ranges[0].start * (tail if flat else 1), ranges[0].stop * (tail if flat else 1)),
                *(() if flat else ((0, n) for n in shape[1:]))]
      x = self.slice(name, theirs, bounds).reshape(len(ranges[0]), *shape[1:])
      return x[(slice(None), *(slice(r.start, r.stop) for r in ranges[1:]))]
    n = spec.inputs
    groups = [(shape[:n], ranges[:n]), (shape[n:], ranges[n:])]  # inputs, outputs
    theirs, bounds, sizes, rest = [], [], [], []
    for sizes_of, ranges_of in groups:
      tail = math.prod(sizes_of[1:])
      theirs.append(math.prod(sizes_of))
      bounds.append((ranges_of[0].start * tail, ranges_of[0].stop * tail))
      sizes += [len(ranges_of[0]), *sizes_of[1:]]
      rest += [slice(None), *(slice(r.start, r.stop) for r in ranges_of[1:])]
    x = self.slice(name, tuple(theirs[::-1]), bounds[::-1])
    return x.T.reshape(sizes)[tuple(rest)]
