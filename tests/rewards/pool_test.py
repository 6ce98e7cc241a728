"""The warm pool: one bad sample costs itself, and time is bounded."""

import os
import time

import pytest

from rljax.rewards import pool

HERE = "tests.rewards.pool_test:"


def behave(what):
  if what == "hang":
    while True:
      pass
  if what == "swallow":
    while True:
      try:
        time.sleep(10)
      except Exception:
        pass
  if what == "stuck":  # in C, where no signal handler runs
    import re
    re.fullmatch(r"(a+)+b", "a" * 40)
  if what == "die":
    os._exit(3)
  if what == "eat":
    return len(bytearray(4 << 30))
  if what == "print":
    print("x" * 100_000)
    os.write(1, b"y" * 1000)
  if what == "raise":
    raise KeyError("k")
  if what == "leave":
    raise SystemExit(0)
  return what


def scaled(x, *, by=1):
  return x * by


@pytest.fixture(scope="module")
def workers():
  p = pool.Pool(2)
  p.map(HERE + "behave", [("warm",)] * 4, deadline=5)
  yield p
  p.close()


@pytest.mark.parametrize("what, status", [
    ("hang", "timeout"), ("swallow", "timeout"), ("stuck", "timeout"), ("die", "timeout"),
    ("eat", "error"), ("raise", "error"), ("leave", "error"), ("print", "ok")])
def test_a_bad_sample_costs_itself_alone(workers, what, status):
  items = [(i,) for i in range(20)]
  items[7] = (what,)
  out = workers.map(HERE + "behave", items, deadline=0.5)
  assert [o.status for o in out] == ["ok"] * 7 + [status] + ["ok"] * 12
  assert [o.value for i, o in enumerate(out) if i != 7] == [i for i in range(20) if i != 7]
  assert bool(out[7].error) == (status != "ok")


def test_the_batch_ends_in_time(workers):
  start = time.monotonic()
  out = workers.map(HERE + "behave", [(1,)] * 4 + [("hang",)] * 40, deadline=5.0,
                    until=time.monotonic() + 1.0)
  assert time.monotonic() - start < 4
  assert [o.status for o in out[:1]] == ["ok"] and out[-1].status == "skipped"


def test_keywords_files_and_errors(workers, tmp_path):
  assert [o.value for o in workers.map(HERE + "scaled", [(1,), (2,)], deadline=5, by=3)] == [3, 6]
  path = tmp_path / "mine.py"
  path.write_text("def f(x):\n  return x + 1\n")
  assert workers.map(f"{path}:f", [(1,)], deadline=5)[0].value == 2
  missing = workers.map(HERE + "behav", [(1,)], deadline=5)[0]
  assert missing.status == "error" and "has no 'behav'" in missing.error
  assert workers.map(HERE + "behave", [], deadline=5) == []


def test_a_worker_that_ended_while_idle_costs_nothing(workers):
  for i in range(2):
    workers.worker(i).process.kill()
    workers.worker(i).process.wait()
  assert [o.value for o in workers.map(HERE + "behave", [(1,), (2,)], deadline=5)] == [1, 2]


def test_an_interrupted_batch_leaves_nothing_behind(workers, monkeypatch):
  with monkeypatch.context() as m:
    m.setattr(pool._Batch, "_check", lambda self, i: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
      workers.map(HERE + "behave", [(1,)] * 8, deadline=5)
  assert [o.value for o in workers.map(HERE + "behave", [(5,), (6,)], deadline=5)] == [5, 6]
