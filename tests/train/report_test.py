import html.parser
import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.data import images
from rljax.train import report, report_data, runlog

METRICS = (
    "loss/total", "reward/mean", "reward/format", "reward/std", "episode/length",
    "episode/truncated", "policy/entropy", "kl/ref", "mismatch/kl", "grad/norm", "update/skipped",
    "faults/timeout", "time/step", "time/sample", "time/tokens_per_second", "novelty/of_mine",
    "solver/grad/norm", "plain")


def _episode(response, *, reward=1.0, phase=None, turns=None):
  task = types.Task("t/1", "2+2=", answer=4)
  turns = turns or (types.Turn("user", np.zeros(4, np.int32), text="2+2="),
                    types.Turn("assistant", np.zeros(3, np.int32), text=response))
  return types.Episode(task, turns, scores={"reward": reward},
                       info={"phase": phase} if phase else {})


def _fill(workdir, *, steps=30, episodes=lambda step: [_episode("4"), _episode("5", reward=0.0)]):
  runlog.open_workdir(workdir, {"name": "<my run>", "steps": steps}, "abc123", topology={"n": 1})
  with runlog.RunLog(workdir, tensorboard=False) as log:
    for step in range(steps):
      log.metrics(step, {name: float(step % 7 + i) for i, name in enumerate(METRICS)})
      log.episodes(step, episodes(step))
    log.result({"status": "done", "steps": steps, "seconds": 75.0, "tokens_per_second": 1234.5,
                "eval": {"before": {"add/pass_at_1": 0.125}, "after": {"add/pass_at_1": 0.875}}})
  (workdir / "preflight.json").write_text(json.dumps({"warnings": ["too <long>"]}))
  return workdir


class Page(html.parser.HTMLParser):
  """What a browser would see: text outside scripts, the data block, tags with attributes."""

  def __init__(self, path):
    super().__init__()
    self.source = path.read_text()
    self.tags, self.text, self._in, scripts = [], "", [], []
    self._scripts = scripts
    self.feed(self.source)
    self.data = json.loads(scripts[0], parse_constant=pytest.fail)
    self.text = " ".join(self.text.split())

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    self._in.append(tag)
    if tag == "script":
      self._scripts.append("")

  def handle_endtag(self, tag):
    while self._in and self._in.pop() != tag:
      pass

  def handle_data(self, data):
    if self._in and self._in[-1] == "script":
      self._scripts[-1] += data
    elif not self._in or self._in[-1] != "style":
      self.text += " " + data


def _page(workdir):
  return Page(report.write_report(workdir))


def _sample_texts(page):
  return [t[1] for e in page.data["samples"] for s in e["samples"] for t in s["texts"]]


def test_summary_says_what_the_folder_says(tmp_path):
  page = _page(_fill(tmp_path))
  assert "<my run>" in page.text and "abc123" in page.text
  assert "add/pass_at_1 0.125 0.875 +0.75" in page.text
  assert "status done" in page.text and "steps 30" in page.text
  assert "time 1 min 15 s" in page.text and "tokens / s 1,234" in page.text
  skipped = sum(s % 7 + METRICS.index("update/skipped") for s in range(30))
  assert f"skipped updates {skipped}" in page.text
  faults = sum(s % 7 + METRICS.index("faults/timeout") for s in range(30))
  assert f"timeout {faults}" in page.text
  assert "too <long>" in page.text and '"name": "<my run>"' in page.text


def test_counts_of_the_result_win(tmp_path):
  _fill(tmp_path)
  with runlog.RunLog(tmp_path, resume_step=30, tensorboard=False) as log:
    log.result({"status": "done", "skipped_updates": 3, "faults": {"judge": 5}})
  page = _page(tmp_path)
  assert "skipped updates 3 faults 5" in page.text and "judge 5" in page.text


def test_every_metric_has_one_curve_in_its_group(tmp_path):
  page = _page(_fill(tmp_path))
  found = {}
  for group in page.data["groups"]:
    for chart in group["charts"]:
      for series in chart["series"]:
        assert series["name"] not in found
        found[series["name"]] = group["title"]
        i = METRICS.index(series["name"])
        assert series["x"] == list(range(30)) and series["y"] == [s % 7 + i for s in range(30)]
  assert set(found) == set(METRICS)
  assert found["novelty/of_mine"] == found["plain"] == "Other"
  assert found["solver/grad/norm"] == found["grad/norm"] == "Loss, gradient and update"
  assert found["kl/ref"] == "KL" and found["policy/entropy"] == "Entropy"


def test_page_asks_the_network_for_nothing(tmp_path):
  page = _page(_fill(tmp_path))
  for tag, attrs in page.tags:
    assert tag not in ("link", "img", "iframe") and "src" not in attrs
    assert attrs.get("href", "#").startswith("#")
  source = page.source.replace("http://www.w3.org/2000/svg", "")
  assert not any(s in source for s in ("http://", "https://", "@import", "url(", "fetch("))


