"""The README's table says what the records hold."""

import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def test_the_table_is_that_of_the_records():
  shown = re.findall(r"^\| \[([\w-]+)\]\(experiments/([\w-]+)\.md\) \| (\d+) \| (\d+) of (\d+) \| "
                     r"([a-z ]+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
  found = []
  for path in ROOT.glob("experiments/*/claims.json"):
    record = json.loads(path.read_bytes())
    holds = sum(c["status"] == "holds" for c in record["claims"])
    found.append((record["slug"], record["slug"], str(len(record["seeds"])), str(holds),
                  str(len(record["claims"])), record["verdict"]))
  assert sorted(shown) == sorted(found)
