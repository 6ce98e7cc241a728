"""Reductions, the bootstrap and verdicts by hand, and per-problem intervals for one seed."""

import dataclasses
import itertools

import numpy as np
import pytest

from rljax import config as config_lib
from rljax import types
from rljax.reproduce import measure, papers
from rljax.train import runlog

STEPS, VALUES = np.array([0, 5, 10, 15]), np.array([0.2, 0.6, 0.5, 0.4])


@pytest.mark.parametrize("at, value", [
    ("start", 0.2), ("end", 0.4), ("gain", 0.2), ("peak", 0.6), ("fall", 0.2), ("keep", 0.4 / 0.6),
    ("drop", 0.2),
    ("mean", 0.425), ("last:2", 0.45), ("first:2", 0.4), ("shift:2", 0.05), ("reach:0.5", 5),
    ("reach:0.9", 16), ("peak:2", 0.55), ("fall:2", 0.1), ("keep:2", 0.45 / 0.55)])
def test_reductions(at, value):
  assert measure.reduce(STEPS, VALUES, at) == pytest.approx(value)


@pytest.mark.parametrize("at", ["middle", "last", "end:3", "drop:2", "reach"])
def test_unknown_reductions(at):
  with pytest.raises(config_lib.ConfigError, match="unknown reduction"):
    measure.reduce(STEPS, VALUES, at)


def test_bootstrap_of_three_is_exact():
  x = [0.0, 0.3, 0.9]
  means = [np.mean(c) for c in itertools.product(x, repeat=3)]
  assert measure.bootstrap(x) == (np.quantile(means, 0.05), np.quantile(means, 0.95))
  assert measure.bootstrap([0.4, 0.4, 0.4]) == (pytest.approx(0.4), pytest.approx(0.4))


def test_bootstrap_of_many_has_the_width_of_a_normal_interval():
  x = np.random.default_rng(0).normal(size=400)
  low, high = measure.bootstrap(x)
  assert high - low == pytest.approx(2 * 1.645 * x.std() / 20, rel=0.1)
  assert measure.bootstrap(x) == (low, high)


def test_interquartile_mean():
  assert measure.interquartile_mean([9.0, 1.0, 3.0, 2.0]) == 2.5
  # Of five, a quarter of the second and the fourth value is cut.
  assert measure.interquartile_mean([0.0, 1.0, 2.0, 4.0, 99.0]) == pytest.approx(
      (0.75 * 1 + 2 + 0.75 * 4) / 2.5)
  assert measure.interquartile_mean([[5.0], [7.0]]).tolist() == [5.0, 7.0]


def test_a_claim_about_interquartile_means_ignores_one_wild_seed(tmp_path):
  values = {"full": [1.0, 1.1, 1.2, 9.0], "other": [1.0, 1.0, 1.0, 1.0]}
  runs = {arm: {s: measure.Run("", ({"step": 0, "m": v},)) for s, v in enumerate(found)}
          for arm, found in values.items()}
  says = papers.Claim("s", papers.Side("full", "m", "end"), ">", papers.Side("other", "m", "end"),
                      0.1, "claim", "", average="iqm")
  found = measure.evaluate(says, runs)
  assert found["difference"] == pytest.approx(0.15)
  assert "interquartile" in found["rule"]
  plain = measure.evaluate(dataclasses.replace(says, average="mean"), runs)
  assert plain["difference"] == pytest.approx((1.0 + 1.1 + 1.2 + 9.0) / 4 - 1)


def claim(relation=">", margin=0.0, right=0.0, at="end", arm="full", kind="claim",
          metric="eval/test/pass_at_1"):
  side = right if isinstance(right, float) else papers.Side(right, metric, at)
  return papers.Claim("says", papers.Side(arm, metric, at), relation, side, margin, kind, "")


@pytest.mark.parametrize("relation, margin, numbers, status", [
    (">", 0.1, (0.3, 0.2, 0.4), "holds"), (">", 0.1, (0.3, 0.05, 0.4), "unclear"),
    (">", 0.1, (0.05, -0.1, 0.2), "fails"), ("<", 0.1, (-0.3, -0.4, -0.2), "holds"),
    ("<", 0.1, (0.3, 0.2, 0.4), "fails"), ("within", 0.1, (0.05, -0.05, 0.08), "holds"),
    ("within", 0.1, (-0.05, -0.2, 0.0), "unclear"), ("within", 0.1, (-0.2, -0.3, -0.15), "fails")])
def test_judging(relation, margin, numbers, status):
  assert measure.judge(claim(relation, margin), *numbers) == status


def run(*values, **more):
  rows = [{"step": i, "eval/test/pass_at_1": v, **more} for i, v in enumerate(values)]
  return measure.Run("", tuple(rows))


def test_seeds_are_paired():
  """Seeds differ far more than arms; only the paired difference can tell them apart."""
  runs = {"full": {0: run(0.0, 0.31), 1: run(0.0, 0.61), 2: run(0.0, 0.92)},
          "other": {0: run(0.0, 0.30), 1: run(0.0, 0.60), 2: run(0.0, 0.90), 3: run(0.0, 0.0)}}
  result = measure.evaluate(claim(right="other"), runs)
  assert result["status"] == "holds" and result["seeds"] == [0, 1, 2]
  assert result["difference"] == pytest.approx(0.04 / 3) and result["over"] == "seeds"
  assert measure.evaluate(claim(right="gone"), runs)["status"] == "not run"


