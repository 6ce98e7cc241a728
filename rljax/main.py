"""The commands. A mistake of the user's is one sentence on stderr and exit code 2."""

import argparse
import json
import logging
import math
import pathlib
import sys

from rljax import config as config_lib
from rljax.train import preempt


def train(argv: list[str] | None = None) -> int:
  """rljax-train --config FILE[:arms] --workdir DIR [--config.key=value ...]"""
  parser = argparse.ArgumentParser(
      "rljax-train", description="Train a recipe, or continue the run in the workdir.",
      epilog="Any key of the config can be set: --config.updates.policy.optimizer.lr=1e-4",
      allow_abbrev=False)
  parser.add_argument("--config", required=True, metavar="FILE[:name,...]",
                      help="config file, with forms and arms (:runlocal shrinks it to seconds)")
  parser.add_argument("--workdir", required=True, help="run folder; a killed run continues there")
  args, rest = parser.parse_known_args(argv)
  return guarded(lambda: _train(args, rest))


def _train(args, rest):
  config = config_lib.load(args.config, config_lib.parse_overrides(rest))
  from rljax import sharding  # jax from here on
  from rljax.train import distributed, loop, report
  sharding.split_cpu()
  with distributed.resumable():
    hosts = distributed.start()
    loop.train(config, args.workdir, hosts=hosts)
    if not hosts.main:
      return
  page = report.write_report(args.workdir)
  _print_result(loop.read_result(args.workdir), args.workdir, page)


def _print_result(result, workdir, page):
  from rljax.train import report_data
  before, after = result["eval"]["before"], result["eval"]["after"]
  print(f"\n{'':<22}{'before':>10}{'after':>10}")
  rows = {}
  for name in sorted(after):
    if isinstance(after[name], dict):
      for key in sorted(after[name]):
        b = before.get(name, {}).get(key, math.nan)
        rows[f"{name}/{key}"] = f"{name} {key}", b, after[name][key]
    else:
      rows[name] = name, before.get(name, math.nan), after[name]
  for label, b, a in report_data.tables(rows)[0].values():  # the report shows the tables
    print(f"{label:<22}{float(b):>10.3f}{float(a):>10.3f}")  # a file holds NaN as "nan"
  speeds = {"tokens_per_second": "sampled tokens/s", "frames_per_second": "environment steps/s"}
  print(", ".join([
      f"\n{result['steps']} steps", f"{result['seconds']:.0f} s",
      *(f"{result[k]:.0f} {says}" for k, says in speeds.items() if result.get(k) is not None),
      f"{result['skipped_updates']} skipped updates"]))
  if result["faults"]:
    print("faults: " + ", ".join(f"{k} {v}" for k, v in sorted(result["faults"].items())))
  print(f"{workdir}/result.json\n{page}")


def report(argv: list[str] | None = None) -> int:
  """rljax-report DIR: writes DIR/report.html again, or an index of reproductions."""
  parser = argparse.ArgumentParser(
      "rljax-report", description="Write report.html of a run folder, or index.html of a folder "
      "of reproductions (results/).")
  parser.add_argument("folder")
  args = parser.parse_args(argv)

  def write():
    folder = pathlib.Path(args.folder)
    if not (folder / "config.json").exists() and [*folder.glob("*/claims.json"),
                                                  *folder.glob("*/quick/claims.json")]:
      from rljax.reproduce import index
      print(index.write_index(folder))
    else:
      from rljax.train import report as report_lib
      print(report_lib.write_report(folder))

  return guarded(write)


def export(argv: list[str] | None = None) -> int:
  """rljax-export RUN FOLDER: the weights of a run as a folder that transformers loads."""
  parser = argparse.ArgumentParser(
      "rljax-export", description="Write a role of a run as a Hugging Face folder: config.json, "
      "safetensors, tokenizer.")
  parser.add_argument("workdir", help="run folder; its newest checkpoint is taken")
  parser.add_argument("folder", help="where to write")
  parser.add_argument("--role", default="policy")
  parser.add_argument("--dtype", default="",
                      help="of the tensors: float32, bfloat16, float16; default: as trained")
  args = parser.parse_args(argv)

  def write():
    from rljax.train import export as export_lib
    step = export_lib.export_run(args.workdir, args.folder, role=args.role, dtype=args.dtype)
    print(f"{args.role} of step {step}: {args.folder}")

  return guarded(write)


def generate(argv: list[str] | None = None) -> int:
  """rljax-generate FOLDER --prompt TEXT: what does it say?"""
  parser = argparse.ArgumentParser(
      "rljax-generate", description="Sample from a run folder (its newest checkpoint) or a Hugging "
      "Face folder. Without --prompt, every line of the standard input is one.")
  parser.add_argument("folder")
  parser.add_argument("--prompt", action="append", default=[], help="may be given several times")
  parser.add_argument("--chat", action="store_true", help="through the chat template, as a user's")
  parser.add_argument("-n", type=int, default=1, help="responses per prompt")
  parser.add_argument("--max-tokens", type=int, default=256)
  parser.add_argument("--temperature", type=float, default=1.0)
  parser.add_argument("--top-k", type=int, default=0, help="0: off")
  parser.add_argument("--top-p", type=float, default=1.0)
  parser.add_argument("--min-p", type=float, default=0.0)
  parser.add_argument("--greedy", action="store_true")
  parser.add_argument("--stop", action="append", default=[], help="a string that ends a response")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--role", default="policy", help="of a run")
  parser.add_argument("--dtype", default="", help="of a Hugging Face model's activations")
  args = vars(parser.parse_args(argv))
  folder, prompts = args.pop("folder"), args.pop("prompt")

  def write(text):
    sys.stdout.write(text)
    sys.stdout.flush()

  def work():
    asked = prompts or [line.rstrip("\n") for line in sys.stdin]
    if not asked:
      raise config_lib.ConfigError("no prompt: give --prompt, or lines on the standard input")
    from rljax.train import generate as generate_lib
    generate_lib.run(folder, asked, write, **args)

  return guarded(work)


