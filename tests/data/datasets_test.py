"""Readers: every format gives the same rows, every kind of damage one clear sentence."""

import gzip
import json
import logging
import pathlib
import shutil
import sys

import datasets as hf
import pyarrow
import pytest
from pyarrow import parquet

from rljax import config
from rljax.data import arithmetic, datasets, gsm8k, tasks
from rljax.rewards import verify

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
PROBLEMS = str(FIXTURES / "word_problems.jsonl")
ROWS = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+3=", "answer": "5"}]


def write(path, text, opener=open):
  with opener(path, "wb") as f:
    f.write(text if isinstance(text, bytes) else text.encode())
  return str(path)


def lines(rows):
  return "".join(json.dumps(r) + "\n" for r in rows)


@pytest.fixture
def tfds_folder(tmp_path):
  shutil.unpack_archive(FIXTURES / "tiny_tfds.zip", tmp_path / "tiny")
  return str(tmp_path / "tiny")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_text_formats(tmp_path, name):
  text = lines(ROWS) if "jsonl" in name else json.dumps(ROWS)
  found = datasets.rows(
      write(tmp_path / name, text, gzip.open if name.endswith("gz") else open))
  assert list(found) == ROWS and found.skipped == 0 and found.numbers == [1, 2]


def test_parquet(tmp_path):
  path = str(tmp_path / "a.parquet")
  parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
  assert list(datasets.rows(path)) == ROWS


def test_hugging_face_folders(tmp_path):
  one, several = str(tmp_path / "one"), str(tmp_path / "several")
  data = hf.Dataset.from_list(ROWS)
  data.save_to_disk(one)
  hf.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(several)
  assert list(datasets.rows(one)) == ROWS
  assert list(datasets.rows(several, split="test")) == ROWS[1:]
  with pytest.raises(config.ConfigError, match="several splits.*it has: train, test"):
    datasets.rows(several)
  with pytest.raises(config.ConfigError, match="no split 'dev' .it has: train, test"):
    datasets.rows(several, split="dev")


def test_prepared_tfds_without_tensorflow(tfds_folder):
  found = datasets.rows(tfds_folder, split="train")
  assert found[2] == {"question": "Was ist 6·7?", "answer": "42", "level": 2}
  ts = datasets.records(path=tfds_folder, split="test", prompt_field="question")
  assert [t.answer for t in ts] == ["18", "4"]
  assert "tensorflow" not in sys.modules
  with pytest.raises(config.ConfigError, match="no split 'dev'"):
    datasets.rows(tfds_folder, split="dev")


def test_tfds_fixture_can_be_made_again(tmp_path, tfds_folder):
  from tests.data.fixtures import make_tfds
  make_tfds.main(str(tmp_path / "again"))
  assert datasets.rows(str(tmp_path / "again"), split="test") == datasets.rows(
      tfds_folder, split="test")


def test_damaged_tfds(tfds_folder):
  for path in pathlib.Path(tfds_folder).glob("*train*"):
    path.unlink()
  with pytest.raises(config.ConfigError, match="tiny, split 'train' cannot be read"):
    datasets.rows(tfds_folder, split="train")


def test_no_path_says_which_key():
  for make in (datasets.records, gsm8k.gsm8k, gsm8k.gsm8k_calc):
    with pytest.raises(config.ConfigError, match="--config.tasks.path="):
      make()


def test_where_there_is_nothing(tmp_path):
  with pytest.raises(config.ConfigError, match="no file or folder .*missing.jsonl"):
    datasets.rows(str(tmp_path / "missing.jsonl"))
  with pytest.raises(config.ConfigError, match="has no rows"):
    datasets.rows(write(tmp_path / "empty.jsonl", "\n\n"))
  with pytest.raises(config.ConfigError, match="neither a folder of"):
    datasets.rows(str(tmp_path))
  with pytest.raises(config.ConfigError, match="cannot tell the format"):
    datasets.rows(write(tmp_path / "a.txt", lines(ROWS)))
  assert len(datasets.rows(str(tmp_path / "a.txt"), fmt="jsonl")) == 2
  with pytest.raises(config.ConfigError, match="has no split 'test'"):
    datasets.rows(write(tmp_path / "a.jsonl", lines(ROWS)), split="test")


@pytest.mark.parametrize("bad", [b"{not json", b"[1]", b'{"a": "\xff"}', b"[" * 100_000])
def test_broken_line(tmp_path, bad, caplog):
  text = b"\n".join([lines(ROWS[:1]).encode(), bad, lines(ROWS[1:]).encode()])
  path = write(tmp_path / "a.jsonl", text)
  with pytest.raises(config.ConfigError, match="a.jsonl, line 3: "):
    datasets.rows(path)
  with caplog.at_level(logging.WARNING):
    found = datasets.rows(path, on_bad_row="skip")
  assert list(found) == ROWS and found.skipped == 1 and found.numbers == [1, 4]
  assert "skipped 1 bad rows of 3" in caplog.text
  assert datasets.records(path=path, on_bad_row="skip").counts == {"skipped": 1}


