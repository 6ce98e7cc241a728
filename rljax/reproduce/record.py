"""What a reproduction leaves behind: claims.json, table.md, plot.png and experiments/<slug>.md.

claims.json is a function of the runs alone (no times, no dates): a reproduction that was killed and
continued writes the same bytes. Costs and dates are in cost.json.
"""

import datetime
import json
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

import rljax
from rljax import config as config_lib
from rljax.reproduce import measure, papers, runs
from rljax.train import runlog

FILES = ("claims.json", "table.md", "plot.png", "cost.json")  # what is kept in the repository
BEGIN, END = "<!-- results: written by rljax-reproduce -->", "<!-- end of results -->"
MARKS = {measure.HOLDS: "yes", measure.UNCLEAR: "mean only", measure.FAILS: "no",
         measure.MISSING: "not run"}


def write(paper: papers.Paper, folder: pathlib.Path, jobs: Sequence[runs.Job], *,
          quick: bool) -> dict:
  """Evaluates the claims over finished jobs and writes all files but the record; claims.json."""
  found: dict[str, dict[int, measure.Run]] = {}
  for job in jobs:
    found.setdefault(job.arm, {})[job.seed] = measure.read(job.workdir)
  results = [measure.evaluate(c, found) for c in paper.claims]
  record = {
      "slug": paper.slug, "title": paper.title, "category": paper.category, "quick": quick,
      "verdict": measure.verdict(paper.claims, results), "version": rljax.__version__,
      "seeds": sorted({j.seed for j in jobs}),
      "runs": {f"{j.arm} seed {j.seed}": config_lib.digest(
          config_lib.load(j.spec, {"seed": j.seed})) for j in jobs},
      "claims": results, "exact": list(paper.exact), "untested": list(paper.untested)}
  runlog.write_json(folder / "claims.json", record)
  seconds = {f"{j.arm} seed {j.seed}": round(float(j.result()["seconds"]), 1) for j in jobs}
  runlog.write_json(folder / "cost.json", {
      "date": datetime.date.today().isoformat(), "seconds": sum(seconds.values()), "runs": seconds})
  (folder / "table.md").write_text(table(paper, record, found))
  plot(paper, found, folder / "plot.png")
  return record


# --- tables ---------------------------------------------------------------------------------------


