"""Mutates the losses and advantages and counts how many mutants the tests kill.

    python -m tests.mutation                  about 60 mutants, spread over the files
    python -m tests.mutation --all pg value   every mutant of files whose name is given

A mutant changes one place: a sign, + and -, * and /, maximum and minimum, sum and mean, a
comparison, and / or of masks, a dropped clip, stop_gradient, where or exp, a float constant or
default. Mutated modules replace the originals in memory, and the file's tests run until one fails.
Exits with 1 when fewer than 95 % are killed. Mutants that change nothing are in EQUIVALENT, each
with its reason, and are not counted.
"""

import argparse
import ast
import concurrent.futures
import contextlib
import copy
import importlib
import io
import multiprocessing
import os
import pathlib
import random
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
TOTAL, REQUIRED = 60, 0.95
FILES = ["rljax/advantages.py", "rljax/advantage_terms.py", *sorted(
    str(p.relative_to(ROOT)) for p in (ROOT / "rljax/objectives").glob("*.py")
    if p.name not in ("__init__.py", "bench.py"))]
TESTS = {"pg_terms": ["pg"],  # of files that have no test of the same name
         "rows": ["preference", "reward_model", "distill"]}

# (file, mutation, part of its line): why no test can see the difference.
ORIGIN = "any member of the group will do as the origin"
UNREAD = "what stands at an untrained token is never read; the where keeps NaN out"
EQUIVALENT = {
    ("value.py", "stop_gradient(value_BT)  ->", ""): "V stays inside [V - clip, V + clip] anyway",
    ("value.py", "0.0  ->", "return jnp.where(mask_BT > 0, x_BT"): UNREAD,
    ("advantage_terms.py", "segment_min", ""): ORIGIN,
    ("advantage_terms.py", "rows + 1  ->", "segment_min(low_B"): ORIGIN,
    ("advantage_terms.py", "0.0  ->", "jnp.where(batch.valid_B"): UNREAD,
    ("advantage_terms.py", "0.0  ->", "(jnp.where(on_BT, x, 0.0) for x in (batch.old"): UNREAD,
    ("advantages.py", "0.0  ->", "value_BT = jnp.where(mask_BT > 0"): UNREAD,
    ("advantages.py", "0.0  ->", "jnp.where(terms.trained(batch) > 0, weight_BT"): UNREAD,
    ("advantages.py", "0.0  ->", "for x in (batch.adv_BT, batch.old_logp_BT)"): UNREAD,
}

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
         ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
COMPARISONS = {ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.GtE: ast.Lt, ast.LtE: ast.Gt, ast.NotEq: ast.Eq}
CALLS = {"maximum": "minimum", "minimum": "maximum", "sum": "mean", "mean": "sum",
         "segment_min": "segment_max", "truncated_weight": "masked_weight"}
DROPS = {"clip": 0, "stop_gradient": 0, "exp": 0, "log": 0, "square": 0, "where": 1, "sqrt": 0,
         "rsqrt": 0, "abs": 0}


def variants(node):
  """Every mutation of this node alone."""
  if isinstance(node, ast.BinOp) and type(node.op) in SWAPS:
    yield ast.BinOp(node.left, SWAPS[type(node.op)](), node.right)
  elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
    yield node.operand
  elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
    yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
  elif isinstance(node, ast.Constant) and type(node.value) is float:
    yield ast.Constant(node.value * 2 + 0.25)
  elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
    name = node.func.attr
    if name in CALLS:
      yield ast.Call(ast.Attribute(node.func.value, CALLS[name], ast.Load()), node.args,
                     node.keywords)
    if name in DROPS and len(node.args) > DROPS[name]:
      yield node.args[DROPS[name]]


def sites(tree):
  """Paths to expressions inside functions, defaults included; docstrings and types are not."""
  def walk(node, path, inside):
    for field, child in ast.iter_fields(node):
      if field in ("annotation", "returns", "decorator_list", "type_comment"):
        continue
      if isinstance(node, ast.keyword) and node.arg == "axis":
        continue  # axis=-1 and axis=1 are the same of two
      for index, item in enumerate(child) if isinstance(child, list) else [(None, child)]:
        if isinstance(item, ast.AST):
          here = inside or isinstance(item, ast.FunctionDef)
          if here:
            yield path + [(field, index)], item
          yield from walk(item, path + [(field, index)], here)
  return walk(tree, [], False)