def evaluate(argv: list[str] | None = None) -> int:
  """rljax-eval --workdir DIR --search best_of_n,vote,mcts --budget 4096"""
  parser = argparse.ArgumentParser(
      "rljax-eval", description="Accuracy against tokens generated per problem, for searches over "
      "a run's policy.", allow_abbrev=False)
  parser.add_argument("--workdir", default="", help="run folder: its newest checkpoint")
  parser.add_argument("--config", default="", metavar="FILE[:name,...]",
                      help="without a run: the weights its roles begin with")
  parser.add_argument("--search", default="best_of_n,vote", help="best_of_n, vote, beam, mcts")
  parser.add_argument("--budget", type=int, default=4096, help="generated tokens per problem")
  parser.add_argument("--problems", default="", help="one of the config's evals; default the first")
  parser.add_argument("--limit", type=int, default=0, help="problems; 0 = all")
  parser.add_argument("--value", default="", metavar="ROLE",
                      help="whose scalar head judges texts; default: their probability")
  parser.add_argument("--temperature", type=float, default=1.0)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", default="", help="folder of search.json and search.png; default: "
                      "the run folder, or runs/eval")
  args, rest = parser.parse_known_args(argv)

  def work():
    from rljax import sharding
    from rljax.train import evaluate as evaluate_lib
    sharding.split_cpu()
    out = args.out or args.workdir or "runs/eval"
    print(evaluate_lib.run(
        args.config, args.workdir, config_lib.parse_overrides(rest), out=out,
        searches=[s for s in args.search.split(",") if s], budget=args.budget,
        problems=args.problems, limit=args.limit, value=args.value, seed=args.seed,
        temperature=args.temperature))
    print(f"\n{out}/search.json\n{out}/search.png")

  return guarded(work)


def plan(argv: list[str] | None = None) -> int:
  """rljax-plan --config FILE --topology v5p:4x4x4: does it fit?"""
  parser = argparse.ArgumentParser(
      "rljax-plan", description="Compile every step of a config for a TPU slice that need not be "
      "there, and say what memory it takes and whether it fits.", allow_abbrev=False)
  parser.add_argument("--config", required=True, metavar="FILE[:name,...]")
  parser.add_argument("--topology", default="", help="such as v5e:2x2, v5p:4x4x4")
  parser.add_argument("--device", default="tpu", choices=("tpu", "gpu", "cpu"),
                      help="gpu, cpu: plan for the devices of this machine")
  parser.add_argument("--layout", default="", help="of the trainer; default: the config's")
  parser.add_argument("--tensor", type=int, default=0, help="devices along the tensor axis")
  parser.add_argument("--update", default="", help="which of the updates; default: the first")
  parser.add_argument("--tries", type=int, default=1,
                      help="compilations for each search of the largest batch; 0: no search")
  parser.add_argument("--json", default="", metavar="FILE", help="also write the plan here")
  args, rest = parser.parse_known_args(argv)
  return guarded(lambda: _plan(args, rest))


def _plan(args, rest):
  changes = {**({"layout.train": args.layout} if args.layout else {}),
             **({"layout.tensor": args.tensor} if args.tensor else {})}
  config = config_lib.load(args.config, {**config_lib.parse_overrides(rest), **changes})
  if args.device == "tpu" and not args.topology:
    raise config_lib.ConfigError("--topology says which TPU slice, such as v5e:2x2")
  from rljax import plan as plan_lib  # jax from here on
  from rljax import sharding
  sharding.split_cpu()  # as rljax-train does
  plan_lib.log.setLevel(logging.INFO)  # it can take minutes
  devices, chip = (plan_lib.tpu_devices(args.topology) if args.device == "tpu"
                   else plan_lib.local_devices(args.device))
  result = plan_lib.plan(config, devices, chip, update=args.update, tries=args.tries)
  result = {"config": args.config, "topology": args.topology or args.device, **result}
  print(plan_lib.table(result))
  if args.json:
    pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


def guarded(work) -> int:
  """Runs a command; an error the user can mend is one sentence and exit code 2."""
  logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
  try:
    work()
  except config_lib.ConfigError as e:
    print(f"rljax: {e}", file=sys.stderr)
    return 2
  except preempt.Preempted as e:
    print(f"rljax: {e}", file=sys.stderr)
    return preempt.EXIT_CODE
  except KeyboardInterrupt:
    print("rljax: stopped; the same command continues from the last checkpoint", file=sys.stderr)
    return 130
  return 0


if __name__ == "__main__":
  sys.exit(train())
