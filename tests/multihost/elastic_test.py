"""A run that goes on with other devices: the same samples, the same numbers to rounding."""

import json

import pytest

from tests.multihost import fleet
from tests.multihost.hosts_test import args, same_run


@pytest.mark.slow
def test_eight_devices_then_four_then_eight(tmp_path):
  cache, unbroken, moved = (str(tmp_path / n) for n in ("cache", "unbroken", "moved"))
  changes = {"layout.train": "fsdp"}
  fleet.run(1, args(unbroken, 3, **changes), devices=8, cache=cache)
  for devices, steps in ((8, 1), (4, 2), (8, 3)):
    fleet.run(1, args(moved, steps, **changes), devices=devices, cache=cache)
    assert json.load(open(f"{moved}/config.json"))["topology"]["devices"] == devices
    same_run(unbroken, moved, steps)
