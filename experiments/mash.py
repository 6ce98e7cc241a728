"""MASH's world: facts about entities, some of which the policy has read, and a search for all.

Entities 0 to 15 (G3) show how the tool is used, the next 24 are known (K), the last 24 are not (U).
What a search returns in a demonstration was drawn for that demonstration alone: it must be read.
An answer names its entity, "e5v7", as facts do: what follows it there follows it in the answer.
"""

import dataclasses
import functools
import re

from rljax import rng
from rljax.data import planted
from rljax.data import tasks as tasks_lib
from rljax.data import text as text_lib
from rljax.envs import base
from rljax.types import Task

ENTITIES, RELATIONS, VALUES = 64, 4, 32
KINDS = {"G3": range(0, 16), "K": range(16, 40), "U": range(40, 64)}
RL = 18  # entities of K and of U whose questions RL asks; the others are held out
_QUERY = re.compile(r"e(\d+)r(\d)")


def value(entity: int, relation: int, world: int = 0) -> str:
  return f"v{rng.host(world, 'mash', entity, relation).integers(VALUES)}"


@dataclasses.dataclass(frozen=True)
class Lookup(base.Tool):
  """Finds the fact of a query "e5r2", as "r2e5v7", and another entity's fact of that relation, in
  either order.

  The facts are those of the world `task.info["world"]`.
  """

  output: str = "information"

  def start(self, task, seed):
    return task.info.get("world", 0), seed

  def call(self, state, text):
    found = _QUERY.fullmatch(text)
    if found is None or int(found[1]) >= ENTITIES:
      return state, "none", True
    world, seed = state
    entity, relation = int(found[1]), int(found[2])
    draws = rng.host(seed, "distractor", entity, relation)
    other = (entity + int(draws.integers(1, ENTITIES))) % ENTITIES
    shown = [f"r{relation}e{e}{value(e, relation, world)}" for e in (entity, other)]
    return state, "".join(shown[::-1] if draws.random() < 0.5 else shown), False


def lookup() -> base.Tool:
  return Lookup()


def words() -> text_lib.Tokenizer:
  """A token for every entity, relation, value and tag."""
  names = [f"{x}{i}" for x, n in (("e", ENTITIES), ("r", RELATIONS), ("v", VALUES))
           for i in range(n)]
  tags = [f"<{end}{tag}>" for tag in ("search", "answer", "information") for end in ("", "/")]
  return text_lib.pieces(pieces=(*names, *tags, "?", ".", "none", "limit"))


def _task(name, entity, relation, turns=(), *, kind="", world=0, given=0) -> Task:
  return Task(id=name, prompt=f"e{entity}r{relation}?",
              answer=f"e{entity}{value(entity, relation, world)}",
              verifier="rljax.rewards.qa:exact_match",
              info={"kind": kind, "world": world, "turns": list(turns), "given": given})


def questions(*, held: bool = False) -> tasks_lib.TaskSet:
  """All questions about the entities of K and U that RL asks about, or about those held out."""
  some = [(kind, e) for kind in ("K", "U")
          for e in (KINDS[kind][RL:] if held else KINDS[kind][:RL])]
  return tasks_lib.TaskSet([_task(f"mash/{e}/{r}", e, r, kind=kind) for kind, e in some
                            for r in range(RELATIONS)])


def declared(*, size: int = 200000) -> tasks_lib.TaskSet:
  """Facts as sentences, ".r2e5v7", of G3 and K alone; the value alone is trained on."""
  def task(i):
    draws = rng.host(0, "declared", i)
    e, r = int(draws.integers(KINDS["K"].stop)), int(draws.integers(RELATIONS))
    return Task(f"declared/{i}", ".", info={"turns": [f"r{r}e{e}{value(e, r)}"], "given": 2})
  return tasks_lib.TaskSet(task, size)


def shown(*, kinds: tuple = ("G3",), searches: tuple = (0.5, 0.5), given: int = 0,
          size: int = 200000) -> tasks_lib.TaskSet:
  """Questions with demonstrations of so many searches, and the answer that was read, or is known.

  Args:
    kinds: of the entities.
    searches: probability of 0, 1, 2 searches.
    given: tokens of the first turn that are not trained on: 1 hides the decision to search.
  """
  entities = [(kind, e) for kind in kinds for e in KINDS[kind]]

  def task(i):
    draws = rng.host(0, "shown", *kinds, i)
    kind, e = entities[draws.integers(len(entities))]
    r, n = int(draws.integers(RELATIONS)), int(draws.choice(len(searches), p=searches))
    world = 1 + i if n else 0
    turns = [*[f"<search>e{e}r{r}</search>"] * n, f"<answer>e{e}{value(e, r, world)}</answer>"]
    return _task(f"shown/{'-'.join(kinds)}/{i}", e, r, turns, kind=kind, world=world, given=given)
  return tasks_lib.TaskSet(task, size)


ONE, SOME = (0.0, 1.0), (0.0, 0.8, 0.2)
DRILLS = {"read": dict(kinds=("K", "U"), searches=SOME, given=1),
          "know": dict(kinds=("G3", "K"), searches=(1.0,), given=1),
          "leak": dict(kinds=("U",), searches=SOME)}  # shows what is not known


def reading() -> tasks_lib.TaskSet:
  """One search and what it says, half of the time about the few entities of G3: matching entities
  is found out with few of them, and then holds for all."""
  return planted.mixture(parts=[lambda: shown(searches=ONE),
                                lambda: shown(kinds=tuple(KINDS), searches=ONE)],
                         weights=(1, 1), size=150000)


def unread() -> tasks_lib.TaskSet:
  """Searches that `reading` does not have, about K and U."""
  return shown(kinds=("K", "U"), searches=ONE)


def mixed(*, drills: tuple = ("read", "know")) -> tasks_lib.TaskSet:
  """Facts, questions about G3 with both ways of answering, and some of `DRILLS`, of which all but
  "leak" hide the decision to search."""
  parts = [declared, shown, *[functools.partial(shown, **DRILLS[name]) for name in drills]]
  return planted.mixture(parts=parts, weights=(48, *[32] * (len(parts) - 1)), size=150000)
