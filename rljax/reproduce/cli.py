"""rljax-reproduce: a paper's arms x seeds, then claims, table, plot and record."""

import argparse
import pathlib

from rljax import config as config_lib
from rljax.reproduce import index, papers, record, runs

ConfigError = config_lib.ConfigError


def main(argv: list[str] | None = None) -> int:
  """rljax-reproduce SLUG [--arms a,b] [--seeds N] [--quick] [--jobs N] | --all | --list"""
  parser = argparse.ArgumentParser(
      "rljax-reproduce", description="Run a paper's arms and judge its claims from the numbers. "
      "Finished runs are kept; the same command continues after a kill.")
  parser.add_argument("slug", nargs="?", help="a paper of configs/papers (see --list)")
  parser.add_argument("--all", action="store_true", help="every paper, one after the other")
  parser.add_argument("--list", action="store_true", help="every paper with verdict and cost")
  parser.add_argument("--arms", default="", help="only these arms, comma separated")
  parser.add_argument("--seeds", type=int, default=0, help="number of seeds (default: the paper's)")
  parser.add_argument("--quick", action="store_true", help="shrunken runs, one seed, no record")
  parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
  parser.add_argument("--results", default="results", help="folder of all results")
  args = parser.parse_args(argv)
  from rljax import main as main_lib  # it registers the commands; late, to keep imports acyclic
  return main_lib.guarded(lambda: _main(args, parser))


def _main(args, parser):
  results = pathlib.Path(args.results)
  if args.list:
    print(index.listing(results))
  elif args.all:
    failures = []
    for slug in papers.slugs():
      try:
        _reproduce(papers.load(slug), args, results)
      except ConfigError as e:  # the other papers are still worth running
        failures.append(f"{slug}: {e}")
    print(index.listing(results))
    if failures:
      raise ConfigError("\n".join(failures))
  elif args.slug:
    _reproduce(papers.load(args.slug), args, results)
  else:
    parser.error("name a paper, or --all, or --list")


def _reproduce(paper, args, results):
  arms = args.arms.split(",") if args.arms else list(paper.arms)
  for arm in arms:
    if arm not in paper.arms:
      raise ConfigError(f"{paper.slug}: no claim reads an arm {arm!r}"
                        f"{config_lib.nearest(arm, paper.arms)} (it has: {', '.join(paper.arms)})")
  seeds = range(args.seeds or (1 if args.quick else paper.seeds))
  folder = results / paper.slug / ("quick" if args.quick else "")
  jobs = runs.plan(paper, folder / "runs", arms, seeds, quick=args.quick)
  print(f"{paper.title}: {len(arms)} arms x {len(seeds)} seeds in {folder}")
  runs.run_all(jobs, at_once=max(1, args.jobs))
  found = record.write(paper, folder, jobs, quick=args.quick)
  print((folder / "table.md").read_text())
  complete = not args.quick and found["verdict"] != "incomplete"
  if complete and len(seeds) >= paper.seeds:
    print(record.publish(paper, folder))
  return found


if __name__ == "__main__":
  import sys
  sys.exit(main())
