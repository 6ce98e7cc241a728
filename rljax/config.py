"""Configs: plain ConfigDicts whose leaves name code, checked against the code's signature at build.

  c.tasks = fn("rljax.data.tasks:addition", digits=3)        # a leaf
  bind(c.tasks)                                              # functools.partial(addition, digits=3)

A config file has `get_config()` and, optionally, `ARMS`, `RUNLOCAL` and `SCALE`: dicts of dotted
keys. `load("configs/x.py:runlocal,no_kl")` applies the named forms and arms left to right. This
module imports no jax, so a config loads in milliseconds.
"""

import ast
import copy
import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

# The parts of a config whose keys are names that its author chooses; they take new entries.
NAMED = ("rewards", "reward_weights", "memories", "evals", "roles", "updates")


class ConfigError(Exception):
  """A mistake of the user's, told in one sentence; the command prints it without a traceback."""


def fn(target: str, **kwargs) -> ml_collections.ConfigDict:
  """A leaf: the function `module:name` (or `path/file.py:name`) with these keyword arguments."""
  leaf = ml_collections.ConfigDict({"fn": target})
  for key, value in kwargs.items():
    leaf[key] = value
  return leaf


def is_leaf(value: Any) -> bool:
  return isinstance(value, Mapping | ml_collections.ConfigDict) and "fn" in value


def resolve(target: str) -> Callable:
  """The object that "module:name" or "path/file.py:name" names.

  Raises:
    ConfigError: the module or the name does not exist, with the nearest name that does.
  """
  module_name, _, name = str(target).partition(":")
  if not name:
    raise ConfigError(f"{target!r} should read 'module:function'")
  if module_name.endswith(".py"):
    module = load_file(module_name)
  else:
    try:
      module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
      if e.name and (module_name == e.name or module_name.startswith(e.name + ".")):
        raise ConfigError(f"{target!r}: there is no module {e.name!r}") from None
      raise ConfigError(
          f"{target!r} needs the package {e.name!r}, which is not installed") from None
  if not hasattr(module, name):
    raise ConfigError(f"{target!r}: {module_name} has no {name!r}{nearest(name, dir(module))}")
  return getattr(module, name)


def bind(leaf, *, where: str = "config") -> Callable:
  """Turns a leaf into a `functools.partial`; nested leaves are bound first.

  Only keyword-only parameters are hyperparameters; the rest is what the caller passes at run time.
  The result's attribute `leaf` is the leaf, for a function that puts it into a recipe of its own.

  Args:
    leaf: a ConfigDict with `fn`.
    where: the dotted key and file, for the message.

  Raises:
    ConfigError: a key that the function does not have, a missing one, or a value of a wrong type.
  """
  if not is_leaf(leaf):
    raise ConfigError(f"{where}: expected fn('module:function', ...), found {leaf!r}")
  function = resolve(leaf["fn"])
  parameters = inspect.signature(function).parameters
  known = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
  kwargs = {}
  for key, value in leaf.items():
    if key == "fn":
      continue
    if key not in known:
      raise ConfigError(
          f"{where}: {leaf['fn']} has no parameter {key!r}{nearest(key, known)}"
          f" (it has: {', '.join(known) or 'none'})")
    _check_type(value, known[key].default, f"{where}.{key}")
    kwargs[key] = _plain(value, f"{where}.{key}")
  missing = [n for n, p in known.items() if p.default is p.empty and n not in kwargs]
  if missing:
    raise ConfigError(f"{where}: {leaf['fn']} needs a value for {', '.join(missing)}")
  bound = functools.partial(function, **kwargs)
  bound.leaf = leaf  # for code that builds another config (a base model's) from a nested leaf
  return bound


def _plain(value, where):
  if is_leaf(value):
    return bind(value, where=where)
  if isinstance(value, ml_collections.ConfigDict):
    return {k: _plain(v, f"{where}.{k}") for k, v in value.items()}
  if isinstance(value, tuple | list):
    return type(value)(_plain(v, where) for v in value)
  return value


def _check_type(value, default, where):
  """Compares with the default's type; None and no default accept anything, int passes as float."""
  if default is None or default is inspect.Parameter.empty or value is None or is_leaf(value):
    return
  wanted, found = type(default), type(value)
  same = (wanted is found or (wanted is float and found is int)
          or (wanted in (tuple, list) and found in (tuple, list))
          or (wanted is dict and isinstance(value, ml_collections.ConfigDict))
          or callable(default))
  if not same:
    raise ConfigError(f"{where}: expected {wanted.__name__}, found {found.__name__} {value!r}")


def nearest(name: str, known) -> str:
  """"; did you mean 'x'?" for the closest of the known names, or "" if none is close."""
  close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
  return f"; did you mean {close[0]!r}?" if close else ""


# --- loading --------------------------------------------------------------------------------------


@functools.cache
def load_file(path: str):
  """The module of a Python file, loaded once.

  Raises:
    ConfigError: there is no such file.
  """
  if not os.path.exists(path):
    raise ConfigError(f"there is no file {path}")
  name = "rljax_file_" + hashlib.sha1(os.path.abspath(path).encode()).hexdigest()[:12]
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  sys.modules[name] = module  # pickling a function of the file needs it
  spec.loader.exec_module(module)
  return module


