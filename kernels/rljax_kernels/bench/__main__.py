"""One command: a table of what each form of each operation costs on the device at hand.

  python -m rljax_kernels.bench                         time and memory, on this CPU, GPU or TPU
  python -m rljax_kernels.bench --topology v5p:2x2x1    memory only, compiled for a TPU not there
  python -m rljax_kernels.bench --tune                  block sizes for this TPU, as blocks.json

"extra" is what gradients need besides arguments and results. "floor" is the time of the bare
matmuls at the rate of a large matmul measured here: one forward, three backward (a backward that
keeps no logits recomputes them). Compare timings only on an otherwise idle machine.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import sys
import time

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # read by libtpu when it compiles without a TPU
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax
import jax.numpy as jnp

from rljax_kernels.bench import cases
from rljax_kernels.token_logprob import mosaic

HEADER = ("operation", "size", "dtype", "form", "forward ms", "backward ms", "extra MiB", "floor")


def default_cases(device_platform: str, args) -> list[cases.Case]:
  """Sizes that fit the device: a small model's on a CPU, an 8B model's elsewhere."""
  small = device_platform == "cpu"
  tokens = args.tokens or (2048 if small else 8192 if args.topology else 16384)
  width, vocab = args.width or (256 if small else 4096), args.vocab or (32000 if small else 151936)
  rows, length = (256, 512) if small else (1024, 4096)
  return [cases.token_logprobs(tokens, width, vocab, args.dtype or (
              "float32" if small else "bfloat16")),
          cases.group_advantages(rows, length), cases.gae(rows, length),
          cases.pg_token_loss(rows, length)]


def seconds(calls: dict, inputs, repeats: int) -> dict:
  """The best of several runs of each call: what it takes when nothing else runs.

  The calls take turns, so that a busy moment of the machine hits all of them.
  """
  best = dict.fromkeys(calls, float("inf"))
  for _ in range(repeats + 1):  # the first round warms up
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call(*inputs))
      best[name] = min(best[name], time.perf_counter() - start)
  return best


def bare_matmul(case: cases.Case):
  """The case's product, cut to 8192 columns so that the result stays small; and what share that is.
  """
  columns = case.matmul[2]
  product = jax.jit(lambda a, b, *_: jax.lax.dot_general(
      a[0], b[:8192], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32).astype(a.dtype))
  return product, min(columns, 8192) / columns


def measure(case: cases.Case, device, *, repeats: int, timed: bool) -> list[list[str]]:
  """A row of the table per form. A form that cannot run here says why in its last column."""
  rows, calls, extra = {}, {}, {}
  for form in case.forms:
    home = {"mosaic": "tpu", "triton": "gpu"}.get(form, device.platform)
    if home != device.platform:
      rows[form] = ["-", "-", "-", f"not measured: needs a {home.upper()}"]
      continue
    try:
      gradient = case.compile(form, device)
      if timed:
        calls[form, "both"] = gradient.call
        calls[form, "forward"] = case.compile(form, device, backward=False).call
    except Exception as e:  # too large for the device, most often
      rows[form] = ["-", "-", "-", f"{type(e).__name__}: {str(e).splitlines()[0][:60]}"]
      continue
    extra[form] = f"{gradient.temporary_bytes / 2**20:.1f}"
    rows[form] = ["-", "-", extra[form], "compiled only"]
  if timed:
    if case.matmul:
      calls["matmul"], part = bare_matmul(case)
    best = seconds(calls, case.inputs(device), repeats)
    for form in extra:
      forward, both = best[form, "forward"], best[form, "both"]
      share = "-"
      if case.matmul:
        floor = 4 * best["matmul"] / part
        share = f"{floor / both:.0%} of {floor * 1e3:.1f} ms"
      backward = f"{max(both - forward, 0) * 1e3:.2f}" if case.differentiable else "-"
      rows[form] = [f"{forward * 1e3:.2f}", backward, extra[form], share]
  return [[case.operation, case.size, case.dtype, form, *row] for form, row in rows.items()]


def table(rows: list[list[str]]) -> str:
  """Markdown."""
  rows = [list(HEADER), *rows]
  widths = [max(len(r[i]) for r in rows) for i in range(len(HEADER))]
  lines = ["| " + " | ".join(x.ljust(w) for x, w in zip(r, widths)) + " |" for r in rows]
  return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def tune(case: cases.Case, device, *, repeats: int, time_of=seconds) -> dict:
  """The fastest block sizes of the token logprobs on this TPU, as an entry of blocks.json."""
  kind = device.device_kind
  entry = dict(mosaic.BLOCKS.get(kind, mosaic.BLOCKS["default"]))
  inputs = case.inputs(device)
  for name in ("forward", "backward"):
    found = {}
    for blocks in [(n, v) for n in (256, 512, 1024) for v in (256, 512, 1024, 2048)]:
      mosaic.BLOCKS[kind] = {**entry, name: list(blocks)}
      try:
        call = case.compile("mosaic", device, backward=name == "backward").call
        found[blocks] = time_of({"": call}, inputs, repeats)[""]
      except Exception as e:  # does not fit
        print(f"  {name} {blocks}: {str(e).splitlines()[0][:80]}")
        continue
      print(f"  {name} {blocks}: {found[blocks] * 1e3:.2f} ms")
    entry[name] = list(min(found, key=found.get)) if found else entry[name]
    mosaic.BLOCKS[kind] = entry
  return {kind: entry}


def describe(device, topology: str) -> str:
  """Date, device, versions, load."""
  what = f"{topology} (compiled ahead of time, no device)" if topology else (
      f"{device.device_kind}, {os.cpu_count()} cores" if device.platform == "cpu"
      else device.device_kind)
  load = "" if topology else f", load average {os.getloadavg()[0]:.2f}"
  return (f"{datetime.date.today()}: {what}; jax {jax.__version__}, "
          f"Python {platform.python_version()}{load}")


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser("rljax_kernels.bench", description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  for name, text in (("tokens", "N"), ("width", "D"), ("vocab", "V")):
    parser.add_argument(f"--{name}", type=int, default=0, help=f"{text} of token_logprobs")
  parser.add_argument("--dtype", default="", choices=["", "float32", "bfloat16"])
  parser.add_argument("--only", default="", help="operations whose name contains this")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--topology", default="", help="a TPU topology, such as v5e:2x2")
  parser.add_argument("--tune", action="store_true", help="find block sizes (on a TPU)")
  parser.add_argument("--record", default="", help="append the table to this file")
  args = parser.parse_args(argv)
  try:
    device = cases.topology_device(args.topology) if args.topology else jax.devices()[0]
  except ValueError as e:
    parser.error(str(e))
  chosen = [c for c in default_cases(device.platform, args) if args.only in c.operation]
  if not chosen:
    parser.error(f"--only {args.only}: no such operation")
  if args.tune:
    if device.platform != "tpu" or args.topology:
      parser.error("--tune measures: it needs a TPU")
    print(json.dumps(tune(chosen[0], device, repeats=args.repeats), indent=2))
    return 0
  rows = [row for case in chosen
          for row in measure(case, device, repeats=args.repeats, timed=not args.topology)]
  text = f"{describe(device, args.topology)}\n\n{table(rows)}\n"
  print(text)
  if args.record:
    with pathlib.Path(args.record).open("a") as f:
      f.write(f"\n## {text}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