def test_nothing_but_bad_lines(tmp_path):
  with pytest.raises(config.ConfigError, match=r"has no rows \(2 bad ones\)"):
    datasets.rows(write(tmp_path / "a.jsonl", "x\ny\n"), on_bad_row="skip")
  with pytest.raises(config.ConfigError, match="'error' or 'skip'"):
    datasets.rows(PROBLEMS, on_bad_row="ignore")


def test_damaged_files(tmp_path):
  whole = gzip.compress(lines(ROWS * 500).encode())
  for name, content in [("cut.jsonl.gz", whole[:-20]), ("no.jsonl.gz", b"plain"),
                        ("flip.jsonl.gz", whole[:30] + b"\xff\xff\xff" + whole[33:])]:
    with pytest.raises(config.ConfigError, match=f"{name} cannot be read after line"):
      datasets.rows(write(tmp_path / name, content))
  with pytest.raises(config.ConfigError, match="a.parquet is not a readable parquet file"):
    datasets.rows(write(tmp_path / "a.parquet", b"PAR1 but no more"))
  with pytest.raises(config.ConfigError, match="a.json is not JSON"):
    datasets.rows(write(tmp_path / "a.json", "[1,"))
  with pytest.raises(config.ConfigError, match="expected a list"):
    datasets.rows(write(tmp_path / "b.json", "{}"))
  (tmp_path / "hf").mkdir()
  write(tmp_path / "hf" / "state.json", "{")
  with pytest.raises(config.ConfigError, match="hf cannot be loaded by datasets"):
    datasets.rows(str(tmp_path / "hf"))


def test_records(tmp_path):
  path = write(tmp_path / "a.jsonl", lines([{"q": r"{x} \boxed{}", "a": 2, "d": "two"},
                                            {"q": "y", "a": 3, "d": "three"}]))
  ts = datasets.records(path=path, prompt_field="q", answer_field="a", demo_field="d",
                        template="Q: {prompt} {y}", verifier="rljax.rewards.verify:number")
  assert ts[0].prompt == r"Q: {x} \boxed{} {y}" and ts[0].answer == 2 and ts[0].demo == "two"
  assert [t.id for t in ts] == ["records/a/1", "records/a/2"]
  assert len(datasets.records(path=path, prompt_field="q", answer_field="a", limit=1)) == 1
  assert datasets.records(path=path, prompt_field="q", answer_field="")[0].answer is None
  for kwargs, message in [(dict(limit=0), "limit must be"), (dict(template="x"), "lacks {prompt}"),
                          (dict(verifier="rljax.rewards.verify:numbr"), "did you mean 'number'")]:
    with pytest.raises(config.ConfigError, match=message):
      datasets.records(path=path, prompt_field="q", answer_field="a", **kwargs)


def test_records_of_messages(tmp_path):
  chat = [{"role": "user", "content": "hi"}]
  path = write(tmp_path / "a.jsonl", lines([{"prompt": chat, "answer": "x"}]))
  assert datasets.records(path=path)[0].prompt == chat
  with pytest.raises(config.ConfigError, match="template cannot wrap"):
    datasets.records(path=path, template="Q {prompt}")


def test_row_without_the_field(tmp_path):
  path = write(tmp_path / "a.jsonl", lines([ROWS[0], {"prompt": "x", "answer": None}, ROWS[1]]))
  with pytest.raises(config.ConfigError, match="a.jsonl, line 2 has no field 'answer'"):
    datasets.records(path=path)
  ts = datasets.records(path=path, on_bad_row="skip")
  assert [t.id for t in ts] == ["records/a/1", "records/a/3"] and ts.counts["skipped"] == 1
  with pytest.raises(config.ConfigError, match="none of its 3 rows"):
    datasets.records(path=path, prompt_field="question", on_bad_row="skip")


def test_gsm8k():
  ts = gsm8k.gsm8k(path=PROBLEMS, template="Solve: {question}")
  assert [t.answer for t in ts] == ["24", "1875", "3.33", "-3", "43"]
  assert ts[0].prompt[0]["role"] == "user" and ts[0].prompt[0]["content"].startswith("Solve: Ida")
  assert gsm8k.gsm8k(path=PROBLEMS, chat=False)[0].prompt.startswith("Ida")
  assert ts[0].demo == ("The boxes hold 3*4 = 12 pens.\nIda has 12 + 12 = 24 pens.\n#### 24")
  assert all(verify.number(t, t.demo) == 1 for t in ts)
  assert len(gsm8k.gsm8k(path=PROBLEMS, limit=2)) == 2


