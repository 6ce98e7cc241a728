"""`rljax-plan`: compiles every step of a run for a machine that is not there, and says if it fits.

The steps are lowered from shapes (no weight exists) and compiled by the target's real compiler. Of
each step: memory per device by kind, floating-point operations, what bounds it, and whether it
fits; of the train step and of decoding also the largest batch that does.
"""

import dataclasses
import logging
import os
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from rljax import sharding, types
from rljax.config import ConfigError
from rljax.plan_flops import count
from rljax.train import build

GIB = 2**30
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Chip:
  """Memory in bytes, bfloat16 FLOP/s and memory bytes/s of one device as jax sees it; the chips of
  the largest slice."""

  hbm: float
  flops: float
  bandwidth: float
  slice: int = 1


# Of one chip, from the vendor's pages; "tpu7x" chips are two devices each.
CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 1228e9, 4096), "v5e": Chip(16 * GIB, 197e12, 819e9, 256),
    "v5p": Chip(95 * GIB, 459e12, 2765e9, 8960), "v6e": Chip(32 * GIB, 918e12, 1640e9, 256),
    "tpu7x": Chip(96 * GIB, 1153e12, 3690e9, 9216),
}


def tpu_devices(topology: str) -> tuple[list, Chip]:
  """Devices of a TPU slice that need not exist, such as "v5p:4x4x4".

  Raises:
    ConfigError: a topology that does not exist, or no TPU compiler (libtpu) installed.
  """
  kind = topology.partition(":")[0]
  if kind not in CHIPS or not re.fullmatch(r"\w+:\d+x\d+(x\d+)?", topology):
    raise ConfigError(f"topology {topology!r}: wanted KIND:AxB or KIND:AxBxC with KIND one of "
                      f"{', '.join(CHIPS)}, such as v5e:2x2 or v5p:4x4x4")
  sides = [int(n) for n in topology.partition(":")[2].split("x")]
  if not 0 < np.prod(sides) <= CHIPS[kind].slice:
    raise ConfigError(f"topology {topology!r}: a slice of {kind} has at most {CHIPS[kind].slice} "
                      f"chips")
  for key, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
                     ("TPU_WORKER_HOSTNAMES", "localhost"),  # keep it from looking for a TPU
                     ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")):  # nothing here holds a TPU
    os.environ.setdefault(key, value)
  from jax.experimental import topologies
  try:
    found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
  except Exception as e:  # of the compiler's plugin: no narrower class
    reason = str(e).splitlines()[0][:200]
    raise ConfigError(f"topology {topology!r} does not exist, or libtpu is not installed: {reason}"
                      ) from None
  return list(found.devices), CHIPS[kind]


def local_devices(platform: str) -> tuple[list, Chip]:
  """The devices of this machine. A CPU's memory is that of the machine; its speeds are unknown.

  Raises:
    ConfigError: there are none of that platform.
  """
  try:
    devices = jax.devices(platform)
  except RuntimeError:
    raise ConfigError(f"there is no {platform} here; a TPU needs no device, only --topology"
                      ) from None
  stats = devices[0].memory_stats() or {}
  memory = stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  return devices, Chip(float(memory), float("nan"), float("nan"))


def plan(config, devices: list, chip: Chip, *, update: str = "", tries: int = 1) -> dict:
  """Compiles prefill, decoding, scoring and training of one update of a config.

  Args:
    devices: real or of a topology. update: its name; "" = the first.
    tries: compilations spent on the search for each largest batch; 0 = no search.

  Returns:
    JSON-like: "devices", "mesh", "parameters", and per step of "steps" what `_step` says.

  Raises:
    ConfigError: as `build.build`.
  """
  run = build.build(config, devices=devices)
  name = update or next(iter(config.updates))
  if name not in run.updates:
    raise ConfigError(f"there is no update {name!r}; there is: {', '.join(run.updates)}")
  chosen = run.updates[name]
  steps = Steps(run, config, chosen)
  resident = steps.resident()
  out = {"devices": len(devices), "device_kind": devices[0].device_kind,
         "mesh": dict(run.mesh.shape), "layout": config.layout.to_dict(),
         "hbm_gib": chip.hbm / GIB, "parameters": steps.parameters(),
         "resident_gib": resident / GIB,
         "whole_axes": sorted(steps.trainer.layout.whole), "steps": {}}
  rows, slots = chosen.shapes.B, run.samplers[chosen.role].engine.slots
  for step, size, make in (("prefill", slots, steps.prefill), ("decode", slots, steps.decode),
                           ("score", rows, steps.score), ("train", rows, steps.train)):
    out["steps"][step] = _step(make, size, chip, len(devices), resident)
    if step in ("decode", "train") and tries:
      unit = run.mesh.size * (config.updates[name].accum if step == "train" else 1)
      out["steps"][step]["largest"] = _largest(
          make, out["steps"][step], chip, len(devices), resident, unit, tries)
  out["fits"] = all(s["fits"] for s in out["steps"].values())
  return out


