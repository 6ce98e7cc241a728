import gzip
import io
import json
import math
import os
import struct
import subprocess
import sys

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.train import progress, runlog

CONFIG = {"steps": 10, "seed": 0, "log": {"every": 1}, "updates": {"policy": {"lr": 0.1}}}


def _open(workdir, config, **kwargs):
  config = config_lib.ml_collections.ConfigDict(config)
  return runlog.open_workdir(workdir, config_lib.to_dict(config), config_lib.digest(config),
                             topology={"platform": "cpu"}, **kwargs)


def _episode(i, *, prompt="2+2=", response="4", info=None, scores=None, **kwargs):
  task = types.Task(f"t/{i}", prompt, answer="4")
  turns = (types.Turn("user", np.zeros(4, np.int32), text="2+2="),
           types.Turn("assistant", np.zeros(2, np.int32), np.zeros(2, np.float32), response))
  return types.Episode(task, turns, group=i, scores={"reward": 1.0} if scores is None else scores,
                       info=info or {}, **kwargs)


def _files(workdir):
  return {p.name: p.read_bytes() for p in [workdir / "metrics.jsonl",
                                           *runlog.episode_files(workdir)]}


def _steps(workdir):
  return [r["step"] for f in runlog.episode_files(workdir) for r in runlog.read_episodes(f)]


# --- config.json ----------------------------------------------------------------------------------


def test_open_writes_what_the_contract_says(tmp_path):
  record = _open(tmp_path / "a/b", CONFIG)
  stored = json.loads((tmp_path / "a/b/config.json").read_text())
  assert stored == record
  assert stored["config"] == CONFIG
  assert stored["hash"] == config_lib.digest(config_lib.ml_collections.ConfigDict(CONFIG))
  assert set(stored["versions"]) == {"jax", "rljax", "python"} and all(stored["versions"].values())
  assert stored["topology"] == {"platform": "cpu"}
  _open(tmp_path / "a/b", CONFIG)  # the same run again
  assert os.listdir(tmp_path / "a/b") == ["config.json"]  # no temporary file stays


def test_another_config_is_refused_with_its_keys(tmp_path):
  _open(tmp_path, CONFIG)
  before = (tmp_path / "config.json").read_bytes()
  other = {**CONFIG, "steps": 20, "seed": 1, "updates": {"policy": {"lr": 0.2}}}
  with pytest.raises(config_lib.ConfigError) as e:
    _open(tmp_path, other)
  message = str(e.value)
  assert "updates.policy.lr: 0.1 -> 0.2" in message and "seed: 0 -> 1" in message
  assert "steps" not in message and "another workdir" in message
  assert (tmp_path / "config.json").read_bytes() == before


def test_free_keys_may_change(tmp_path):
  _open(tmp_path, CONFIG)
  longer = {**CONFIG, "steps": 20}
  record = _open(tmp_path, longer)
  assert json.loads((tmp_path / "config.json").read_text())["config"]["steps"] == 20
  assert record["hash"] == config_lib.digest(config_lib.ml_collections.ConfigDict(longer))
  quiet = {**longer, "log": {"every": 5}}
  with pytest.raises(config_lib.ConfigError, match="log.every"):
    _open(tmp_path, quiet)
  with pytest.raises(config_lib.ConfigError, match="log.every"):
    _open(tmp_path, quiet, free=("lo", "log.eve"))  # a key is not a prefix of letters
  _open(tmp_path, quiet, free=("log",))


def test_values_that_json_lacks_do_not_look_different(tmp_path):
  odd = {"a": math.nan, "b": math.inf, "c": (1, 2)}
  runlog.open_workdir(tmp_path, {**odd, "steps": 1}, "x", topology={})
  runlog.open_workdir(tmp_path, {**odd, "steps": 2}, "y", topology={})
  json.loads((tmp_path / "config.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3, "hash": "x"}', '{"hash": "x"}',
                                     "\x00"])
def test_damaged_config_is_one_clear_error(tmp_path, content):
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(config_lib.ConfigError, match="config.json is damaged"):
    _open(tmp_path, CONFIG)
  assert (tmp_path / "config.json").read_text() == content