EVIL = "</script><script>alert(1)</script><!--<script> &lt; \u2028 \U0001f600 \\u003c"


def test_nothing_an_episode_says_becomes_markup(tmp_path):
  page = _page(_fill(tmp_path, steps=2, episodes=lambda step: [_episode(EVIL)]))
  assert [tag for tag, _ in page.tags].count("script") == 2
  assert EVIL in _sample_texts(page)
  assert "alert(1)" not in page.text
  block = page.source.split("id=data>")[1].split("</script>")[0]
  assert "<" not in block and "alert(1)" in block  # "<!--<script" too would change the parsing


def test_empty_folder_is_a_page_with_notes(tmp_path):
  page = _page(tmp_path)
  for note in ("no config.json", "no result.json", "No metrics", "No episodes", "No evaluation"):
    assert note in page.text
  assert page.data == {"groups": [], "samples": []}
  with pytest.raises(config_lib.ConfigError, match="no run folder"):
    report.write_report(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "result.json", "preflight.json",
                                  "episodes/000000.jsonl.gz"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\x00", b"null", b"3"])
def test_a_missing_or_damaged_piece_leaves_the_rest(tmp_path, name, content):
  _fill(tmp_path, steps=3)
  (tmp_path / name).unlink()
  if content is not None:
    (tmp_path / name).write_bytes(content)
  page = _page(tmp_path)
  assert bool(page.data["groups"]) == (name != "metrics.jsonl")
  assert bool(page.data["samples"]) == (not name.startswith("episodes"))
  assert ("abc123" in page.text) == (name != "config.json")
  if content in (None, b"{") and name in ("config.json", "result.json"):
    assert ("There is no" if content is None else "cannot be read") in page.text


def test_torn_ends_are_left_out(tmp_path):
  _fill(tmp_path, steps=3)
  with open(tmp_path / "metrics.jsonl", "a") as f:
    f.write('{"step": 3, "reward/me')
  path = runlog.episode_files(tmp_path)[0]
  path.write_bytes(path.read_bytes()[:-5])
  page = _page(tmp_path)
  assert page.data["groups"][0]["charts"][0]["series"][0]["x"] == [0, 1, 2]
  assert [e["step"] for e in page.data["samples"]] == [0, 1]


def test_non_finite_values_are_gaps_and_counted(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step, value in enumerate([1.0, math.nan, 2.0, math.inf]):
      log.metrics(step, {"loss/total": value, "bad": math.nan})
  page = _page(tmp_path)
  loss, bad = (g["charts"][0] for g in page.data["groups"])
  assert loss["series"][0]["y"] == [1.0, None, 2.0, None] and loss["bad"] == 2
  assert bad["series"][0]["y"] == [None] * 4


def test_a_run_that_goes_on_shows_its_evaluations_so_far(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step, value in enumerate([0.25, 0.5, 0.75]):
      log.metrics(step, {"eval/add/pass_at_1": value})
  assert "add/pass_at_1 0.25 0.75 +0.5" in _page(tmp_path).text


def test_samples_have_phases_verdicts_and_turns(tmp_path):
  chat = tuple(types.Turn(role, np.zeros(2, np.int32), text=text) for role, text in (
      ("user", "q"), ("assistant", "call"), ("tool", "42"), ("assistant", "so 42")))
  def episodes(step):
    return [_episode("a"), _episode("b", reward=0.0), _episode("c", reward=math.nan),
            _episode("", turns=chat)]
  _fill(tmp_path, steps=2, episodes=episodes)
  with runlog.RunLog(tmp_path, resume_step=2, tensorboard=False) as log:
    log.episodes(2, [_episode("e", phase="eval/add")])
  samples = _page(tmp_path).data["samples"]
  assert [(e["phase"], e["step"], e["logged"]) for e in samples] == [
      ("eval/add", 2, 1), ("train", 0, 4), ("train", 1, 4)]
  assert [s["ok"] for s in samples[1]["samples"]] == [True, False, None, True]
  assert samples[1]["samples"][0]["answer"] == "4"
  assert [t[1:] for t in samples[1]["samples"][0]["texts"]] == [["2+2=", 0], ["a", 1]]
  assert [t[1:] for t in samples[1]["samples"][3]["texts"]] == [
      ["q", 0], ["call", 1], ["42", 0], ["so 42", 1]]


def test_samples_are_capped_and_hold_the_first_and_last_step(tmp_path):
  text = "\u4e2d<" * 8_000
  with runlog.RunLog(tmp_path, max_bytes=200_000, tensorboard=False) as log:
    for step in range(60):
      log.episodes(step, [_episode(f"{step} {text}") for _ in range(10)])
  assert len(runlog.episode_files(tmp_path)) > 10
  page = _page(tmp_path)
  steps = [e["step"] for e in page.data["samples"]]
  assert steps[0] == 0 and steps[-1] == 59 and 4 < len(steps) <= 32
  assert 300_000 < len(page.source) < 2_000_000
  assert all("characters left out" in t for t in _sample_texts(page) if t != "2+2=")
  assert all(e["logged"] == 10 for e in page.data["samples"])


def test_of_many_steps_some_are_shown(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step in range(200):
      log.episodes(step, [_episode("4", phase="eval/x" if step % 2 else None)])
  found = {}
  for entry in _page(tmp_path).data["samples"]:
    found.setdefault(entry["phase"], []).append(entry["step"])
  assert {k: (v[0], v[-1], len(v)) for k, v in found.items()} == {
      "train": (0, 198, 16), "eval/x": (1, 199, 16)}


def test_a_long_run_makes_a_small_page_that_keeps_its_spikes(tmp_path):
  names = [f"g{i % 4}/{i}" for i in range(15)]
  with open(tmp_path / "metrics.jsonl", "w") as f:
    for step in range(20_000):
      values = {n: 0.123456789 * step + i for i, n in enumerate(names)}
      f.write(json.dumps({"step": step, **values, "spike": 1000.0 * (step == 12_345)}) + "\n")
  began = time.perf_counter()
  page = _page(tmp_path)
  assert time.perf_counter() - began < 8
  assert len(page.source) < 2_000_000
  series = {s["name"]: s for g in page.data["groups"] for c in g["charts"] for s in c["series"]}
  assert max(series["spike"]["y"]) == 1000
  assert series["spike"]["x"][series["spike"]["y"].index(1000)] == 12_345
  for s in series.values():
    assert s["x"][0] == 0 and s["x"][-1] == 19_999 and 300 < len(s["x"]) <= 600


def test_buckets_and_moving_mean_against_loops():
  y = np.random.default_rng(0).normal(size=1000)
  y[[3, 500]] = np.nan
  keep = report_data.buckets(y, 50)
  assert len(keep) <= 50 and list(keep) == sorted(set(keep))
  assert np.nanmin(y) in y[keep] and np.nanmax(y) in y[keep]
  smooth = report_data.moving_mean(y, 9)
  want = [np.nanmean(y[max(0, i - 4):i + 5]) for i in range(1000)]
  np.testing.assert_allclose(smooth, want, rtol=1e-9, atol=1e-12)
  assert np.isnan(report_data.moving_mean(np.full(30, np.nan), 3)).all()


def test_report_needs_no_jax():
  code = "import sys; from rljax.train import report; assert 'jax' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)


def test_cells_of_tables_are_tables_and_no_curves(tmp_path):
  cells = {"accuracy": 0.75, "by_category/maths <1>/accuracy": 0.5,
           "by_category/maths <1>/prompts": 4.0, "by_category/facts/accuracy": 1.0}
  runlog.open_workdir(tmp_path, {"name": "rm"}, "abc", topology={"n": 1})
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.metrics(0, {f"eval/test/{k}": v for k, v in cells.items()})
    log.result({"status": "done", "eval": {"before": {}, "after": cells}})
  page = Page(report.write_report(tmp_path))
  assert "by category accuracy prompts maths <1> 0.5 4 facts 1 –" in page.text
  names = [c["name"] for g in page.data["groups"] for c in g["charts"]]
  assert names == ["eval/test/accuracy"]
  plain, tables = report_data.tables({f"eval/x/{k}": v for k, v in cells.items()})
  assert plain == {"eval/x/accuracy": 0.75}
  assert tables["eval/x by category"]["facts"] == {"accuracy": 1.0}


def test_pictures_are_shown_and_no_markup(tmp_path):
  image = images.gradient(np.random.default_rng(0), 6, 6)
  def seen(media):
    turns = (types.Turn("user", np.zeros(4, np.int32), text="#", media=media),
             types.Turn("assistant", np.zeros(3, np.int32), text="x"))
    return _episode("", turns=turns)
  _fill(tmp_path, steps=1, episodes=lambda step: [seen((image,) * 20)] * 8 + [_episode("4")])
  page = _page(tmp_path)
  found = page.data["samples"][0]["samples"]
  assert [len(s["media"]) for s in found] == [report_data.MEDIA] * 8 + [0]
  assert set(found[0]["media"]) == {images.png(image)}
  assert "data:image/png;base64," in page.source
  path, = runlog.episode_files(tmp_path)
  record = next(runlog.read_episodes(path))
  assert record["media"] == [images.png(image)] * 20
  one = len(images.png(image)) * 20
  assert path.stat().st_size < one  # of eight episodes: gzip keeps one copy
  for odd in (7, [7, None], ["x" * (report_data.MEDIA_BYTES + 1)]):
    assert report_data._media({"media": odd}) == []
