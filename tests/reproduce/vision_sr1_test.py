"""Vision-SR1's testbed: the prior, what descriptions leave out, and one scene in one split."""

import functools

import numpy as np

from rljax import config as config_lib
from rljax.data import planted
from rljax.rewards import verify
from rljax.types import Episode, Turn

sr1 = config_lib.load_file("experiments/vision-sr1.py")
CONFIG = config_lib.load_file("configs/papers/vision-sr1.py")


def described(task):
  return task.demo[1:task.demo.index("]")]


def test_the_answer_is_what_the_image_shows():
  for task in sr1.scenes(count=60):
    shown = described(task)
    objects = {shown[i + 2]: (int(shown[i]) - 1, shown[i + 1]) for i in range(0, len(shown), 3)}
    assert len(objects) == 3 and task.prompt == "#" + task.info["question"]
    column, color = objects[task.info["question"][0]]
    assert color == task.answer == task.demo[-1]
    image, = task.media
    name = next(c for c in sr1.COLORS if c[0] == color)
    assert tuple(image[12, 8 * column + 3]) == sr1.images.COLORS[name]  # its middle
    assert verify.task_verifier([Episode(task, (Turn("assistant", np.arange(1), text=task.demo),))],
                                None) == [1.0]


def test_red_is_the_prior_of_training_and_a_quarter_of_the_test():
  share = lambda **knobs: np.mean([t.answer == "r" for t in sr1.scenes(count=600, **knobs)])
  assert 0.65 < share(prior=0.7) < 0.75 and 0.2 < share(split="test") < 0.3


def test_some_descriptions_leave_the_asked_shape_out():
  some = list(sr1.scenes(count=500, omit=0.4))
  without = [t.info["question"][0] not in described(t) for t in some]
  assert 0.34 < np.mean(without) < 0.46
  assert {len(described(t)) for t in some} == {6, 9}
  assert all(not t.media and t.prompt[0] == "[" and t.demo == f"({t.info['question'][0]})="
             f"{t.answer}" for t in sr1.scenes(count=20, blind=True))


def test_no_scene_is_in_both_splits():
  train = {described(t) for t in sr1.scenes(count=1500)}
  assert not train & {described(t) for t in sr1.scenes(count=300, split="test", seed=4)}


def test_what_the_config_reads_of_a_demonstration():
  from rljax.rewards import reader
  task = sr1.scenes()[0]
  assert reader.parts(task.demo, CONFIG.FORM) == (described(task), task.answer)
  c = CONFIG.get_config()
  tokenizer = config_lib.bind(c.tokenizer)()
  whole = sr1.scenes(blind=True)[0]
  assert len(tokenizer.render(task.prompt)) == c.limits.prompt
  assert len(tokenizer.response(task.demo)) == c.limits.response
  assert len(tokenizer.render(whole.prompt)) == CONFIG.READ["longest"]
  assert len(tokenizer.response(whole.demo)) == CONFIG.READ["max_tokens"]
  mixed = planted.mixture(parts=[functools.partial(sr1.scenes, count=5),
                                 functools.partial(sr1.scenes, blind=True)], weights=(1, 1))
  assert {bool(t.media) for t in mixed[:40]} == {True, False}
