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
