"""Stands for rljax-train in tests of the harness: resumable, a function of config and seed alone.

As a program it is `rljax-reproduce` with this trainer: stub.py PACE FOLDER ARGS...
"""

import json
import os
import pathlib
import sys
import time

SELF = str(pathlib.Path(__file__).resolve())


def train(spec, seed, workdir, steps, pace):
  """One line of metrics per step; what is there already is kept."""
  path = pathlib.Path(workdir) / "metrics.jsonl"
  done = len(path.read_text().splitlines()) if path.exists() else 0
  level = 0.5 if "low" in spec else 0.8
  for step in range(done, steps):
    time.sleep(pace)
    row = {"step": step, "reward/mean": step / 10,
           "eval/test/pass_at_1": level + seed / 100 + step / 1000}
    with open(path, "a") as f:
      f.write(json.dumps(row) + "\n")
  failing, _, arm = os.environ.get("RLJAX_STUB", "").partition(" ")
  if failing and arm in spec:
    sys.exit("rljax: this trainer fails")
  (path.parent / "result.json").write_text(json.dumps(
      {"status": "done", "steps": steps, "seconds": steps * pace}))


def use(pace):
  """Makes the harness start this trainer."""
  from rljax.reproduce import runs
  runs.Job.command = lambda job: [
      sys.executable, SELF, "train", job.spec, str(job.seed), str(job.workdir), str(job.steps),
      str(pace)]


def point_at(folder):
  """Makes the harness read its papers and write its records below `folder`."""
  from rljax.reproduce import papers
  papers.FOLDER, papers.RECORDS = pathlib.Path(folder) / "papers", pathlib.Path(folder) / "records"


if __name__ == "__main__":
  if sys.argv[1] == "train":
    train(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), float(sys.argv[6]))
  else:
    from rljax.reproduce import cli
    use(float(sys.argv[1]))
    point_at(sys.argv[2])
    sys.exit(cli.main(sys.argv[3:]))
