"""The overview: `--list` in the terminal, and one HTML page with every paper's plot."""

import base64
import html
import json
import pathlib

from rljax import config as config_lib
from rljax.reproduce import papers, runs

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;margin:1rem 0;font-size:14px}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
img{max-width:100%}h2{margin-top:3rem}.yes{color:#176b2c}.no{color:#a02020}.open{color:#8a6100}
code{font-size:12px}
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}th,td{border-color:#444}
img{background:#fff}.yes{color:#7fd494}.no{color:#f09090}.open{color:#e0c070}}
"""


def read(folder: pathlib.Path) -> dict | None:
  """claims.json of a folder with its cost, or None."""
  try:
    record = json.loads((folder / "claims.json").read_bytes())
    return {**record, "cost": json.loads((folder / "cost.json").read_bytes())}
  except (OSError, ValueError):
    return None


def newest(slug: str, results: pathlib.Path) -> dict | None:
  """The record with the latest date: the full run here, the committed one, or a quick run."""
  found = [read(f) for f in (results / slug, papers.RECORDS / slug, results / slug / "quick")]
  full = [r for r in found if r and not r["quick"]]
  return max(full or [r for r in found if r], key=lambda r: r["cost"]["date"], default=None)


def listing(results: pathlib.Path) -> str:
  """A line per paper: category, verdict, relations that hold, last run, cost."""
  rows = [("paper", "category", "verdict", "relations", "last run", "cost")]
  for slug in papers.slugs():
    try:
      paper, record = papers.load(slug), newest(slug, results)
    except config_lib.ConfigError as e:
      rows.append((slug, "", f"cannot be read: {e}", "", "", ""))
      continue
    if record is None:
      rows.append((slug, paper.category, "not run yet", "", "", ""))
      continue
    holds = sum(c["status"] == "holds" for c in record["claims"])
    rows.append((slug, paper.category,
                 record["verdict"] + (" (quick)" if record["quick"] else ""),
                 f"{holds}/{len(record['claims'])}", record["cost"]["date"],
                 runs.duration(record["cost"]["seconds"])))
  widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
  return "\n".join("  ".join(x.ljust(w) for x, w in zip(r, widths)).rstrip() for r in rows)


def write_index(results: pathlib.Path) -> pathlib.Path:
  """results/index.html: a table of all papers found there, then claims and plot of each.

  Raises:
    ConfigError: the folder holds no reproduction.
  """
  found = [(p.parent, read(p.parent)) for p in sorted(results.glob("*/claims.json"))]
  found += [(p.parent, read(p.parent)) for p in sorted(results.glob("*/quick/claims.json"))]
  found = [(f, r) for f, r in found if r is not None]
  if not found:
    raise config_lib.ConfigError(f"{results} holds no run and no reproduction (claims.json)")
  rows = "".join(
      f"<tr><td><a href='#{_anchor(r)}'>{_e(r['title'])}</a></td><td>{_e(r['category'])}</td>"
      f"<td class={_tone(r['verdict'] == 'reproduced')}>{_e(r['verdict'])}</td>"
      f"<td>{'quick' if r['quick'] else 'full'}</td><td>{_e(r['cost']['date'])}</td>"
      f"<td>{runs.duration(r['cost']['seconds'])}</td></tr>" for _, r in found)
  body = "".join(_section(folder, record) for folder, record in found)
  path = results / "index.html"
  path.write_text(
      "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
      "content='width=device-width, initial-scale=1'><title>Reproductions</title>"
      f"<style>{STYLE}</style><h1>Reproductions</h1><table><tr><th>paper<th>category<th>verdict"
      f"<th>run<th>date<th>cost</tr>{rows}</table>{body}</html>\n")
  return path


def _section(folder, record):
  claims = "".join(
      f"<tr><td>{_e(c['says'])}<br><code>{_e(c['rule'])}</code></td>"
      f"<td>{_numbers(c)}</td><td class={_tone(c['status'] == 'holds')}>{_e(c['status'])}</td>"
      f"<td>{_e(c['paper'])}</td></tr>" for c in record["claims"])
  image = ""
  if (folder / "plot.png").exists():
    data = base64.b64encode((folder / "plot.png").read_bytes()).decode()
    image = f"<img alt='curves of {_e(record['slug'])}' src='data:image/png;base64,{data}'>"
  return (f"<h2 id={_anchor(record)}>{_e(record['title'])}</h2>{image}<table><tr><th>claim"
          f"<th>difference [90 %]<th>holds<th>the paper</tr>{claims}</table>")


def _numbers(claim):
  if not claim["left"]:
    return ""
  low, high = claim["interval"]
  return f"{claim['difference']:+.3g} [{low:+.3g}, {high:+.3g}]"


def _anchor(record):
  return record["slug"] + ("-quick" if record["quick"] else "")


def _tone(good):
  return "yes" if good else "no"


def _e(text):
  return html.escape(str(text), quote=True)
