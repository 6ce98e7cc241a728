"""Two views per row, adjacent, with one answer; a missing rewrite is told."""

import json

import pytest

from rljax import config as config_lib
from rljax.data import rewritten


def file(tmp_path, rows):
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps(r) + "\n" for r in rows))
  return str(path)


GOOD = {"question": "2 and 3 apples?", "rewrite": "Sum of 2, 3?", "answer": "so 5\n#### 5"}


def test_rows_become_adjacent_views(tmp_path):
  a, b = rewritten.rewritten(path=file(tmp_path, [GOOD]), template="Q: {question}", chat=False)
  assert (a.prompt, b.prompt) == ("Q: 2 and 3 apples?", "Q: Sum of 2, 3?")
  assert a.answer == b.answer == "5" and a.id != b.id
  assert a.info == {"pair": a.info["pair"], "view": 0} and b.info == {**a.info, "view": 1}
  chat = rewritten.rewritten(path=file(tmp_path, [GOOD]))
  assert chat[1].prompt == [{"role": "user", "content": "Sum of 2, 3?"}]


def test_bad_rows(tmp_path):
  for bad in ({**GOOD, "rewrite": ""}, {**GOOD, "answer": "five"}):
    with pytest.raises(config_lib.ConfigError, match="line 2"):
      rewritten.rewritten(path=file(tmp_path, [GOOD, bad]))
    kept = rewritten.rewritten(path=file(tmp_path, [GOOD, bad]), on_bad_row="skip")
    assert len(kept) == 2 and kept.counts == {"skipped": 1}
