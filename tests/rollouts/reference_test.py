"""The reference replaces the policy's own answer, token for token."""

import types as pytypes

import numpy as np

from rljax import types
from rljax.data import collate, text
from rljax.rollouts import reference

TOKENIZER = text.char(alphabet="0123456789# ")


class Sampler:
  tokenizer = TOKENIZER

  def __init__(self, said):
    self.said, self.settings = said, None

  def generate(self, prompts, seeds, key, **settings):
    self.settings = settings
    out = []
    for text_ in self.said:
      tokens = TOKENIZER.encode(text_)
      out.append(pytypes.SimpleNamespace(tokens=tokens, logp=-np.arange(len(tokens), dtype=float)))
    return out


def test_everything_behind_the_tag_is_replaced_and_counted():
  sampler = Sampler(["5 #77", "5 7"])
  task = types.Task(id="a", prompt="3 4", answer="12")
  done, cut = reference.spliced({"policy": sampler}, [task], None, group_size=2, reasoning=9)
  assert sampler.settings["max_tokens"] == 9
  assert done.response == "5 #12" and done.status == types.STOP
  assert done.info["columns"] == {"reference": 3}  # "12" and the end token
  np.testing.assert_array_equal(done.turns[1].logp, [0, -1, -2])
  assert done.turns[2].logp is None and done.turns[2].tokens[-1] == TOKENIZER.eos_id
  assert cut.response == "5 7" and cut.status == types.LENGTH
  assert cut.info["columns"] == {"reference": 0}
  batch = collate.collate([done, cut], shapes=collate.Shapes(2, 12, 9))
  np.testing.assert_array_equal(batch.mask_BT.sum(1), [6, 3])
  np.testing.assert_array_equal(batch.extras["reference"], [3, 0])