@pytest.mark.parametrize("answer", ["no mark 7", "#### seven", "#### "])
def test_gsm8k_without_a_final_number(tmp_path, answer):
  path = write(tmp_path / "a.jsonl", lines([{"question": "q", "answer": "#### 1"},
                                            {"question": "q", "answer": answer}]))
  with pytest.raises(config.ConfigError, match="line 2 has no number after '####'"):
    gsm8k.gsm8k(path=path)
  assert gsm8k.gsm8k(path=path, on_bad_row="skip").counts == {"skipped": 1}


def equations(**kwargs):
  both = [gsm8k.gsm8k_calc(path=PROBLEMS, split=s, test_share=0.5, **kwargs)
          for s in ("train", "test")]
  return both, {t.prompt: t.answer for ts in both for t in ts}


def test_gsm8k_calc():
  (train, test), found = equations()
  assert found == {"3*4=": "12", "12+12=": "24", "1250*0.5=": "625", "1250+625=": "1875",
                   "10/3=": "3.33", "2*(10/3)=": "6.67", "5-8=": "-3", "4*3=": "12"}
  assert {t.prompt for t in train}.isdisjoint(t.prompt for t in test)
  for ts, other in ((train, test), (test, train)):
    counts = ts.counts
    assert (counts["unreadable"], counts["wrong"], counts["trivial"]) == (2, 2, 1)
    assert counts["other_split"] >= len(other) > 0
    left_out = sum(counts.get(k, 0) for k in ("duplicate", "other_split"))
    assert counts["annotations"] == len(ts) + left_out + 5 == 14
  assert train.counts["rounded"] + test.counts["rounded"] == 2
  assert len({t.id for t in train}) == len(train)
  assert all(verify.exact(t, t.demo) == 1 for t in train)
  same = {t.prompt for t in train} & {"3*4=", "4*3="}
  assert len(same) in (0, 2), "operand order must not cross the split"


def test_gsm8k_calc_limits(tmp_path):
  _, found = equations(max_chars=6)
  assert "1250*0.5=" not in found and "12+12=" in found
  ts = gsm8k.gsm8k_calc(path=PROBLEMS, test_share=0.0, limit=3, template="<{problem}>")
  assert [t.prompt for t in ts] == ["<3*4>", "<12+12>", "<1250*0.5>"]
  path = write(tmp_path / "a.jsonl", lines([{"question": "q", "answer": "no annotation"}]))
  with pytest.raises(config.ConfigError, match="has no equations for split 'train'"):
    gsm8k.gsm8k_calc(path=path)
  with pytest.raises(ValueError, match="split must be"):
    gsm8k.gsm8k_calc(path=PROBLEMS, split="dev")
  with pytest.raises(config.ConfigError, match="line 1 has no field 'answer'"):
    gsm8k.gsm8k_calc(path=write(tmp_path / "b.jsonl", lines([{"question": "q"}])))


def test_generated_calculations():
  ts = gsm8k.generated_calc(size=300)
  for task in ts:
    left = task.prompt.removesuffix("=")
    assert arithmetic.value(arithmetic.parse(left)) == int(task.answer) >= 0
    assert tasks.split_of(arithmetic.key(arithmetic.parse(left)), 0.2) == "train"
    assert task.demo == task.answer
  assert {op for t in ts for op in "+-*/" if op in t.prompt} == set("+-*/")
  assert any(t.prompt.count("+") == 3 for t in ts)
  other = gsm8k.generated_calc(size=300, split="test")
  assert not {t.prompt for t in ts} & {t.prompt for t in other}


def test_generated_calculations_limits():
  longest = lambda **k: max(len(t.prompt) for t in gsm8k.generated_calc(size=200, **k))
  assert longest(max_chars=5) == 6 < longest(digits=1, max_chars=12) < longest()
  assert gsm8k.generated_calc(template="<{problem}>", size=3)[1].prompt.startswith("<")
  assert gsm8k.generated_calc(seed=1)[0].prompt != gsm8k.generated_calc(seed=2)[0].prompt
  assert gsm8k.generated_calc(test_share=0.0)[0].prompt
  with pytest.raises(ValueError, match="digits must be at least 1"):
    gsm8k.generated_calc(digits=0)


def test_one_split_rule_for_all():
  """An addition problem and the same equation of a text file fall on one side."""
  for text in ("3+4", "4+3", "(3+ 4)", "3.0+4"):
    assert arithmetic.key(arithmetic.parse(text)) == "(3+4)"
  shares = [tasks.split_of(f"({a}+{b})", 0.25) for a in range(60) for b in range(60)]
  assert 0.22 < shares.count("test") / len(shares) < 0.28
