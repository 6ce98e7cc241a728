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


def seconds(call, inputs, repeats: int) -> float:
  """The best of several runs: what the work takes when nothing else runs."""
  jax.block_until_ready(call(*inputs))
  best = float("inf")
  for _ in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready(call(*inputs))
    best = min(best, time.perf_counter() - start)
  return best


def matmul_rate(dtype: str, shape: tuple[int, int, int], repeats: int) -> float:
  """FLOP/s of [n, k] x [k, m], with m cut to 8192 so that the result stays small."""
  n, k, m = shape[0], shape[1], min(shape[2], 8192)
  a, b = jnp.ones((n, k), dtype), jnp.ones((k, m), dtype)
  product = jax.jit(lambda a, b: jnp.dot(a, b, preferred_element_type=jnp.float32).astype(dtype))
  return 2.0 * n * k * m / seconds(product, (a, b), repeats)


def measure(case: cases.Case, form: str, device, *, repeats: int, timed: bool) -> list[str]:
  """One row of the table. A form that cannot run here says why in its last column."""
  row = [case.operation, case.size, case.dtype, form]
  if timed and form == "mosaic" and device.platform != "tpu":
    return [*row, "-", "-", "-", "not measured: needs a TPU"]
  try:
    gradient = case.compile(form, device)
  except Exception as e:  # too large for the device, most often
    return [*row, "-", "-", "-", f"{type(e).__name__}: {str(e).splitlines()[0][:60]}"]
  extra = f"{gradient.temporary_bytes / 2**20:.1f}"
  if not timed:
    return [*row, "-", "-", extra, "compiled only"]
  inputs = case.inputs(device)
  forward = seconds(case.compile(form, device, backward=False).call, inputs, repeats)
  both = seconds(gradient.call, inputs, repeats) if case.differentiable else None
  backward = "-" if both is None else f"{(both - forward) * 1e3:.2f}"
  share = "-"
  if case.matmul:
    n, k, m = case.matmul
    floor = 4 * 2.0 * n * k * m / matmul_rate(case.dtype, case.matmul, repeats)
    share = f"{floor / both:.0%} of {floor * 1e3:.1f} ms"
  return [*row, f"{forward * 1e3:.2f}", backward, extra, share]


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
        found[blocks] = time_of(call, inputs, repeats)
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
  rows = [measure(case, form, device, repeats=args.repeats, timed=not args.topology)
          for case in chosen for form in case.forms]
  text = f"{describe(device, args.topology)}\n\n{table(rows)}\n"
  print(text)
  if args.record:
    with pathlib.Path(args.record).open("a") as f:
      f.write(f"\n## {text}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
