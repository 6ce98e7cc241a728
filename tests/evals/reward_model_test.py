"""Accuracy, best of N with ties, calibration and tables, on scores with known answers."""

import math

import numpy as np
import pytest

from rljax import types
from rljax.evals import reward_model


def episodes(*groups, category=None, status=types.STOP):
  """Each group: (scores of the chosen ones, scores of the rejected ones)."""
  out = []
  for g, sides in enumerate(groups):
    info = {"category": category[g]} if category else {}
    task = types.Task(f"t{g}", "?", info=info)
    for source, values in zip(("chosen", "rejected"), sides):
      out += [types.Episode(task, (), group=g, scores={"score": v}, info={"source": source},
                            status=status) for v in values]
  return out


@pytest.mark.parametrize("chosen, rejected, credit", [
    ([1.0], [0.0, 0.5, -2.0], 1.0), ([1.0], [2.0, 0.0, 0.0], 0.0), ([1.0], [1.0, 0.0, 0.0], 0.5),
    ([1.0], [1.0, 1.0, 1.0], 0.25), ([3.0, 1.0], [3.0], 0.5), ([2.0, 2.0], [2.0], 2 / 3)])
def test_best_of_n_shares_its_credit_among_ties(chosen, rejected, credit):
  assert reward_model.credit(chosen, rejected) == pytest.approx(credit)


def test_pairwise_counts_ties_one_half():
  assert reward_model.pairwise([1.0], [0.0, 1.0, 2.0]) == pytest.approx(0.5)
  assert reward_model.pairwise([1.0, 3.0], [0.0, 2.0]) == pytest.approx(0.75)


def test_a_constant_model_is_at_chance_and_an_oracle_is_not():
  constant = reward_model.measure(episodes(([0.0], [0.0] * 3), ([0.0], [0.0])), 2, None)
  assert constant["accuracy"] == 0.5 and constant["best_of_n"] == (0.25 + 0.5) / 2
  assert constant["calibration_error"] == 0.0 and constant["brier"] == 0.25
  assert constant["log_loss"] == pytest.approx(math.log(2))
  oracle = reward_model.measure(episodes(([9.0], [-9.0] * 3)), 1, None)
  assert oracle["accuracy"] == oracle["best_of_n"] == 1.0 and oracle["brier"] < 1e-6


def test_calibration_by_hand():
  """Four pairs at confidence 3/4, three of them right: calibrated; all right: off by 1/4."""
  gap = math.log(3)
  right = reward_model.calibration(np.array([gap, gap, gap, -gap]), 5)
  assert right["calibration_error"] == pytest.approx(0.0, abs=1e-12)
  assert right["brier"] == pytest.approx((3 * 0.0625 + 0.5625) / 4)
  assert {k: v for k, v in right.items() if k.startswith("by_")} == {
      "by_confidence/0.70-0.80/accuracy": 0.75,
      "by_confidence/0.70-0.80/confidence": pytest.approx(0.75),
      "by_confidence/0.70-0.80/pairs": 4.0}
  sure = reward_model.calibration(np.array([gap] * 4), 5)
  assert sure["calibration_error"] == pytest.approx(0.25)
  extreme = reward_model.calibration(np.array([1e4, -1e4]), 5)
  assert extreme["log_loss"] == pytest.approx(5e3)
  assert extreme["by_confidence/0.90-1.00/pairs"] == 2.0


def test_categories_and_what_could_not_be_scored():
  found = episodes(([1.0], [0.0]), ([0.0], [1.0]), ([1.0], [0.0]), ([math.nan], [0.0]),
                   category=["a/b", "c", "c", "c"])
  out = reward_model.measure(found, 5, None)
  assert out["prompts"] == 3 and out["unscored"] == 2
  assert out["by_category/a_b/accuracy"] == 1.0 and out["by_category/c/accuracy"] == 0.5
  assert out["by_category/c/prompts"] == 2 and out["category_mean"] == 0.75
  none = reward_model.measure(episodes(([1.0], [0.0]), status=types.ERROR), 1, None)
  assert none == {"prompts": 0.0, "unscored": 1.0}


def test_ties_by_hand():
  """Question 7: spread 0.5, gaps 2 (tied) and 0.4 (ref); 8: a wrong answer wins; 9: one form."""
  found = {"7": {"tied": ([3.0, 2.5], [0.5, 0.0]), "ref": ([1.0], [0.6])},
           "8": {"tied": ([3.0, 1.0], [2.0]), "ref": ([2.0], [1.0])},
           "9": {"tied": ([1.0], [0.0])}}
  out = reward_model.ties(found)
  assert out["tied_accuracy"] == pytest.approx(2 / 3) and out["ref_accuracy"] == 1.0
  assert out["preferred"] == 0.5 and out["preferred_hard"] == 0.0
  margin = (math.tanh(0.4 / 0.5 - 1) + math.tanh(-1 / 2 - 1)) / 2
  assert out["margin"] == pytest.approx(margin)
  assert out["score"] == pytest.approx(0.2 + 0.3 + 0.1 + 0.01 * margin)


@pytest.mark.parametrize("gap, margin", [(1.0, 1.0), (0.0, 0.0), (-1.0, -1.0)])
def test_ties_without_a_spread(gap, margin):
  out = reward_model.ties({"1": {"tied": ([1.0, 1.0], [1.0 - gap]), "ref": ([9.0], [0.0])}})
  assert out["margin"] == margin and out["preferred"] == float(gap > 0)


def test_ties_are_found_by_id_and_an_oracle_has_all_points():
  found = episodes(([1.0, 1.0], [0.0]), ([1.0], [0.0]), ([1.0], [0.0]))
  for e, name in zip(found, ("tied:4",) * 3 + ("ref:4",) * 2 + ("other",) * 2, strict=True):
    e.task.info["id"] = name
  out = reward_model.measure(found, 3, None)
  assert out["ties/score"] == pytest.approx(1.01) and out["ties/tied_accuracy"] == 1.0
  assert not any(k.startswith("ties/") for k in reward_model.measure(found[-2:], 1, None))
  half = reward_model.ties({"4": {"ref": ([1.0], [0.0])}})
  assert half["score"] == pytest.approx(0.3)