def mutants(file):
  """(description, source) of every mutant of a file."""
  source = (ROOT / file).read_text()
  tree, lines = ast.parse(source), source.splitlines()
  for path, node in sites(tree):
    for new in variants(node):
      changed = copy.deepcopy(tree)
      parent = changed
      for field, index in path[:-1]:
        parent = getattr(parent, field) if index is None else getattr(parent, field)[index]
      field, index = path[-1]
      if index is None:
        setattr(parent, field, copy.deepcopy(new))
      else:
        getattr(parent, field)[index] = copy.deepcopy(new)
      yield (f"{file}:{node.lineno}: {ast.unparse(node)}  ->  {ast.unparse(new)}"
             f"  in: {lines[node.lineno - 1].strip()}",
             ast.unparse(ast.fix_missing_locations(changed)))


def choose(files, total, seed=0):
  """About `total` mutants, each file's share as its number of mutants, at least three."""
  found = {f: list(mutants(f)) for f in files}
  count = sum(map(len, found.values()))
  picked = []
  for file, all_of_file in found.items():
    share = max(3, round(total * len(all_of_file) / count)) if total else len(all_of_file)
    order = random.Random(f"{seed}{file}").sample(all_of_file, min(share, len(all_of_file)))
    picked += [(file, *m) for m in order]
  return picked


def tests_of(file):
  stem = pathlib.Path(file).stem
  if stem.startswith("advantage"):
    return ["tests/advantages_test.py"]
  paths = [f"tests/objectives/{s}_test.py" for s in TESTS.get(stem, [stem])]
  return [p for p in paths if (ROOT / p).exists()]


def run_tests(file) -> bool:
  """Whether they pass. Test modules are imported afresh, so that they see the mutated functions."""
  import pytest
  for name in [n for n in sys.modules if n.startswith("tests.") and n.endswith("_test")]:
    del sys.modules[name]
  with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-k", "not 32_bits", *tests_of(file)])
  return code == 0


def alive(job):
  """Runs one mutant; returns (description, whether it survived, seconds)."""
  file, description, source = job
  os.chdir(ROOT)
  module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
  start = time.time()
  try:
    exec(compile(source, file, "exec"), module.__dict__)
    survived = run_tests(file)
  except Exception:  # it does not even load
    survived = False
  finally:
    original = (ROOT / file).read_text()
    exec(compile(original, file, "exec"), module.__dict__)
  return description, survived, time.time() - start


def equivalent(file, description):
  mutation, _, line = description.partition("  in: ")
  return any(file.endswith("/" + f) and part in mutation and where in line
             for f, part, where in EQUIVALENT)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("names", nargs="*", help="stems of files; all by default")
  parser.add_argument("--all", action="store_true", help="every mutant instead of a sample")
  parser.add_argument("--jobs", type=int, default=2)
  args = parser.parse_args()
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  files = [f for f in FILES
           if tests_of(f) and (not args.names or pathlib.Path(f).stem in args.names)]
  jobs = [j for j in choose(files, 0 if args.all else TOTAL) if not equivalent(j[0], j[1])]
  print(f"{len(jobs)} mutants in {len(files)} files")
  results = {f: [] for f in files}
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
    for (file, _, _), (text, survived, seconds) in zip(jobs, pool.map(alive, jobs)):
      results[file].append(survived)
      if survived:
        print(f"ALIVE {text}  ({seconds:.0f} s)", flush=True)
  killed, total = 0, 0
  for file, survived in results.items():
    print(f"{file:42s} {survived.count(False):4d} / {len(survived)}")
    killed, total = killed + survived.count(False), total + len(survived)
  print(f"{'all':42s} {killed:4d} / {total}  ({100 * killed / max(total, 1):.1f} %)")
  return 0 if killed >= REQUIRED * total else 1


if __name__ == "__main__":
  sys.exit(main())