def test_unwritable_workdir(tmp_path):
  (tmp_path / "file").write_text("")
  for workdir in (tmp_path / "file", tmp_path / "file/run"):
    with pytest.raises(config_lib.ConfigError, match="cannot write the workdir"):
      _open(workdir, CONFIG)


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_valid_sorted_json_and_round_trip(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.metrics(0, {"b": math.nan, "a": np.float32(0.5), "d": -math.inf, "c": math.inf})
    line = (tmp_path / "metrics.jsonl").read_text()  # there before the log is closed
  assert line.count("\n") == 1
  assert list(json.loads(line, parse_constant=pytest.fail)) == ["step", "a", "b", "c", "d"]
  (row,) = runlog.read_metrics(tmp_path)
  assert row["step"] == 0 and row["a"] == 0.5 and math.isnan(row["b"])
  assert row["c"] == math.inf and row["d"] == -math.inf


def _run(workdir, start, stop, *, max_bytes):
  """Steps as a run would log them, each a function of its number alone."""
  with runlog.RunLog(workdir, resume_step=start, max_bytes=max_bytes, tensorboard=False) as log:
    for step in range(start, stop):
      rng = np.random.default_rng(step)
      log.metrics(step, {"reward/mean": rng.random(), "loss/total": rng.random()})
      log.episodes(step, [_episode(i, response=str(rng.random())) for i in range(8)])
      log.episodes(step, [_episode(i, info={"phase": "eval/x"}) for i in range(2)])


@pytest.mark.parametrize("max_bytes", [200_000_000, 30_000, 3_000])
@pytest.mark.parametrize("checkpoint,killed", [(0, 3), (5, 5), (5, 9), (12, 13)])
@pytest.mark.parametrize("torn", [False, True])
def test_killed_and_resumed_equals_never_killed(tmp_path, max_bytes, checkpoint, killed, torn):
  _run(tmp_path / "whole", 0, 20, max_bytes=max_bytes)
  part = tmp_path / "part"
  _run(part, 0, killed, max_bytes=max_bytes)
  if torn:
    with open(part / "metrics.jsonl", "ab") as f:
      f.write(b'{"step": 9, "reward/me')
    with open(runlog.episode_files(part)[-1], "ab") as f:
      f.write(gzip.compress(b'{"step": 99}\n' * 50)[:-9])
  _run(part, checkpoint, 20, max_bytes=max_bytes)
  assert _files(part) == _files(tmp_path / "whole")
  assert [r["step"] for r in runlog.read_metrics(part)] == list(range(20))


def test_resume_keeps_a_whole_last_line_without_newline_and_drops_rubbish(tmp_path):
  lines = '{"step": 0, "a": 1.0}', "rubbish", "3", '{"step": 1, "a": 2.0}'
  (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
  with runlog.RunLog(tmp_path, resume_step=2, tensorboard=False) as log:
    log.metrics(2, {"a": 3.0})
  assert (tmp_path / "metrics.jsonl").read_text().splitlines() == [
      '{"step": 0, "a": 1.0}', '{"step": 1, "a": 2.0}', '{"step": 2, "a": 3.0}']


def _events(workdir):
  """TensorBoard events (records: length, crc, data, crc), oldest file first."""
  from tensorboardX.proto import event_pb2
  for path in sorted((workdir / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
    data = path.read_bytes()
    while data:
      (n,) = struct.unpack("<Q", data[:8])
      yield event_pb2.Event.FromString(data[12:12 + n])
      data = data[16 + n:]


WRITES = """
import sys
from rljax.train import runlog
with runlog.RunLog(sys.argv[1]) as log:
  log.metrics(0, {"a": 1.0})
assert "torch" not in sys.modules
import torch
print(torch.__version__)
"""


def test_writing_does_not_import_torch(tmp_path):
  """Three seconds of every start where it is installed; it stays there for others to import."""
  (tmp_path / "torch.py").write_text('__version__ = "mine"')
  env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
  done = subprocess.run([sys.executable, "-c", WRITES, str(tmp_path / "run")], env=env, text=True,
                        capture_output=True, check=False)
  assert (done.stdout, done.returncode) == ("mine\n", 0), done.stderr
  assert list((tmp_path / "run/tensorboard").iterdir())


def test_tensorboard_gets_the_finite_scalars_and_purges_on_resume(tmp_path):
  with runlog.RunLog(tmp_path) as log:
    log.metrics(0, {"a/x": 1.0, "a/y": 2.0})
    log.metrics(1, {"a/x": math.nan, "a/y": 3.0})
  with runlog.RunLog(tmp_path, resume_step=1) as log:
    log.metrics(1, {"a/x": 5.0})
  events = list(_events(tmp_path))
  found = {(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value}
  assert found == {(0, "a/x", 1.0), (0, "a/y", 2.0), (1, "a/y", 3.0), (1, "a/x", 5.0)}
  assert [e.step for e in events if e.HasField("session_log")] == [1]


# --- episodes -------------------------------------------------------------------------------------


class Rude:
  def __repr__(self):
    raise RuntimeError("no")


def test_episode_record(tmp_path):
  chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "2+2="}]
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.episodes(3, [_episode(0, scores={"reward": 0.5, "judge": math.nan}, status=types.LENGTH),
                     _episode(1, prompt=chat)])
  first, second = runlog.read_episodes(tmp_path / "episodes/000003.jsonl.gz")
  assert first == {
      "step": 3, "task": "t/0", "group": 0, "prompt": "2+2=", "response": "4", "status": "length",
      "scores": {"reward": 0.5, "judge": "nan"}, "answer": "4", "info": {},
      "turns": [{"role": "user", "text": "2+2=", "tokens": 4},
                {"role": "assistant", "text": "4", "tokens": 2}]}
  assert second["prompt"] == "system: be brief\nuser: 2+2="


def test_any_info_can_be_logged(tmp_path):
  cycle = {}
  cycle["again"] = cycle
  infos = [{"array": np.arange(3), "set": {"b", "a"}, "nan": math.nan, "scalar": np.float32(0.5)},
           {1: "int key", "a": "text key", None: 0}, cycle, {"x": Rude(), "y": object()},
           {"bytes": b"\xff", "surrogate": "\ud800", "big": np.zeros(10_000)}]
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.episodes(0, [_episode(i, info=info) for i, info in enumerate(infos)])
  found = [r["info"] for r in runlog.read_episodes(runlog.episode_files(tmp_path)[0])]
  assert found[0] == {"array": [0, 1, 2], "set": ["a", "b"], "nan": "nan", "scalar": 0.5}
  assert found[1]["1"] == "int key"
  assert len(found) == 5 and found[3] == {"x": "<Rude>", "y": "<object object>"}
  assert len(json.dumps(found[4])) < 200


def test_size_cap_keeps_the_first_and_the_latest_steps(tmp_path):
  rng = np.random.default_rng(0)
  with runlog.RunLog(tmp_path, max_bytes=20_000, tensorboard=False) as log:
    for step in range(100):
      for _ in range(2):  # a step is never split over files
        text = rng.bytes(400).hex()
        log.episodes(step, [_episode(i, response=text) for i in range(3)])
  files = runlog.episode_files(tmp_path)
  assert 10_000 < sum(f.stat().st_size for f in files) <= 20_000
  found = _steps(tmp_path)
  last = sorted(set(found) - {0})
  assert found.count(0) == 6 and last == list(range(last[0], 100)) and last[0] > 50
  assert all(found.count(step) == 6 for step in last)


def test_a_step_is_never_split_over_files(tmp_path):
  rng = np.random.default_rng(0)
  with runlog.RunLog(tmp_path, max_bytes=64 * 4000, tensorboard=False) as log:
    for step in range(12):
      for _ in range(3):
        log.episodes(step, [_episode(0, response=rng.bytes(300).hex())])
  found = [{r["step"] for r in runlog.read_episodes(f)} for f in runlog.episode_files(tmp_path)]
  assert sum(map(len, found)) == len(set.union(*found)) == 12
  assert len(found) > 3 and max(map(len, found)) > 1


def test_reading_stops_at_the_last_whole_batch(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step in range(3):
      log.episodes(step, [_episode(0)])
  (path,) = runlog.episode_files(tmp_path)
  data, ends = path.read_bytes(), [end for _, end in runlog.members(path)]
  assert ends[-1] == len(data)
  for size in range(len(data)):
    path.write_bytes(data[:size])
    assert _steps(tmp_path) == list(range(sum(end <= size for end in ends)))


def test_a_file_without_a_whole_batch_is_dropped_on_resume(tmp_path):
  (tmp_path / "episodes").mkdir()
  (tmp_path / "episodes/000003.jsonl.gz").write_bytes(gzip.compress(b'{"step": 3}\n')[:-3])
  with runlog.RunLog(tmp_path, resume_step=5, tensorboard=False) as log:
    log.episodes(5, [_episode(0)])
  assert _steps(tmp_path) == [5]


def test_small_steps_share_a_file(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step in range(5):
      log.episodes(step, [_episode(0)])
    log.episodes(5, [])
  assert [f.name for f in runlog.episode_files(tmp_path)] == ["000000.jsonl.gz"]
  assert _steps(tmp_path) == [0, 1, 2, 3, 4]


def test_files_are_in_order_of_steps_beyond_six_digits(tmp_path):
  with runlog.RunLog(tmp_path, max_bytes=64, tensorboard=False) as log:
    for step in (999_999, 1_000_000):
      log.episodes(step, [_episode(0)])
  assert _steps(tmp_path) == [999_999, 1_000_000]


# --- result.json, and the terminal ----------------------------------------------------------------


def test_result_has_every_field_of_the_contract(tmp_path):
  record = _open(tmp_path, CONFIG)
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.metrics(0, {"a": 1.0})
    log.result({"status": "done", "steps": 1, "eval": {"after": {"x": math.nan}}, "more": 1})
  found = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
  assert found == {"status": "done", "steps": 1, "seconds": None, "tokens_per_second": None,
                   "config_hash": record["hash"], "more": 1,
                   "eval": {"before": {}, "after": {"x": "nan"}}}
  with runlog.RunLog(tmp_path, resume_step=1, tensorboard=False) as log:
    log.result({})
  found = json.loads((tmp_path / "result.json").read_text())
  assert found["eval"] == {"before": {}, "after": {}} and found["status"] is None


def test_result_of_a_shorter_run_goes_when_the_run_goes_on(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    log.metrics(0, {"a": 1.0})
    log.result({"status": "done"})
  with runlog.RunLog(tmp_path, resume_step=1, tensorboard=False) as log:
    assert (tmp_path / "result.json").exists()  # nothing was added yet
    log.metrics(1, {"a": 1.0})
    assert not (tmp_path / "result.json").exists()


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_on_a_terminal_overwrites_one_line():
  stream, times = Terminal(), iter([0.0, 2.0, 4.0])
  bar = progress.Progress(12, stream=stream, clock=lambda: next(times))
  for done in (1, 2, 3):
    bar.update(done, {"reward/mean": 0.5, "policy/entropy": math.nan, "solver/kl/behav": 0.01})
  bar.close()
  assert stream.getvalue().count("\n") == 1 and stream.getvalue().count("\r") == 3
  line = stream.getvalue().split("\r")[-1]
  assert line.startswith("step  3/12  eta 18s  ")  # 2 s a step after the first
  assert "reward 0.500  length -  entropy nan  kl 0.0100  grad -" in line


def test_progress_elsewhere_prints_a_line_now_and_then():
  now, stream = [0.0], io.StringIO()
  bar = progress.Progress(100, every_seconds=10, stream=stream, clock=lambda: now[0])
  for done in range(1, 31):
    bar.update(done, {})
    now[0] += 1.0
  bar.close()
  lines = stream.getvalue().splitlines()
  assert [int(line.split("/")[0].split()[1]) for line in lines] == [1, 11, 21, 30]
  assert "\r" not in stream.getvalue()
