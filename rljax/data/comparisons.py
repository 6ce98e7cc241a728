"""Prompts with better and worse responses that were given, not sampled: preference data sets."""

import os

from rljax import config
from rljax.data import datasets, tasks
from rljax.types import Task

MARK = "\n\nAssistant:"  # what the last response of an hh-rlhf transcript stands behind


def comparisons(*, path: str = "", instead: str = "", prompt_field: str = "prompt",
                chosen_field: str = "chosen", rejected_field: str = "rejected",
                category_field: str = "category", id_field: str = "id", split: str = "all",
                test_share: float = 0.1, limit: int | None = None, on_bad_row: str = "error",
                fmt: str | None = None) -> tasks.TaskSet:
  """One task per row; its responses are `info["chosen"]` and `info["rejected"]`, lists of text.

  A row holds one of three forms. Transcripts (hh-rlhf): `chosen` and `rejected` are whole dialogues
  that agree up to the last "\\n\\nAssistant:" they share. With a prompt: `prompt` is text and the
  others are responses, or lists of them (RewardBench 2: one chosen, three rejected). Messages
  (UltraFeedback): `chosen` and `rejected` are lists of {"role", "content"} which end with the
  assistant's and agree before.

  Args:
    path: anything `datasets.rows` reads.
    instead: another file, taken whole in its place; "" = none.
    prompt_field, chosen_field, rejected_field: where a row has them.
    category_field: names a row's category, for tables; "" or absent = none.
    id_field: kept as info["id"]; RewardBench 2's "ref:7" and "tied:7" are two forms of question 7.
    split: "train" or "test": a prompt belongs to one by its hash, so that no prompt is in both;
      "all" = every row.
    test_share: of the prompts.
    limit: keep the first `limit` rows of the split.
    on_bad_row: "error", or "skip" to leave bad rows out and count them.

  Raises:
    ConfigError: as `datasets.rows`; a row without responses, with an empty one, with one that is
      both chosen and rejected, or whose transcripts share no prompt: file and line are named.
  """
  if split != "all":
    tasks.check_split("comparisons", split, test_share)
  found = datasets.rows(instead or path, on_bad_row=on_bad_row, fmt=fmt)

  def make(row):
    chosen, rejected = (datasets.field(row, f) for f in (chosen_field, rejected_field))
    prompt, chosen, rejected = _parts(row.get(prompt_field), chosen, rejected)
    if not all(text.strip() for text in (*chosen, *rejected)) or not chosen or not rejected:
      raise datasets.BadRow("has an empty response")
    if set(chosen) & set(rejected):
      raise datasets.BadRow("has a response that is both chosen and rejected")
    info = {"chosen": chosen, "rejected": rejected}
    for name, field in (("category", category_field), ("id", id_field)):
      if field and row.get(field) is not None:
        info[name] = str(row[field])
    return Task(id="", prompt=prompt, info=info)

  made = datasets.from_rows("comparisons", found, make, on_bad_row=on_bad_row)
  if not instead and split != "all":
    kept = [t for t in made if tasks.split_of(str(t.prompt), test_share) == split]
    if not kept:
      raise config.ConfigError(f"{found.path}: none of its {len(made)} prompts falls into the "
                               f"split {split!r} with test_share={test_share:g}")
    made = tasks.TaskSet(kept, counts=made.counts)
  return made[:limit] if limit else made


def _parts(prompt, chosen, rejected) -> tuple[str | list, list[str], list[str]]:
  """(prompt, chosen responses, rejected responses) of a row in any of the forms."""
  if _messages(chosen) and _messages(rejected):
    if chosen[:-1] != rejected[:-1] or len(chosen) < 2:
      raise datasets.BadRow("has dialogues that differ before the last message")
    return chosen[:-1], [str(chosen[-1]["content"])], [str(rejected[-1]["content"])]
  responses = [x if isinstance(x, list) else [x] for x in (chosen, rejected)]
  if not all(isinstance(text, str) for side in responses for text in side):
    raise datasets.BadRow("has a response that is not text")
  if prompt is not None:
    return prompt, *responses
  texts = [text for side in responses for text in side]
  at = os.path.commonprefix(texts).rfind(MARK) + len(MARK)
  if at < len(MARK):
    raise datasets.BadRow(f"has no prompt, and its dialogues share nothing up to {MARK!r}")
  return texts[0][:at], *([text[at:] for text in side] for side in responses)


def _messages(x) -> bool:
  return isinstance(x, list) and bool(x) and all(isinstance(m, dict) and "content" in m for m in x)
