"""Given responses: three forms of rows, one sentence for a bad one, no prompt in two splits."""

import json

import numpy as np
import pytest

from rljax import config, types
from rljax.data import comparisons, text
from rljax.rollouts import dataset

FIXTURE = "tests/data/fixtures/comparisons.jsonl"
GOOD = {"prompt": "q?", "chosen": "yes", "rejected": "no"}


def write(folder, *rows):
  path = folder / "pairs.jsonl"
  path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
  return str(path)


def test_transcripts_are_cut_at_the_last_mark_they_share():
  ts = comparisons.comparisons(path=FIXTURE)
  assert len(ts) == 12 and ts[0].prompt == "\n\nHuman: Where is the Nile?\n\nAssistant:"
  assert ts[0].info == {"chosen": [" In Africa."], "rejected": [" In a bottle."],
                        "category": "facts"}
  assert ts[1].prompt.count("Assistant:") == 2 and ts[1].info["chosen"] == [" Hello!"]


def test_a_mark_inside_one_response_is_not_shared(tmp_path):
  a = "\n\nHuman: q\n\nAssistant: x\n\nHuman: r\n\nAssistant: y"
  b = "\n\nHuman: q\n\nAssistant: z"
  task, = comparisons.comparisons(path=write(tmp_path, {"chosen": a, "rejected": b}))
  assert task.prompt == "\n\nHuman: q\n\nAssistant:"
  assert task.info["chosen"] == [" x\n\nHuman: r\n\nAssistant: y"]


def test_rows_with_a_prompt_lists_and_messages(tmp_path):
  ask = {"role": "user", "content": "q?"}
  say = lambda x: [ask, {"role": "assistant", "content": x}]
  ts = comparisons.comparisons(path=write(
      tmp_path, GOOD, {**GOOD, "chosen": ["yes"], "rejected": ["a", "b", "c"], "subset": "Math"},
      {"chosen": say("yes"), "rejected": say("no")}), category_field="subset")
  assert [t.info["rejected"] for t in ts] == [["no"], ["a", "b", "c"], ["no"]]
  assert ts[1].info["category"] == "Math" and "category" not in ts[0].info
  assert ts[2].prompt == [ask] and ts[0].prompt == "q?"


@pytest.mark.parametrize("bad, said", [
    ("{broken", "not JSON"), ({"chosen": "a"}, "has no field 'rejected'"),
    ({**GOOD, "rejected": "yes"}, "both chosen and rejected"),
    ({**GOOD, "rejected": " "}, "empty response"), ({**GOOD, "rejected": []}, "empty response"),
    ({**GOOD, "chosen": 3}, "not text"), ({"chosen": "a", "rejected": "b"}, "share nothing up to"),
    ({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
      "rejected": [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]},
     "differ before the last message")])
def test_a_bad_line_is_named_or_counted(tmp_path, bad, said):
  path = write(tmp_path, GOOD, bad)
  with pytest.raises(config.ConfigError, match=f"pairs.jsonl, line 2.*{said}"):
    comparisons.comparisons(path=path)
  kept = comparisons.comparisons(path=path, on_bad_row="skip")
  assert len(kept) == 1 and kept.counts == {"skipped": 1}


def test_splits_share_no_prompt_and_make_the_whole(tmp_path):
  rows = [{**GOOD, "prompt": f"q{i // 2}", "chosen": f"yes{i}"} for i in range(200)]
  path = write(tmp_path, *rows)
  train, test = (comparisons.comparisons(path=path, split=s, test_share=0.2)
                 for s in ("train", "test"))
  assert len(train) + len(test) == 200 and 20 <= len(test) <= 60
  assert not {t.prompt for t in train} & {t.prompt for t in test}
  assert len(comparisons.comparisons(path="missing", instead=path, split="test")) == 200
  assert len(comparisons.comparisons(path=path, limit=3)) == 3
  with pytest.raises(config.ConfigError, match="none of its 1 prompts falls into the split 'test'"):
    comparisons.comparisons(path=write(tmp_path, GOOD), split="test", test_share=0.01)
  with pytest.raises(ValueError, match="split must be"):
    comparisons.comparisons(path=path, split="dev")
  with pytest.raises(config.ConfigError, match="no data: say where it is"):
    comparisons.comparisons()


class Sampler:
  tokenizer, limits = text.byte(), {"response": 6}


def rollout(tasks, **kwargs):
  return dataset.responses({"reward_model": Sampler}, tasks, None, **kwargs)


def test_responses_become_adjacent_episodes():
  task = types.Task("t", "q?", info={"chosen": ["yes"], "rejected": ["no", "never", "what else"]})
  a, b = rollout([task])
  assert [e.info["source"] for e in (a, b)] == ["chosen", "rejected"] and a.group == b.group == 0
  np.testing.assert_array_equal(a.turns[1].tokens, [*b"yes", 256])
  assert [e.info["columns"]["label"] for e in (a, b)] == [1.0, 0.0]
  assert a.status == types.STOP and a.turns[1].logp is None
  every = rollout([task, task], group_size=0)
  assert [e.group for e in every] == [0] * 4 + [1] * 4
  assert [e.status for e in every[:4]] == [types.STOP] * 3 + [types.ERROR]
  assert "10 tokens, limits.response is 6" in every[3].info["error"] and every[3].num_actions == 6
  with pytest.raises(config.ConfigError, match="wanted one and 4"):
    rollout([task], group_size=5)
  with pytest.raises(config.ConfigError, match="0 chosen"):
    rollout([types.Task("u", "q?")])
