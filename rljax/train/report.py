"""report.html: one self-contained page about a run, made from its run folder alone.

Whatever the folder lacks becomes a note on the page. `update/skipped` and `faults/*` are taken as
counts per step and summed.
"""

import html
import json
import math
import os
import pathlib
import time
from collections.abc import Mapping

import numpy as np

from rljax import config as config_lib
from rljax.train import report_data, report_page, runlog


def write_report(workdir) -> pathlib.Path:
  """Writes <workdir>/report.html and returns its path. The run may still be going on.

  Raises:
    ConfigError: there is no such folder, or the page cannot be written there.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise config_lib.ConfigError(f"there is no run folder {workdir}")
  path = workdir / "report.html"
  page = _page(workdir)
  try:
    runlog.write_bytes(path, page.encode("utf-8", "replace"))
  except OSError as e:
    raise config_lib.ConfigError(f"cannot write {path}: {e.strerror or e}") from None
  return path


def _page(workdir):
  notes = []
  config = _read(workdir / "config.json", notes)
  result = _read(workdir / "result.json", notes, "the run has not finished, or was stopped")
  preflight = _read(workdir / "preflight.json", notes, optional=True)
  columns = report_data.columns(runlog.read_metrics(workdir))
  if not columns:
    notes.append("metrics.jsonl has no lines: there are no curves.")
  samples = report_data.samples(workdir, notes)
  resolved = config.get("config")
  name = resolved.get("name") if isinstance(resolved, dict) else None
  title = str(name or workdir.resolve().name)
  data = _script_json({"groups": report_data.groups(columns), "samples": samples})
  body = [
      f"<header class=top><h1>{_e(title)}</h1><p class=sub>{_e(_subtitle(workdir, config))}</p>"
      "</header><nav><div><a href='#summary'>Summary</a><a href='#curves'>Curves</a>"
      "<a href='#samples'>Samples</a><a href='#config'>Config</a></div></nav><main>",
      "<noscript><p class=warning>Curves and samples need JavaScript.</p></noscript>",
      _summary(config, result, columns), _preflight(preflight),
      "".join(f"<p class=note>{_e(n)}</p>" for n in notes),
      _curves_section(columns), _samples_section(samples), _config_section(config),
      f"<footer>Written {time.strftime('%Y-%m-%d %H:%M')} by rljax from the run folder.</footer>",
      "</main>"]
  return ("<!doctype html><html lang=en><head><meta charset=utf-8>"
          "<meta name=viewport content='width=device-width, initial-scale=1'>"
          f"<title>{_e(title)}</title><style>{report_page.STYLE}</style></head><body>"
          + "".join(body)
          + f"<script type='application/json' id=data>{data}</script>"
          f"<script>{report_page.SCRIPT}{report_page.BROWSER}</script></body></html>\n")


def _e(text) -> str:
  return html.escape(str(text), quote=True)


def _script_json(value) -> str:
  """JSON that cannot end its <script> block, whatever strings it holds."""
  text = json.dumps(runlog.jsonable(value), allow_nan=False, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _read(path, notes, missing="", optional=False):
  """A JSON file as a dict ({} if there is none, with a note)."""
  try:
    value = json.loads(path.read_bytes())
    return value if isinstance(value, dict) or optional else {}
  except FileNotFoundError:
    if not optional:
      notes.append(f"There is no {path.name}{': ' + missing if missing else ''}.")
  except (OSError, ValueError) as e:
    notes.append(f"{path.name} cannot be read: {e}")
  return {}


def _subtitle(workdir, config):
  versions = config.get("versions")
  versions = versions if isinstance(versions, dict) else {}
  topology = config.get("topology")
  if isinstance(topology, dict):
    topology = ", ".join(f"{k} {v}" for k, v in topology.items())
  parts = [os.fspath(workdir), f"config {config['hash']}" if config.get("hash") else "",
           ", ".join(f"{k} {v}" for k, v in versions.items()), topology]
  return " · ".join(str(p) for p in parts if p)


# --- summary --------------------------------------------------------------------------------------


def _summary(config, result, columns):
  status = str(result.get("status") or "not finished")
  steps = result.get("steps")
  if steps is None and columns:
    steps = 1 + max(int(x[-1]) for x, _ in columns.values())
  seconds = result.get("seconds")
  if seconds is None and "time/step" in columns:
    seconds = float(np.nansum(columns["time/step"][1]))
  speed = result.get("tokens_per_second")
  if speed is None and "time/tokens_per_second" in columns:
    speed = _mean(columns["time/tokens_per_second"][1])
  skipped, faults = _counts(result, columns)
  start, end = _ends(columns.get("reward/mean"))
  tiles = [
      ("status", status, "good" if status in ("done", "ok", "finished", "complete") else ""),
      ("steps", _number(steps), ""), ("time", _duration(seconds), ""),
      ("tokens / s", _number(speed), ""),
      ("mean reward", f"{_number(start, 3)} → {_number(end, 3)}", "wide"),
      ("skipped updates", _number(skipped), "bad" if skipped else ""),
      ("faults", _number(sum(faults.values())), "bad" if any(faults.values()) else "")]
  parts = ["<section id=summary><div class=tiles>"]
  parts += [f"<div class='tile {kind}'><span>{_e(k)}</span><b>{_e(v)}</b></div>"
            for k, v, kind in tiles]
  parts += ["</div>", _eval_table(result, columns)]
  if any(faults.values()):
    rows = "".join(f"<tr><td>{_e(k)}</td><td class=num>{_e(_number(v))}</td></tr>"
                   for k, v in sorted(faults.items()) if v)
    parts.append(f"<div class=card><table><tr><th>fault</th><th class=num>count</th></tr>{rows}"
                 "</table></div>")
  return "".join(parts) + "</section>"


def _counts(result, columns):
  """Skipped updates, and faults by kind: what the result says, else the sums of the curves."""
  skipped, faults = _float(result.get("skipped_updates")), result.get("faults")
  if skipped is None:
    skipped = sum(_total(columns, n) for n in columns if n.endswith("update/skipped"))
  if not isinstance(faults, dict):
    faults = {n[7:]: _total(columns, n) for n in columns if n.startswith("faults/")}
  return skipped, {k: _float(v) or 0 for k, v in faults.items()}


def _eval_table(result, columns):
  found = result.get("eval") if isinstance(result.get("eval"), dict) else {}
  before, after = _flat(found.get("before")), _flat(found.get("after"))
  if not before and not after:  # a run that goes on: what the evaluations said so far
    for name, (_, values) in columns.items():
      if name.startswith("eval/"):
        before[name[5:]], after[name[5:]] = float(values[0]), float(values[-1])
  names = sorted(report_data.tables({**before, **after})[0])
  if not names:
    return "<p class=note>No evaluation was logged.</p>"
  rows = []
  for name in names:
    a, b = before.get(name), after.get(name)
    change = f"{b - a:+.4g}" if _finite(a) and _finite(b) else ""
    rows.append(f"<tr><td>{_e(name)}</td><td class=num>{_e(_number(a))}</td>"
                f"<td class=num><b>{_e(_number(b))}</b></td><td class=num>{_e(change)}</td>"
                f"<td>{_dumbbell(a, b)}</td></tr>")
  return ("<div class=card><table><tr><th>evaluation</th><th class=num>before</th>"
          "<th class=num>after</th><th class=num>change</th><th>0 … 1</th></tr>"
          + "".join(rows) + "</table></div>" + _cell_tables(after))


def _cell_tables(after):
  """Metrics that are cells ("by_category/maths/accuracy"), at the end of the run."""
  out = []
  for title, rows in report_data.tables(after)[1].items():
    names = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    head = "".join(f"<th class=num>{_e(n)}</th>" for n in names)
    body = "".join(
        f"<tr><td>{_e(row)}</td>" + "".join(
            f"<td class=num>{_e(_number(cells.get(n)))}</td>" for n in names) + "</tr>"
        for row, cells in rows.items())
    out.append(f"<div class=card><table><tr><th>{_e(title)}</th>{head}</tr>{body}</table></div>")
  return "".join(out)


def _dumbbell(a, b):
  """Before (ring) and after (dot) on a line from 0 to 1; nothing for other ranges."""
  if not (_finite(a) and _finite(b) and 0 <= min(a, b) and max(a, b) <= 1):
    return ""
  x, y = 6 + 128 * a, 6 + 128 * b
  return ("<svg width=140 height=14 role=img aria-hidden=true><line x1=6 x2=134 y1=7 y2=7 "
          f"stroke='var(--line)' stroke-width=2 /><line x1={x:.1f} x2={y:.1f} y1=7 y2=7 "
          f"stroke='var(--c0)' stroke-width=2 /><circle cx={x:.1f} cy=7 r=4 fill='var(--card)' "
          f"stroke='var(--c0)' stroke-width=1.5 /><circle cx={y:.1f} cy=7 r=4.5 "
          "fill='var(--c0)' /></svg>")


def _preflight(preflight):
  """Accepts a list of warnings, or {"warnings": list}; a warning is text or an object."""
  found = preflight.get("warnings") if isinstance(preflight, dict) else preflight
  if isinstance(found, str | Mapping):
    found = [found]
  if not isinstance(found, list) or not found:
    return ""
  texts = [str(w.get("message") or json.dumps(w)) if isinstance(w, dict) else str(w) for w in found]
  items = "".join(f"<li>{_e(t)}</li>" for t in texts)
  return f"<div class=warning><b>Preflight warnings</b><ul>{items}</ul></div>"


def _curves_section(columns):
  if not columns:
    return "<section id=curves><h2>Curves</h2><p class=note>No metrics were logged.</p></section>"
  return ("<section id=curves><h2>Curves</h2><div class=bar>"
          "<label><input type=checkbox id=opt-smooth checked> smooth</label>"
          "<label><input type=checkbox id=opt-log> logarithmic</label>"
          "<span class=note>over steps; touch or hover for values</span></div>"
          "<div id=charts></div></section>")


def _samples_section(samples):
  if not samples:
    return "<section id=samples><h2>Samples</h2><p class=note>No episodes were kept.</p></section>"
  shows = "".join(f"<option value={v}>{t}</option>" for v, t in (
      ("all", "all"), ("correct", "correct"), ("incorrect", "incorrect"), ("unscored", "unscored"),
      ("length", "cut by length"), ("error", "failed")))
  orders = "".join(f"<option value={v}>{t}</option>" for v, t in (
      ("logged", "as logged"), ("high", "highest reward"), ("low", "lowest reward")))
  return ("<section id=samples><h2>Samples</h2><div class='bar card'>"
          "<select id=phase aria-label=phase></select><button id=prev aria-label='step before'>‹"
          "</button><select id=step aria-label=step></select><button id=next "
          f"aria-label='step after'>›</button><select id=show aria-label=filter>{shows}</select>"
          f"<select id=order aria-label=order>{orders}</select>"
          "<input id=find type=search placeholder='search text' aria-label='search text'>"
          "<span class=note id=count></span></div><div id=browser></div></section>")


def _config_section(config):
  if not config.get("config"):
    return "<section id=config><h2>Config</h2><p class=note>No config was stored.</p></section>"
  text = json.dumps(config["config"], indent=2, sort_keys=True, ensure_ascii=False)
  return ("<section id=config><h2>Config</h2><details class=card><summary>resolved config</summary>"
          f"<pre>{_e(text)}</pre></details></section>")


def _flat(tree, prefix=""):
  """{"a": {"b": 1}} -> {"a/b": 1.0}; what is not a number is left out."""
  out = {}
  for key, value in (tree.items() if isinstance(tree, dict) else ()):
    name = f"{prefix}{key}"
    if isinstance(value, dict):
      out.update(_flat(value, f"{name}/"))
    elif (number := _float(value)) is not None:
      out[name.removeprefix("eval/")] = number
  return out


def _float(value):
  try:
    return float(value)
  except (TypeError, ValueError, OverflowError):
    return None


def _finite(x):
  return x is not None and math.isfinite(x)


def _mean(values):
  values = values[np.isfinite(values)]
  return float(values.mean()) if values.size else None


def _ends(column):
  """Means over the first and the last twentieth of a curve."""
  if column is None:
    return None, None
  n = max(1, len(column[1]) // 20)
  return _mean(column[1][:n]), _mean(column[1][-n:])


def _total(columns, name):
  values = columns[name][1]
  return float(values[np.isfinite(values)].sum())


def _number(x, digits=4):
  x = _float(x)
  if x is None:
    return "–"
  if not math.isfinite(x):
    return str(x)
  return f"{x:,.0f}" if abs(x) >= 1000 or x == int(x) else f"{x:.{digits}g}"


def _duration(seconds):
  s = _float(seconds)
  if not _finite(s):
    return "–"
  if s < 60:
    return f"{s:.1f} s"
  if s < 3600:
    return f"{s // 60:.0f} min {s % 60:02.0f} s"
  return f"{s // 3600:.0f} h {s % 3600 // 60:02.0f} min"
