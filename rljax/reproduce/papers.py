"""A paper's config file as data: arms, claims, forms. Imports no jax, so listing takes no time.

`configs/papers/<slug>.py` holds, besides `get_config()`, ARMS, RUNLOCAL and SCALE:

  PAPER    {"title", "category", "model"}: `model` is what SCALE runs
  QUICK    dotted keys that shrink a run for `--quick` (one seed)
  SEEDS    seeds of a full run
  CLAIMS   list of dicts, fixed before the runs (see `Claim`)
  EXACT    claims with a known answer, as pytest ids ("tests/x_test.py::test_y")
  UNTESTED what the paper claims and this scale cannot show, one sentence each
  PLOT     metrics to draw
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from rljax import config as config_lib

ConfigError = config_lib.ConfigError

FOLDER = pathlib.Path("configs/papers")
RECORDS = pathlib.Path("experiments")
RELATIONS = (">", "<", "within")
KINDS = ("claim", "mechanism", "control")
AVERAGES = ("mean", "iqm")


@dataclasses.dataclass(frozen=True)
class Side:
  """One side of a claim: a metric of an arm, reduced over the run's steps (`measure.reduce`)."""

  arm: str
  metric: str
  at: str


@dataclasses.dataclass(frozen=True)
class Claim:
  """`left - times * right > margin`, `< -margin`, or `|left - times * right| <= margin` ("within").

  Attributes:
    says: the claim in words.
    left, right: what is compared; `right` may be a number.
    relation, margin: see above; the margin is in the metric's units.
    kind: "claim" of the paper, "mechanism" (what must happen at this scale for the claim to be
      testable) or "control" (an arm that must fail, and does if the relation holds).
    paper: the paper's own numbers, in words.
    times: a factor of `right`, where the claim is a ratio.
    average: over seeds, "mean", or "iqm", the mean of the middle half.
  """

  says: str
  left: Side
  relation: str
  right: Side | float
  margin: float
  kind: str
  paper: str
  times: float = 1.0
  average: str = "mean"

  def arms(self) -> list[str]:
    return [s.arm for s in (self.left, self.right) if isinstance(s, Side)]


@dataclasses.dataclass(frozen=True)
class Paper:
  slug: str
  path: str
  title: str
  category: str
  model: str
  arms: tuple[str, ...]
  seeds: int
  claims: tuple[Claim, ...]
  exact: tuple[str, ...]
  untested: tuple[str, ...]
  plot: tuple[str, ...]

  def spec(self, arm: str, *, quick: bool) -> str:
    """What `config.load` and `--config` take."""
    names = (["quick"] if quick else []) + ([] if arm == "full" else [arm])
    return self.path + (":" + ",".join(names) if names else "")


def slugs() -> list[str]:
  return sorted(p.stem for p in FOLDER.glob("*.py"))


def load(slug: str) -> Paper:
  """Reads and checks configs/papers/<slug>.py.

  Raises:
    ConfigError: no such paper, or a claim that names an unknown arm, relation or kind.
  """
  path = FOLDER / f"{slug}.py"
  if not path.exists():
    raise ConfigError(f"there is no paper {slug!r}{config_lib.nearest(slug, slugs())} "
                      f"(run from the repository's folder; --list shows all)")
  module = config_lib.load_file(str(path))
  for name in ("PAPER", "CLAIMS", "ARMS"):
    if not hasattr(module, name):
      raise ConfigError(f"{path} has no {name}")
  arms = ("full", *module.ARMS)
  claims = tuple(_claim(c, arms, f"{path}: CLAIMS[{i}]") for i, c in enumerate(module.CLAIMS))
  return Paper(
      slug=slug, path=str(path), arms=_used(arms, claims), claims=claims,
      seeds=getattr(module, "SEEDS", 3), exact=tuple(getattr(module, "EXACT", ())),
      untested=tuple(getattr(module, "UNTESTED", ())), plot=tuple(getattr(module, "PLOT", ())),
      **{k: module.PAPER[k] for k in ("title", "category", "model")})


def _used(arms, claims):
  """The arms that some claim reads, in the order of the file."""
  read = {a for c in claims for a in c.arms()}
  return tuple(a for a in arms if a in read)


def _claim(raw: Mapping[str, Any], arms, where) -> Claim:
  known = {"says", "metric", "arm", "at", "relation", "than", "than_metric", "than_at", "margin",
           "kind", "paper", "times", "average"}
  for key in raw:
    if key not in known:
      raise ConfigError(f"{where}: unknown key {key!r}{config_lib.nearest(key, known)}")
  for key in ("says", "metric", "relation", "than"):
    if key not in raw:
      raise ConfigError(f"{where}: needs {key!r}")
  left = Side(raw.get("arm", "full"), raw["metric"], raw.get("at", "end"))
  right = raw["than"]
  if isinstance(right, str):
    right = Side(right, raw.get("than_metric", left.metric), raw.get("than_at", left.at))
  claim = Claim(raw["says"], left, raw["relation"], right, float(raw.get("margin", 0.0)),
                raw.get("kind", "claim"), raw.get("paper", ""), float(raw.get("times", 1.0)),
                raw.get("average", "mean"))
  for arm in claim.arms():
    if arm not in arms:
      raise ConfigError(f"{where}: unknown arm {arm!r}{config_lib.nearest(arm, arms)}")
  for key, known in (("relation", RELATIONS), ("kind", KINDS), ("average", AVERAGES)):
    if getattr(claim, key) not in known:
      raise ConfigError(f"{where}: {key} is one of {', '.join(known)}, "
                        f"found {getattr(claim, key)!r}")
  return claim