def test_one_seed_resamples_problems(tmp_path):
  def made(name, right):
    folder = tmp_path / name
    (folder / "config.json").parent.mkdir()
    with runlog.RunLog(folder, tensorboard=False) as log:
      for step, share in ((0, 0), (3, right)):
        log.metrics(step, {"eval/test/pass_at_1": share / 20})
        log.episodes(step, [types.Episode(
            types.Task(f"t{i}", "?"), (types.Turn("assistant", np.zeros(1, np.int32)),),
            scores={"correct": float(i < share)}, info={"phase": "eval/test"}) for i in range(20)])
    return measure.read(folder)
  runs = {"full": {0: made("a", 18)}, "other": {0: made("b", 2)}, "near": {0: made("c", 17)}}
  clear = measure.evaluate(claim(right="other"), runs)
  assert clear["over"] == "problems (one seed)" and clear["status"] == "holds"
  assert clear["difference"] == pytest.approx(0.8) and clear["interval"][0] < 0.8
  assert measure.evaluate(claim(right="near"), runs)["status"] == "unclear"
  gain = measure.evaluate(claim(right=0.5, at="gain"), runs)
  assert gain["status"] == "holds" and 0.1 < gain["interval"][0] < 0.4 < gain["interval"][1]
  point = measure.evaluate(claim(right="other", at="peak"), runs)
  assert point["over"] == "nothing (one seed)" and point["interval"] == [0.8, 0.8]


def test_open_and_solved_problems_and_those_of_one_value(tmp_path):
  with runlog.RunLog(tmp_path, tensorboard=False) as log:
    for step, right in ((0, (1, 0, 0, 0)), (7, (2, 2, 0, 1))):  # of two samples each
      log.metrics(step, {"eval/test/pass_at_1": sum(right) / 8, "eval/test/b/pass_at_1": 0.0})
      log.episodes(step, [types.Episode(
          types.Task(f"t{i}", "?"), (types.Turn("assistant", np.zeros(1, np.int32)),),
          scores={"correct": float(sample < n)}, info={"phase": "eval/test", "by": "aabb"[i]})
          for i, n in enumerate(right) for sample in range(2)])
  read = measure.read(tmp_path)
  got = {at: measure.value(read, papers.Side("full", "eval/test/pass_at_1", at))
         for at in ("open", "solved", "gain")}
  assert got == pytest.approx({"open": 0.5, "solved": 0.5, "gain": 0.5})
  assert read.problems("eval/test/pass_at_1", "open") == {"t1": 1.0, "t2": 0.0, "t3": 0.5}
  assert read.problems("eval/test/pass_at_1", "solved") == {"t0": 0.5}
  assert read.problems("eval/test/b/pass_at_1", "end") == {"t2": 0.0, "t3": 0.5}
  result = measure.evaluate(claim(right=0.2, at="open"), {"full": {0: read}})
  assert result["over"] == "problems (one seed)" and result["difference"] == pytest.approx(0.3)
  with pytest.raises(config_lib.ConfigError, match="no solved problems"):
    measure.value(read, papers.Side("full", "eval/test/b/pass_at_1", "solved"))


def test_a_factor_of_the_right_side(tmp_path):
  runs = {"full": {0: run(0.0, 0.2), 1: run(0.0, 0.4)}, "rft": {0: run(0.0, 0.5), 1: run(0.0, 0.9)}}
  half = dataclasses.replace(claim("<", right="rft"), times=0.5)
  result = measure.evaluate(half, runs)
  assert result["difference"] == pytest.approx(-0.05) and result["status"] == "holds"
  assert measure.rule(half) == "full end - 0.5 rft end < 0 [eval/test/pass_at_1]"
  assert measure.evaluate(claim("<", right="rft"), runs)["difference"] == pytest.approx(-0.4)
  number = dataclasses.replace(claim(">", right=0.5), times=0.5)
  assert measure.rule(number) == "full end > 0.25 [eval/test/pass_at_1]"
  assert measure.evaluate(number, runs)["difference"] == pytest.approx(0.05)


def test_verdicts():
  claims = [claim(), claim(kind="control")]
  state = lambda *s: [{"status": x} for x in s]
  assert measure.verdict(claims, state("holds", "holds")) == "reproduced"
  assert measure.verdict(claims, state("holds", "fails")) == "not reproduced"
  assert measure.verdict(claims, state("unclear", "holds")) == "not reproduced"
  assert measure.verdict(claims, state("holds", "not run")) == "incomplete"
  mechanism = [claim(kind="mechanism")]
  assert "not testable at this scale" in measure.verdict(mechanism, state("holds"))
  assert measure.verdict(mechanism, state("fails")) == "not reproduced"


def test_a_metric_that_was_never_logged_is_told_with_the_nearest():
  with pytest.raises(config_lib.ConfigError, match="did you mean 'eval/test/pass_at_1'"):
    run(0.1).series("eval/tests/pass_at_1")


@pytest.mark.parametrize("args, text", [
    (("<", 0.02, "rft"), "full end - rft end < -0.02"),
    ((">", 0.0, "rft"), "full end - rft end > 0"),
    ((">", 0.05, 0.5), "full end > 0.55"), (("<", 0.0, 0.0), "full end < 0"),
    (("within", 0.1, 0.4), "full end within 0.4 ± 0.1")])
def test_rules_in_words(args, text):
  assert measure.rule(claim(*args)) == f"{text} [eval/test/pass_at_1]"