class Steps:
  """The functions of a run and the shapes they are called with, by batch size."""

  def __init__(self, run, config, update):
    self.run, self.config, self.update = run, config, update
    self.roles, self.mesh = run.roles, run.mesh
    self.trainer = self.roles.specs[update.role].policy
    self.sampler = dataclasses.replace(
        self.trainer, layout=self.roles.sampler_layout or self.trainer.layout)

  def parameters(self) -> int:
    return int(sum(np.prod(s.shape) for s in self.trainer.specs().values()))

  def resident(self) -> float:
    """Bytes per device that a run holds all the time: every role's weights and optimizer state,
    the sampler's copy of the weights where it has one, and its cache."""
    engine = self.run.samplers[self.update.role].engine
    _, args, _ = self._sampling(engine.slots, "chunk")
    copies = self.roles.sampler_layout is not None or not self.sampler.cfg.scan
    return (sum(map(_bytes, self.roles.abstract().values())) + _bytes(args[1])
            + copies * _bytes(args[0]))

  def _weights(self, role):
    """Parameters of a role as the trainer holds them, adapters joined to their base."""
    return self.roles.specs[role].policy.shapes()

  def _sampled(self):
    """Parameters as the sampler holds them."""
    held = self.sampler.shapes()
    if self.roles.sampler_layout is None:
      return held
    cast = jax.eval_shape(self.sampler.for_sampling, held)
    return jax.tree.map(lambda x, like: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=like.sharding), cast, held)

  # Each gives (function, arguments, what kind of memory each argument is).

  def _sampling(self, slots, name):
    engine = build.engine(self.config, self.trainer, self.run.tokenizer, self.mesh, slots)
    programs = engine.programs(self._sampled())
    fn, args = programs[[n for n in programs if n.startswith(name)][-1]]
    return fn, args, ("params", "cache", *("batch",) * (len(args) - 2))

  def prefill(self, slots):
    """Reads one block of prompts of the greatest length."""
    return self._sampling(slots, "prefill")

  def decode(self, slots):
    """Draws one token for each slot, behind the longest contexts."""
    return self._sampling(slots, "chunk")

  def _batch(self, rows):
    S, T = self.update.shapes.S, self.update.shapes.T
    f, i, row = (jax.ShapeDtypeStruct(s, d, sharding=sharding.rows(self.mesh)) for s, d in (
        ((rows, T), jnp.float32), ((rows, T), jnp.int32), ((rows,), jnp.float32)))
    tokens = jax.ShapeDtypeStruct((rows, S), jnp.int32, sharding=sharding.rows(self.mesh))
    group = jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=sharding.rows(self.mesh))
    inputs = {"tokens_BS": tokens, "action_pos_BT": i, **{
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.rows(self.mesh))
        for name, x in self.update.shapes.media((), (), rows).items()}}
    return types.Batch(inputs, i, f, f, f, f, f, row, group)

  def _prepared(self, rows):
    """What `update.prepare` makes of a batch, split by rows."""
    made = jax.eval_shape(self.update.prepare, *self._score_args(rows))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding.rows(self.mesh) if x.ndim else None), made)

  def _score_args(self, rows):
    ref, value = (self._weights(r) if r else None for r in (self.update.ref, self.update.value))
    return self._weights(self.update.role), ref, self._batch(rows), value

  def score(self, rows):
    """Log-probabilities of a whole batch under policy, reference and critic, as far as needed."""
    return self.update.prepare, self._score_args(rows), ("params", "params", "batch", "params")

  def train(self, rows):
    """The whole optimizer step."""
    owner = self.roles.owner(self.update.role)
    shared = self.roles.specs[owner].shares
    return (self.update.step, (self.roles.abstract()[owner], self._prepared(rows),
                               self._weights(shared) if shared else None),
            ("state", "batch", "params"))


def _step(make, size: int, chip: Chip, devices: int, resident: float) -> dict:
  """Compiles one step at one batch size.

  Args:
    resident: bytes per device that are held whether the step reads them or not.

  Returns:
    "batch"; "memory_gib" per device: "peak" and its parts by kind: what the step is given
    ("params", "state", "cache", "batch"), what it makes ("temporaries", "outputs", "code") and what
    lies beside it ("resident"); "flops" of the whole step, recomputation included
    (prefill: of one block of prompts; decode: of one token per slot);
    "bound" and the "seconds" below which it cannot go; "fits"; "compile_seconds"; "error" if the
    compiler refused it for want of memory.
  """
  began = time.monotonic()
  log.info("compiling %s, batch %d", make.__name__, size)
  fn, args, kinds = make(size)
  out = {"batch": size, "flops": count(fn, *args)}
  held: dict[str, float] = {}
  for kind, arg in zip(kinds, args, strict=True):
    held[kind] = held.get(kind, 0.0) + _bytes(arg)
  try:
    compiled = fn.lower(*args).compile()
  except Exception as e:  # the plugin's own class
    if "RESOURCE_EXHAUSTED" not in str(e) and "Ran out of memory" not in str(e):
      raise
    used = re.search(r"Used ([\d.]+)([KMGT]) of", str(e))
    scale = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}
    peak = float(used[1]) * scale[used[2]] if used else None  # without what lies beside it
    return {**out, "memory_gib": {"peak": peak}, "fits": False, "error": "out of memory",
            "compile_seconds": time.monotonic() - began}
  m = compiled.memory_analysis()
  fresh = m.output_size_in_bytes - m.alias_size_in_bytes
  given = m.argument_size_in_bytes
  beside = max(0.0, resident - (given - held.get("batch", 0.0)))
  parts = {**held, "temporaries": m.temp_size_in_bytes, "outputs": fresh,
           "code": m.generated_code_size_in_bytes, "resident": beside}
  peak = given + m.temp_size_in_bytes + fresh + m.generated_code_size_in_bytes + beside
  # Every argument is read and every output written at least once, and a temporary is written and
  # read: no step can be faster than this or than its arithmetic.
  traffic = given + fresh + 2 * m.temp_size_in_bytes
  compute, memory = out["flops"] / devices / chip.flops, traffic / chip.bandwidth
  return {**out, "memory_gib": {"peak": peak / GIB, **{k: v / GIB for k, v in parts.items()}},
          "intensity": out["flops"] / devices / max(traffic, 1),
          "bound": "unknown" if compute != compute else "compute" if compute > memory else "memory",
          "seconds": None if compute != compute else max(compute, memory),
          "fits": bool(peak <= chip.hbm), "compile_seconds": time.monotonic() - began}


