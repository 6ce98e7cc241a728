"""Vision-SR1's testbed: three shapes side by side, and questions whose answer is mostly red."""

import dataclasses

from rljax.data import images, tasks
from rljax.rewards import reader, verify
from rljax.types import Task

COLORS = ("red", "green", "blue", "yellow")
COUNT = 3


@verify.bounded
def right(task: Task, text: str) -> float:
  """Verifier: the letter behind the last "=" is the answer."""
  return float(reader.answer_of(text, "=") == task.answer)


def described(objects, leave_out: int = -1) -> str:
  """"1rs2bd3gt": column, colour and shape of each, by first letters."""
  return "".join(f"{i + 1}{o.color[0]}{o.shape[0]}" for i, o in enumerate(objects)
                 if i != leave_out)


def scenes(*, prior: float = 0.25, omit: float = 0.0, size: int = 24, blind: bool = False,
           split: str = "train", count: int = 20000, seed: int = 0, test_share: float = 0.3
           ) -> tasks.TaskSet:
  """"#s:" with an image -> "[1rs2bd3gt](s)=r": what colour is the square?

  Args:
    prior: how often the asked shape is red; the other colours share the rest. 0.25: balanced.
    omit: share of the demos whose description leaves the asked shape out.
    blind: the reader's task instead: "[1rs2bd3gt]s:" without an image -> "(s)=r".
  """
  def draw(draws):
    shapes = [images.SHAPES[k] for k in draws.permutation(len(images.SHAPES))[:COUNT]]
    kinds = [(s, COLORS[draws.integers(len(COLORS))]) for s in shapes]
    asked = int(draws.integers(COUNT))
    red = draws.random() < prior
    color = "red" if red else COLORS[draws.integers(1, len(COLORS))]
    kinds[asked] = (shapes[asked], color)
    objects = images.columns(kinds, size, size)
    question, answer = f"{shapes[asked][0]}:", color[0]
    shown = described(objects, asked if draws.random() < omit else -1)
    thought = f"({shapes[asked][0]})={answer}"
    key = described(objects)  # one scene, one split, whatever is asked
    made = Task(id="", prompt="#" + question, answer=answer, demo=f"[{shown}]{thought}",
                info={"question": question}, verifier="experiments/vision-sr1.py:right")
    if blind:
      return key, dataclasses.replace(made, prompt=f"[{shown}]{question}", demo=thought)
    image = images.gradient(draws, size, size)
    for thing in objects:
      images.draw(image, thing)
    return key, dataclasses.replace(made, media=(image,))

  return tasks.generate("scenes", draw, split=split, size=count, seed=seed,
                        test_share=test_share)
