"""Put shuffled pieces back in order: any unlabelled thing that can be cut makes a task.

Visual Jigsaw, https://github.com/penghao-wu/visual_jigsaw: pieces P_1 .. P_K are shown as
P_s(1) .. P_s(K) for a permutation s; the answer names the shown pieces, counted from 1, in the
original order, which is the inverse of s.
"""

from collections.abc import Sequence

import numpy as np

from rljax.data import images
from rljax.data import tasks as tasks_lib
from rljax.types import Task

PICTURE = "#"  # in a prompt: one image, see `rljax.data.text:images`


def inverse(shown: Sequence[int]) -> tuple[int, ...]:
  """a with shown[a[j] - 1] = j + 1: where each original piece is found. (2, 3, 1) -> (3, 1, 2).

  Args:
    shown: a permutation of 1 .. K, the original number of each shown piece.
  """
  return tuple(int(i) + 1 for i in np.argsort(np.asarray(shown)))


def text_of(order: Sequence[int]) -> str:
  return ",".join(map(str, order))


def picture(draws: np.random.Generator, size: int, shapes: Sequence[int]
            ) -> tuple[np.ndarray, list[images.Object]] | None:
  """A gradient with shapes of several colours; what is in it. None if they found no room."""
  kinds = [(images.SHAPES[draws.integers(len(images.SHAPES))], color)
           for color in draws.permutation(list(images.COLORS))[:draws.integers(
               shapes[0], shapes[1] + 1)].tolist()]
  objects = images.scatter(draws, kinds, size, size, (size / 10, size / 6))
  if objects is None:
    return None
  image = images.gradient(draws, size, size)
  for thing in objects:
    images.draw(image, thing)
  return image, objects


_ORDERS = {"place": None, "light": np.mean,
           "red": lambda tile: np.mean(tile[..., 2]) - np.mean(tile[..., 0])}


def jigsaw(*, rows: int = 2, columns: int = 2, size: int = 24, shapes: Sequence[int] = (3, 5),
           tolerance: float = 6.0, right: float = 1.0, by: str = "place",
           template: str = "{pieces}:", split: str = "train", count: int = 20000, seed: int = 0,
           test_share: float = 0.1) -> tasks_lib.TaskSet:
  """"####:" and four tiles -> "3,1,2,4". A demo is right in a share `right` of the tasks, and else
  any permutation.

  Args:
    rows, columns: tiles of an image of `size` x `size` pixels.
    shapes: fewest and most of a picture.
    tolerance: pictures with two tiles that differ by no more (mean over pixels) are drawn again:
      several answers would be right, and one is rewarded.
    by: what the tiles are to be ordered by: their "place" in the picture; or "light", the darkest
      first, or "red", the least blue first: perception that a base may know beforehand.
    template: with "{pieces}" for the images.

  Raises:
    ValueError: fewer than two tiles, sizes that cannot be cut, or no picture whose tiles differ.
  """
  pieces = rows * columns
  tasks_lib.at_least("jigsaw", 2, {"tiles": pieces})
  if by not in _ORDERS:
    raise ValueError(f"jigsaw: by={by!r}; one of {', '.join(_ORDERS)}")
  prompt = tasks_lib.fill(template, {"pieces": PICTURE * pieces})

  def draw(draws):
    made = picture(draws, size, shapes)
    if made is None:
      return None
    tiles = images.cut(made[0], rows, columns)
    if images.alike(tiles, tolerance):
      return None
    shown = draws.permutation(pieces) + 1
    answer = inverse(shown) if by == "place" else tuple(int(i) + 1 for i in np.argsort(
        [_ORDERS[by](tiles[s - 1].astype(float)) for s in shown], kind="stable"))
    knows = draws.random() < right
    said = answer if knows else (draws.permutation(pieces) + 1).tolist()
    return made[0].tobytes().hex(), Task(
        id="", prompt=prompt, answer=list(answer), demo=text_of(said), media=tuple(
            tiles[s - 1] for s in shown), verifier="rljax.rewards.permutation:exact")

  return tasks_lib.generate("jigsaw", draw, split=split, size=count, seed=seed,
                            test_share=test_share)


_RELATIONS = {"<": "left of", ">": "right of", "^": "above", "_": "below"}


def positions(*, rows: int = 2, columns: int = 2, size: int = 24, shapes: Sequence[int] = (3, 5),
              split: str = "train", count: int = 200, seed: int = 0, test_share: float = 0.5
              ) -> tasks_lib.TaskSet:
  """"####r<b:" -> "y": is the red shape left of the blue one? The tiles lie in their order.

  A colour is its first letter; "<" left of, ">" right of, "^" above, "_" below. Yes and no are
  equally likely.
  """
  def draw(draws):
    made = picture(draws, size, shapes)
    if made is None:
      return None
    a, b = (made[1][k] for k in draws.permutation(len(made[1]))[:2])
    sign = "".join(_RELATIONS)[draws.integers(len(_RELATIONS))]
    said = "y" if images.related(a, b, _RELATIONS[sign]) else "n"
    question = f"{a.color[0]}{sign}{b.color[0]}:"
    return made[0].tobytes().hex(), Task(
        id="", prompt=PICTURE * (rows * columns) + question, answer=said, demo=said,
        media=tuple(images.cut(made[0], rows, columns)), verifier="rljax.rewards.verify:exact")

  return tasks_lib.generate("positions", draw, split=split, size=count, seed=seed,
                            test_share=test_share)