def _bytes(tree) -> float:
  """Bytes per device of shapes with shardings."""
  total = 0.0
  for x in jax.tree.leaves(tree):
    shape = x.sharding.shard_shape(x.shape) if x.sharding is not None else x.shape
    total += np.prod(shape) * (x.dtype.itemsize if hasattr(x.dtype, "itemsize") else 4)
  return total


def _largest(make, first: dict, chip: Chip, devices: int, resident: float, unit: int,
             tries: int) -> dict:
  """The largest multiple of `unit` that fits, found along a line and then by halving.

  Memory is close to a line in the batch: the first try is where the line of what is held beside it
  and the given batch meets the chip's memory, the second where that of the two batches compiled
  does, or half-way where that says nothing new.

  Returns:
    "batch" that was compiled and fits (0: none), the smallest one seen to fail or None, and how
    many compilations it took.
  """
  fits, fails = (first["batch"], None) if first["fits"] else (0, first["batch"])
  memory = first["memory_gib"]
  fixed = sum(memory.get(k, 0.0) for k in ("params", "state", "code", "resident"))
  points = [(0, fixed)] + [(first["batch"], memory["peak"])] * bool(memory["peak"])
  done = 0
  while done < tries and (fails is None or fails - fits > unit):
    guess = 2 * fits if fails is None else (fits + fails) // 2
    (a, low), (b, high) = points[-2:] if len(points) > 1 else ((0, 0), (0, 0))
    if high > low and b > a:
      guess = min(int(a + (b - a) * (0.99 * chip.hbm / GIB - low) / (high - low)),
                  64 * first["batch"])  # far off, the line says little
    guess = guess // unit * unit
    if not fits < guess or (fails is not None and guess >= fails):
      guess = ((fits + fails) // 2 if fails is not None else 2 * fits) // unit * unit
    if guess <= fits:
      break
    result = _step(make, guess, chip, devices, resident)
    done += 1
    fits, fails = (guess, fails) if result["fits"] else (fits, guess)
    peak = result["memory_gib"]["peak"]
    if peak:  # what lies beside a step that was refused is not in its peak
      points = sorted([points[-1], (guess, peak + memory.get("resident", 0.0) * (
          "error" in result))])
  return {"batch": fits, "fails_at": fails, "compilations": done}


def table(result: dict) -> str:
  """A plan as text."""
  mesh = ", ".join(f"{k}={v}" for k, v in result["mesh"].items())
  lines = [f"{result['devices']} x {result['device_kind']} ({mesh}), {result['hbm_gib']:.0f} GiB "
           f"each, layout {result['layout']['train']}; "
           f"{result['parameters'] / 1e9:.3g} B parameters"]
  for note in result["whole_axes"]:
    lines.append(f"  not split, does not divide: {note}")
  lines.append(f"{'step':<9}{'batch':>7}{'peak GiB':>10}{'TFLOP':>9}{'bound':>9}{'at least':>10}"
               f"{'compile':>9}  fits, largest batch")
  for name, s in result["steps"].items():
    peak = s["memory_gib"]["peak"]
    seconds = s.get("seconds")
    largest = s.get("largest")
    lines.append(
        f"{name:<9}{s['batch']:>7}{'?' if peak is None else f'{peak:.2f}':>10}"
        f"{s['flops'] / 1e12:>9.3g}{s.get('bound', ''):>9}"
        f"{'' if seconds is None else f'{seconds:.3g} s':>10}{s['compile_seconds']:>7.0f} s  "
        f"{'yes' if s['fits'] else 'NO'}" + (
            f", {largest['batch']}{'' if largest['fails_at'] else ' or more'}" if largest else ""))
    parts = {k: v for k, v in s["memory_gib"].items() if k != "peak" and v and v >= 0.005}
    lines.append("         " + ", ".join(f"{k} {v:.2f}" for k, v in parts.items()))
  return "\n".join(lines)
