"""A paper for tests of the harness. https://example.org, rljax-train"""

from rljax import recipes

PAPER = {"title": "Tiny", "category": "test", "model": ""}
SEEDS = 2


def get_config():
  c = recipes.grpo()
  c.steps = 6
  return c


ARMS = {"low": {"prompts": 8}, "unread": {"prompts": 4}}
QUICK = {"steps": 3}
CLAIMS = [
    dict(says="full is higher", metric="eval/test/pass_at_1", relation=">", than="low",
         margin=0.05, paper="0.9 against 0.5"),
    dict(says="low stays low", kind="control", metric="eval/test/pass_at_1", arm="low",
         relation="<", than=0.6),
]
EXACT = ("tests/reproduce/measure_test.py::test_verdicts",)
UNTESTED = ("The rest.",)
PLOT = ("eval/test/pass_at_1", "reward/mean")
