"""Who may import whom (DESIGN: rooms), read off the syntax trees; and the house limits on size."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(p for d in ("rljax", "kernels", "configs", "experiments")
               for p in (ROOT / d).rglob("*.py"))

# room -> module prefixes it must not import. The first matching room (longest prefix) rules.
HOST = ("jax", "flax", "optax", "rljax.models", "rljax.train", "rljax.objectives")
FORBIDDEN = {
    "rljax.types": ("rljax",),
    "rljax.rng": ("rljax",),
    "rljax.nums": ("rljax.o", "rljax.m", "rljax.train", "rljax.data", "rljax.config"),
    "rljax_kernels": ("rljax",),
    "rljax.ops": ("rljax.models", "rljax.train", "rljax.data"),
    "rljax.objectives": ("numpy", "rljax.models", "rljax.envs", "rljax.data", "rljax.train",
                         "rljax.config"),
    "rljax.objectives.bench": (),
    "rljax.advantages": ("numpy", "rljax.models", "rljax.envs", "rljax.data", "rljax.train",
                         "rljax.config"),
    "rljax.models": ("rljax.envs", "rljax.rewards", "rljax.train", "rljax.data"),
    "rljax.sampling": ("rljax.envs", "rljax.rewards", "rljax.train", "rljax.data"),
    "rljax.optim": ("rljax.envs", "rljax.rewards", "rljax.train", "rljax.data"),
    "rljax.sharding": ("rljax.envs", "rljax.rewards", "rljax.train", "rljax.data"),
    "rljax.envs": HOST, "rljax.rewards": HOST, "rljax.data": HOST, "rljax.rollouts": HOST,
    "rljax.search": HOST, "rljax.evals": HOST,
    "rljax.classic": ("rljax.rollouts", "rljax.sampling"),
    "rljax.train": ("experiments", "configs"),
    "rljax.reproduce": ("jax", "flax", "rljax.train.build", "rljax.train.loop", "experiments"),
    "rljax.config": ("jax", "flax", "numpy", "rljax.types"),
    "rljax.recipes": ("jax", "flax", "numpy", "rljax.types"),
    "configs": ("jax", "numpy", "flax", "experiments"),
}


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  parts = parts[1:] if parts[0] == "kernels" else parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (a.name for a in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{a.name}" for a in node.names)


def room_of(name):
  rooms = [r for r in FORBIDDEN if name == r or name.startswith(r + ".")]
  return max(rooms, key=len) if rooms else None


def offends(name, prefixes):
  return any(name == p or name.startswith(p + ".") or (p[-2:-1] == "." and name.startswith(p))
             for p in prefixes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_stay_in_their_room(path):
  room = room_of(module_name(path))
  bad = [i for i in imports(path) if room and offends(i, FORBIDDEN[room])]
  assert not bad, f"{module_name(path)} (room {room}) imports {bad}"


def test_configs_import_only_the_config_language():
  for path in (ROOT / "configs").rglob("*.py"):
    assert all(
        i.startswith(("rljax.config", "rljax.recipes", "rljax.")) for i in imports(path)), path
    assert {i for i in imports(path)} <= {"rljax.recipes", "rljax.config.fn", "rljax.config"}, path


def test_nobody_imports_experiments():
  for path in FILES:
    assert not any(i.startswith("experiments") for i in imports(path)), path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
  text = path.read_text()
  assert text.count("\n") <= 400, path
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      length = node.end_lineno - node.lineno + 1
      doc = ast.get_docstring(node, clean=False)
      length -= doc.count("\n") + 1 if doc else 0
      assert length <= 60, f"{path}:{node.name} has {length} lines"


def test_no_recipe_brings_its_own_loop():
  """Counted and printed: it should stay under five in all papers."""
  own = [p.name for p in (ROOT / "configs").rglob("*.py") if "loop=" in p.read_text()]
  print(f"configs with a loop of their own: {len(own)}")
  assert len(own) < 5


def test_the_check_can_fail():
  assert offends("rljax.train.loop", FORBIDDEN["rljax.models"])
  assert offends("jax.numpy", FORBIDDEN["rljax.rewards"])
  assert not offends("rljax.types", FORBIDDEN["rljax.rewards"])
  assert room_of("rljax.objectives.pg") == "rljax.objectives"