def load(spec: str, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
  """Loads `file.py[:name,name...]` and applies the named forms and arms, then the overrides.

  Names: `runlocal` (shrinks the run to seconds: `recipes.runlocal`, then the file's RUNLOCAL),
  `quick` (the file's QUICK: a run of a minute), `scale` (its SCALE: the paper's own sizes), or any
  arm of the file's ARMS.

  Raises:
    ConfigError: no such file, name or key, or a value of a wrong type.
  """
  from rljax import recipes  # recipes builds on fn()
  path, _, names = spec.partition(":")
  module = load_file(path)
  if not hasattr(module, "get_config"):
    raise ConfigError(f"{path} has no get_config()")
  # The file is loaded once: what an override sets must not reach leaves that it keeps. A deep copy
  # keeps the references (`data.path` stands in several places).
  config = copy.deepcopy(module.get_config())
  arms = dict(getattr(module, "ARMS", {}))
  forms = {f: getattr(module, f.upper()) for f in ("quick", "scale") if hasattr(module, f.upper())}
  for name in filter(None, names.split(",")):
    if name == "runlocal":
      recipes.runlocal(config)
      apply(config, getattr(module, "RUNLOCAL", {}), path)
    elif name in forms or name in arms:
      apply(config, (forms | arms)[name], path)
    else:
      known = ["runlocal", *forms, *arms]
      raise ConfigError(
          f"{path} has no arm {name!r}{nearest(name, known)} (it has: {', '.join(known)})")
  apply(config, overrides or {}, path)
  return config


def apply(config, diff: Mapping[str, Any], where: str) -> None:
  """Sets dotted keys in place. A key must exist, or be a parameter of the leaf it stands in.

  A value that is itself a leaf or None replaces whatever was there (an arm may swap a function).

  Raises:
    ConfigError: naming the key, the file and the nearest valid key, or the wrong type.
  """
  for dotted, value in diff.items():
    node, parts = config, dotted.split(".")
    for i, part in enumerate(parts[:-1]):
      if not isinstance(node, ml_collections.ConfigDict) or part not in node:
        _unknown(node, part, ".".join(parts[:i + 1]), where)
      node = node[part]
    _set(node, parts[-1], value, dotted, where)


def _set(node, name, value, dotted, where):
  if not isinstance(node, ml_collections.ConfigDict):
    raise ConfigError(f"{where}: {dotted!r}: its parent is {node!r}, which has no keys")
  if is_leaf(node) and name != "fn":
    keywords = _keywords(node["fn"])
    if name not in keywords and name not in node:
      _unknown(node, name, dotted, where, known=keywords)
    default = node[name] if node.get(name) is not None else keywords.get(name)
  elif name in node:
    default = node[name]
  elif dotted.rpartition(".")[0] in NAMED:
    default = None
  else:
    _unknown(node, name, dotted, where)
  if not is_leaf(value) and not (value is None and (default is None or is_leaf(default))):
    if isinstance(default, ml_collections.ConfigDict):
      raise ConfigError(f"{where}: {dotted!r} holds keys of its own, it cannot be set to {value!r}")
    _check_type(value, default, f"{where}: {dotted}")
    if isinstance(default, float) and isinstance(value, int):
      value = float(value)
  if isinstance(value, ml_collections.ConfigDict):
    value = value.copy_and_resolve_references()
  with node.ignore_type():
    node[name] = value


def _keywords(target) -> dict:
  parameters = inspect.signature(resolve(target)).parameters.values()
  return {p.name: None if p.default is p.empty else p.default
          for p in parameters if p.kind is p.KEYWORD_ONLY}


def _unknown(node, name, dotted, where, known=None):
  known = list(known if known is not None else
               node.keys() if isinstance(node, ml_collections.ConfigDict) else ())
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  prefix = dotted.rpartition(".")[0]
  hint = (f"; did you mean {'.'.join(filter(None, [prefix, close[0]]))!r}?" if close
          else f" (there is: {', '.join(map(str, known)) or 'nothing'})")
  raise ConfigError(f"{where}: unknown key {dotted!r}{hint}")


def parse_overrides(args: list[str]) -> dict[str, Any]:
  """`["--config.a.b=1", "--config.c=x"]` -> `{"a.b": 1, "c": "x"}`: Python literals, else text.

  Raises:
    ConfigError: an argument that is not of that form.
  """
  result = {}
  for arg in args:
    key, eq, text = arg.partition("=")
    if not key.startswith("--config.") or not eq:
      raise ConfigError(f"cannot read {arg!r}; overrides read --config.key.key=value")
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    result[key[len("--config."):]] = value
  return result


# --- identity -------------------------------------------------------------------------------------


def to_dict(config) -> dict:
  """A JSON-like copy."""
  return json.loads(config.to_json_best_effort()) if config else {}


def digest(config) -> str:
  """A stable hash of the resolved config, 12 hex digits."""
  text = json.dumps(to_dict(config), sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:12]


def differing(a: Mapping, b: Mapping, prefix: str = "") -> list[str]:
  """Dotted keys at which two plain dicts differ, as "key: old -> new"."""
  out = []
  for key in sorted({*a, *b}):
    dotted = f"{prefix}{key}"
    x, y = a.get(key), b.get(key)
    if isinstance(x, Mapping) and isinstance(y, Mapping):
      out += differing(x, y, dotted + ".")
    elif x != y:
      out.append(f"{dotted}: {x!r} -> {y!r}")
  return out
