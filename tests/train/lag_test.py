"""lag=1: a step's samples are those of the weights before, whatever happens in between."""

import pytest

from rljax.config import ConfigError, fn
from rljax.train import build, loop
from tests.multihost import fleet
from tests.train import loop_test

CORRECTED = {"updates__policy__objective__correction": fn("rljax.nums:truncated_weight"),
             "updates__policy__optimizer__lr": 0.1}


def run(workdir, **changes):
  """Episodes of training as text by step, and the metrics."""
  config = loop_test.load(**{**CORRECTED, "steps": 4, **changes})
  loop.train(config, str(workdir), quiet=True)
  said = {}
  for e in loop_test.episodes(str(workdir)):
    if "phase" not in e["info"]:
      said.setdefault(e["step"], []).append((e["prompt"], e["response"]))
  return said, loop_test.metrics(str(workdir))


@pytest.mark.slow
def test_samples_are_one_update_behind(tmp_path):
  """The first two steps sample with the first weights: as a run that does not learn."""
  lagged, rows = run(tmp_path / "lagged", lag=1)
  plain, _ = run(tmp_path / "plain")
  still, _ = run(tmp_path / "still", updates__policy__optimizer__lr=0.0)
  assert lagged[0] == plain[0] == still[0]
  assert lagged[1] == still[1] != plain[1]
  assert lagged[2] != still[2]
  prompts = lambda said: [[p for p, _ in said[s]] for s in sorted(said)]
  assert prompts(lagged) == prompts(plain)
  assert [r["sample/lag"] for r in rows[:4]] == [0, 1, 1, 1]
  assert rows[0]["mismatch/max"] < 1e-4 < 1e-2 < rows[1]["mismatch/max"]
  assert rows[0]["pg/tis_weight_mean"] == pytest.approx(1, abs=1e-4)
  assert rows[1]["pg/tis_weight_mean"] != pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_run_in_pieces_is_the_whole_run(tmp_path):
  """Stopped after 1 and 3 steps; evaluations (at 3) fall between a rollout and its use."""
  whole = run(tmp_path / "whole", lag=1)
  for steps in (1, 3, 4):
    pieces = run(tmp_path / "pieces", lag=1, steps=steps, eval__every=3 if steps == 4 else 0)
  assert pieces[0] == whole[0]
  skip = lambda rows: [{k: v for k, v in r.items() if not k.startswith("eval/")} for r in rows[:4]]
  assert skip(pieces[1]) == skip(whole[1])


@pytest.mark.slow
def test_on_devices_of_its_own(tmp_path):
  """Two simulated devices, one of which only samples, give the run of one device."""
  given = ["--config.steps=3", "--config", f"{loop_test.TINY}:lag"]
  fleet.run(1, [*given, "--workdir", str(tmp_path / "one")])
  fleet.run(1, [*given, "--workdir", str(tmp_path / "two"), "--config.layout.sampler=1"], devices=2)
  a, b = (loop_test.episodes(str(tmp_path / n)) for n in ("one", "two"))
  assert a == b


@pytest.mark.parametrize("changes, says", [
    ({"lag": 2}, "config.lag=2: 0 or 1"),
    ({"lag": 1, "updates__policy__objective__correction": None}, "needs a correction"),
    ({"layout__sampler": 1}, "leaves none to train on")])
def test_refusals(changes, says):
  with pytest.raises(ConfigError, match=says):
    build.build(loop_test.load(**{**CORRECTED, **changes}))