def table(paper: papers.Paper, record: Mapping, found: Mapping) -> str:
  """The claims with their numbers, then every plotted metric of every arm, mean ± sd of seeds."""
  lines = [f"**Verdict: {record['verdict']}** ({_count(record['claims'])}; "
           f"{'quick, ' if record['quick'] else ''}seeds {_listed(record['seeds'])})", "",
           "| claim | rule | left | right | difference [90 %] | holds | the paper |",
           "| --- | --- | --- | --- | --- | --- | --- |"]
  for c in record["claims"]:
    kind = "" if c["kind"] == "claim" else f"*{c['kind']}:* "
    if c["status"] == measure.MISSING:
      numbers = ["", "", ""]
    else:
      low, high = c["interval"]
      numbers = [_mean(c["left"]), _mean(c["right"]), f"{c['difference']:+.3g} [{low:+.3g}, "
                 f"{high:+.3g}]" + ("" if c["over"] == "seeds" else f" over {c['over']}")]
    cells = [kind + c["says"], f"`{c['rule']}`", *numbers, MARKS[c["status"]], c["paper"]]
    lines.append("| " + " | ".join(x.replace("|", "\\|") for x in cells) + " |")
  lines += [""] + [f"Exact, as a test: `{t}`" for t in paper.exact]
  lines += ["", "| arm | " + " | ".join(paper.plot) + " |", "| --- |" + " --- |" * len(paper.plot)]
  for arm, by_seed in found.items():
    cells = [_start_end(list(by_seed.values()), m) for m in paper.plot]
    lines.append(f"| {arm} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _count(claims):
  n = sum(c["status"] == measure.HOLDS for c in claims)
  return f"{n} of {len(claims)} relations hold"


def _listed(seeds):
  return ", ".join(map(str, seeds))


def _mean(values):
  if len({round(v, 9) for v in values}) == 1:
    return f"{values[0]:.4g}"
  return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _start_end(found, metric):
  try:
    pairs = [(r.series(metric)[1][0], r.series(metric)[1][-1]) for r in found]
  except config_lib.ConfigError:
    return "–"
  start, end = zip(*pairs)
  spread = f" ± {np.std(end, ddof=1):.3f}" if len(end) > 1 else ""
  return f"{np.mean(start):.3f} → {np.mean(end):.3f}{spread}"


# --- plot -----------------------------------------------------------------------------------------


def plot(paper: papers.Paper, found: Mapping, path: pathlib.Path) -> None:
  """One panel per metric of PLOT: the mean over seeds of every arm, and the band of the seeds.

  Raises:
    ConfigError: matplotlib is not installed.
  """
  try:
    import matplotlib
  except ModuleNotFoundError:
    raise config_lib.ConfigError("plots need matplotlib: pip install 'rljax[reproduce]'") from None
  matplotlib.use("Agg")
  from matplotlib import pyplot
  columns = min(len(paper.plot), 3)
  rows = -(-len(paper.plot) // columns)
  figure, axes = pyplot.subplots(rows, columns, figsize=(4.4 * columns, 3.2 * rows), squeeze=False)
  colors = pyplot.get_cmap("tab10" if len(found) <= 10 else "tab20")
  for axis in axes.flat[len(paper.plot):]:
    axis.axis("off")
  for axis, metric in zip(axes.flat, paper.plot):
    for i, (arm, by_seed) in enumerate(found.items()):
      _curve(axis, list(by_seed.values()), metric, arm, colors(i))
    axis.set_title(metric, fontsize=9)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
  handles, labels = axes.flat[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc="lower center", ncols=min(6, len(labels)), fontsize=8,
                frameon=False)
  figure.suptitle(f"{paper.title} ({paper.slug})", fontsize=11)
  figure.tight_layout(rect=(0, 0.06 + 0.03 * (len(labels) // 7), 1, 1))
  figure.savefig(path, dpi=90, metadata={"Software": None})
  pyplot.close(figure)


def _curve(axis, found, metric, label, color):
  curves = []
  for run in found:
    try:
      curves.append(run.series(metric))
    except config_lib.ConfigError:
      continue
  if not curves:
    return
  steps = sorted(set.intersection(*(set(s.tolist()) for s, _ in curves)))
  values = np.stack([_smooth(np.asarray([dict(zip(s.tolist(), v))[k] for k in steps]))
                     for s, v in curves])
  axis.plot(steps, values.mean(0), label=label, color=color, linewidth=1.4)
  if len(curves) > 1:
    axis.fill_between(steps, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)


def _smooth(values, window=9):
  """A centred mean over `window` points of curves logged at every step."""
  if len(values) < 40:
    return values
  padded = np.pad(values, window // 2, mode="edge")
  return np.convolve(padded, np.ones(window) / window, mode="valid")


# --- the record -----------------------------------------------------------------------------------


def publish(paper: papers.Paper, folder: pathlib.Path) -> pathlib.Path:
  """Copies the files into experiments/<slug>/ and puts the table into experiments/<slug>.md.

  What people wrote outside the marked block stays.
  """
  kept = papers.RECORDS / paper.slug
  kept.mkdir(parents=True, exist_ok=True)
  for name in FILES:
    shutil.copyfile(folder / name, kept / name)
  block = "\n".join([
      BEGIN, "", f"`rljax-reproduce {paper.slug}`; {_cost(folder)}.", "",
      (folder / "table.md").read_text(),
      *(["Not testable here: " + " ".join(paper.untested), ""] if paper.untested else []),
      f"![curves]({paper.slug}/plot.png)", "", END])
  path = papers.RECORDS / f"{paper.slug}.md"
  text = path.read_text() if path.exists() else f"# {paper.title}\n\n{BEGIN}\n{END}\n"
  if BEGIN not in text or END not in text:
    text += f"\n{BEGIN}\n{END}\n"
  pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
  path.write_text(re.sub(pattern, lambda _: block, text, count=1, flags=re.DOTALL))
  return path


def _cost(folder):
  cost = json.loads((folder / "cost.json").read_bytes())
  return (f"{len(cost['runs'])} runs, {runs.duration(cost['seconds'])} of machine time, "
          f"{cost['date']}")
