"""Tasks for tiny tool users: products that need a calculator, facts that stand in a corpus.

Each task shows how it can be done: `info["turns"]` is what a policy would say, turn by turn, for
`rljax.rollouts.multi_turn.demonstrations`. The demonstrations are of a mixed kind on purpose (some
do without the tool and guess), so that a base trained on them leaves something to learn.
"""

from collections.abc import Sequence

from rljax import rng
from rljax.data import tasks as tasks_lib
from rljax.types import Task


def _split(name, key, split, test_share, draw, size, seed):
  """`size` tasks of this split; each draw is redone until its key belongs there."""
  def task(i):
    for attempt in range(tasks_lib.MAX_DRAWS):
      made = draw(rng.host(seed, name, split, i, attempt))
      if tasks_lib.split_of(key(made), test_share) == split:
        return Task(**{**made, "id": f"{name}/{split}/{seed}/{i}"})
    raise ValueError(f"{name}: split {split!r} has no problems with test_share={test_share}")

  task(0)
  return tasks_lib.TaskSet(task, size)


def products(*, digits: int = 3, tool_share: float = 0.5, broken_share: float = 0.2,
             right_share: float = 0.0, working: bool = False, tool: str = "py",
             split: str = "train", size: int = 20000, seed: int = 0,
             test_share: float = 0.1) -> Sequence[Task]:
  """"417*385=" -> "160545": easy with a calculator, hard without.

  A demonstration calls the tool with probability `tool_share`, `broken_share` of these with a slip
  first (an operand is missing) that it then mends; the others answer at once, a number of the right
  length.
  ReTool's cold start, https://arxiv.org/abs/2504.11536, at the size of a toy.

  Args:
    digits: operands are uniform in [10**(digits-1), 10**digits).
    right_share: of the answers without a call, those that are right.
    working: these answers are led up to by the products with each digit, "417*300=125100,...".
    tool: its tag.
  """
  def draw(generator):
    a, b = (int(x) for x in generator.integers(10 ** (digits - 1), 10**digits, size=2))
    answer, call = str(a * b), f"<{tool}>{a}*{b}</{tool}>"
    if generator.random() < tool_share:
      turns = [f"<{tool}>{a}*</{tool}>"] * bool(generator.random() < broken_share) + [call]
    else:
      low = 10 ** (len(answer) - 1)
      right = right_share and generator.random() < right_share
      turns, answer = [], answer if right else str(generator.integers(low, 10 * low))
    parts = [int(d) * 10**i for i, d in enumerate(str(b)[::-1])][::-1]
    steps = ",".join(f"{a}*{part}={a * part}" for part in parts) if working and not turns else ""
    return {"prompt": f"{a}*{b}=", "answer": a * b, "verifier": "rljax.rewards.verify:number",
            "info": {"turns": [*turns, f"{steps}<answer>{answer}</answer>"]}}

  return _split("products", lambda t: t["prompt"], split, test_share, draw, size, seed)


# --- facts ----------------------------------------------------------------------------------------


def _names(entities: int) -> list[str]:
  """Two-letter names, "ba", "be", ..., all different."""
  names = [a + b for a in "bcdfghjklmnpqrstvwxyz" for b in "aeiou"]
  if not 2 <= entities <= len(names):
    raise ValueError(f"facts: entities is 2 to {len(names)}, found {entities}")
  return names[:entities]


def _fact(name: str, relation: str, world: int) -> int:
  return int(rng.host(world, "fact", name, relation).integers(10, 100))


def fact_passages(*, entities: int = 40, relations: int = 4, world: int = 0) -> list[dict]:
  """The corpus: "r2 of ba is 57." for every relation of every entity; a leaf of `bm25(corpus=)`."""
  return [{"id": f"{name}-r{k}", "title": name,
           "text": f"r{k} of {name} is {_fact(name, f'r{k}', world)}."}
          for name in _names(entities) for k in range(relations)]


def facts(*, entities: int = 40, relations: int = 4, hops: int = 2, guess_share: float = 0.3,
          world: int = 0, split: str = "train", size: int = 20000, seed: int = 0,
          test_share: float = 0.2) -> Sequence[Task]:
  """Sums of facts, "r2 of ba + r0 of ce?" -> "91": each fact is one search away (`fact_passages`).

  A demonstration searches for every fact and adds up, or, with probability `guess_share`, answers
  a number without having looked. Gold ids of the passages are in `info["gold"]`.

  Args:
    hops: facts of a question, 1 or 2.
    entities, relations, world: as of the corpus.
  """
  names = _names(entities)
  if hops not in (1, 2):
    raise ValueError(f"facts: hops is 1 or 2, found {hops}")

  def draw(generator):
    asked = [(names[int(generator.integers(len(names)))], f"r{int(generator.integers(relations))}")
             for _ in range(hops)]
    answer = sum(_fact(name, relation, world) for name, relation in asked)
    guessed = generator.random() < guess_share
    said = int(generator.integers(10 * hops, 100 * hops)) if guessed else answer
    searches = [] if guessed else [f"<search>{r} of {n}</search>" for n, r in asked]
    return {"prompt": " + ".join(f"{r} of {n}" for n, r in asked) + "?", "answer": answer,
            "verifier": "rljax.rewards.verify:number",
            "info": {"turns": [*searches, f"<answer>{said}</answer>"],
                     "gold": [f"{n}-{r}" for n, r in asked]}}

  return _split("facts", lambda t: t["prompt"], split, test_share, draw, size, seed)
