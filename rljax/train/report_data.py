"""What report.html shows of metrics and episodes, cut down to a size that a page can hold.

A sample counts as correct when its score "correct", else "accuracy", else "reward", is above 0.5.
"""

import json
import math

import numpy as np

from rljax.train import runlog

GROUPS = (
    ("Evaluation", ("eval",)),
    ("Reward and its parts", ("reward", "adv")),
    ("Length and truncation", ("episode",)),
    ("Entropy", ("policy",)),
    ("KL", ("kl",)),
    ("Sampler / trainer mismatch", ("mismatch",)),
    ("Loss, gradient and update", ("loss", "grad", "update", "pg")),
    ("Time", ("time",)),
    ("Faults", ("faults",)),
)
UNITS = {
    "episode/length": "tokens", "episode/truncated": "fraction", "policy/entropy": "nats",
    "kl/ref": "nats", "kl/behav": "nats", "mismatch/kl": "nats", "mismatch/max": "nats",
    "mismatch/mean_abs": "nats", "time/tokens_per_second": "tokens / s",
}
HEADLINES = ("/mean", "/total", "/norm", "/length")  # first of their group
PLAIN = ("faults", "eval", "update")  # not smoothed: single events, or few points
SPEED = "time/tokens_per_second"
TABLE = "/by_"  # in the name of a metric that is one cell: "eval/test/by_category/maths/accuracy"
POINTS = 120_000  # of all curves together, about 2.5 MB
SAMPLE_BYTES = 1_800_000
# (characters of a text, samples of a step): the first that fits SAMPLE_BYTES is used.
SAMPLE_CAPS = ((6000, 24), (3000, 24), (3000, 12), (1500, 12), (800, 8), (300, 4), (100, 2))
SAMPLE_STEPS = 32
MEDIA, MEDIA_BYTES = 16, 50_000  # pictures of a sample, characters of each
EPISODE_FILES = 8


# --- curves ---------------------------------------------------------------------------------------


def columns(rows: list[dict[str, float]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Metrics by name, in order of logging: (steps, values), float64 [n] each."""
  found = {}
  for row in rows:
    for name, value in row.items():
      if name != "step":
        xs, ys = found.setdefault(name, ([], []))
        xs.append(row["step"])
        ys.append(value)
  return {k: (np.array(x, np.float64), np.array(y, np.float64)) for k, (x, y) in found.items()}


def groups(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict]:
  """[{"title", "charts": [{"name", "unit", "dots", "bad", "series": [{"name", "x", "y", "s"}]}]}].

  Every metric is in exactly one chart, but those that `tables` shows; names of no known group are
  in "Other".
  """
  found = {name: curve for name, curve in found.items() if TABLE not in name}
  points = max(40, min(600, POINTS // max(1, len(found))))
  titles = {kind: title for title, kinds in GROUPS for kind in kinds}
  rank = {kind: i for i, kind in enumerate(titles)}
  out = {title: [] for title, _ in GROUPS} | {"Other": []}
  parts = sorted(n for n in found if n.startswith("time/") and n != SPEED)
  parts.sort(key=lambda n: n != "time/step")
  if parts:
    out["Time"].append(_chart("time per step", parts, found, points, unit="s"))
  rest = [n for n in found if n not in parts]
  for name in sorted(rest, key=lambda n: (rank.get(_kind(n), 99), not n.endswith(HEADLINES), n)):
    unit = UNITS.get("/".join(name.split("/")[-2:]), "")
    out[titles.get(_kind(name), "Other")].append(_chart(name, [name], found, points, unit=unit))
  return [{"title": title, "charts": charts} for title, charts in out.items() if charts]


def tables(flat: dict[str, float]) -> tuple[dict[str, float], dict[str, dict[str, dict]]]:
  """(what is no cell of a table, title -> row -> column -> value), both in the order given."""
  plain, found = {}, {}
  for name, value in flat.items():
    before, mark, cell = f"/{name}".rpartition(TABLE)
    if not mark:
      plain[name] = value
      continue
    key, row, column = (*cell.split("/", 2), "", "")[:3]
    title = f"{before.strip('/')} by {key}".strip()
    found.setdefault(title, {}).setdefault(row, {})[column] = value
  return plain, found


def _kind(name):
  """The "loss" of "loss/total", and of "solver/loss/total": a name may start with its update."""
  parts = name.split("/")
  kinds = {kind for _, kinds in GROUPS for kind in kinds}
  inner = len(parts) > 2 and parts[0] != "eval" and parts[1] in kinds
  return parts[1] if inner else parts[0]


def _chart(title, names, found, points, *, unit):
  dots = all(n.startswith("eval/") for n in names)
  return {
      "name": title, "unit": unit, "dots": dots,
      "bad": int(sum(np.sum(~np.isfinite(found[n][1])) for n in names)),
      "series": [_series(n, *found[n], points) for n in names],
  }


def _series(name, x, y, points):
  plain = _kind(name) in PLAIN or len(y) < 20
  smooth = None if plain else moving_mean(y, max(3, len(y) // 20))
  keep = buckets(y, points)
  return {"name": name, "x": [int(v) for v in x[keep]], "y": _short(y[keep]),
          "s": None if smooth is None else _short(smooth[keep])}


def buckets(y: np.ndarray, points: int) -> np.ndarray:
  """Indices, ascending, of at most `points` values: the least and the largest of each bucket.

  So that a spike of one step survives, which a mean or every n-th value would lose. The first and
  the last value are kept.
  """
  n = len(y)
  if n <= points:
    return np.arange(n)
  edges = np.linspace(0, n, max(1, (points - 2) // 2) + 1).astype(int)
  low, high = np.where(np.isfinite(y), y, np.inf), np.where(np.isfinite(y), y, -np.inf)
  keep = {0, n - 1}
  for a, b in zip(edges[:-1], edges[1:]):
    keep |= {a + int(np.argmin(low[a:b])), a + int(np.argmax(high[a:b]))}
  return np.array(sorted(keep))


def moving_mean(y: np.ndarray, width: int) -> np.ndarray:
  """Mean over a centred window of about `width` values (shorter at the ends); skips non-finite."""
  good = np.isfinite(y)
  total = np.concatenate([[0.0], np.cumsum(np.where(good, y, 0.0))])
  count = np.concatenate([[0], np.cumsum(good)])
  i = np.arange(len(y))
  a, b = np.maximum(0, i - width // 2), np.minimum(len(y), i + width // 2 + 1)
  weight = count[b] - count[a]
  return np.where(weight > 0, (total[b] - total[a]) / np.maximum(weight, 1), np.nan)


def _short(values):
  """Five digits are more than a screen can show; None where there is no number."""
  return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.tolist()]


# --- samples --------------------------------------------------------------------------------------


def samples(workdir, notes: list[str]) -> list[dict]:
  """[{"phase", "step", "logged", "samples": [...]}], first and last step of every phase included.

  The phase is `info["phase"]` ("eval/<name>"), else "train". Reads a few of the files and parses a
  few lines of each step, so that hundreds of megabytes of episodes take seconds.
  """
  files = _spread(runlog.episode_files(workdir), EPISODE_FILES)
  try:
    chosen = _choose(files)
    logged, records = _load(files, chosen)
  except OSError as e:
    notes.append(f"The episodes cannot be read: {e}")
    return []
  for length, count in SAMPLE_CAPS:
    out = [{"phase": phase, "step": step, "logged": logged[phase, step],
            "samples": [_sample(r, length) for r in _spread(found, count)]}
           for (phase, step), found in sorted(records.items())]
    text = json.dumps(out)
    if len(text) + 5 * sum(text.count(c) for c in "<>&") <= SAMPLE_BYTES:  # as escaped in the page
      break
  return out


def _choose(files) -> set[tuple[str, int]]:
  """The (phase, step) pairs to show, judged by the first record of each logged batch."""
  steps = {}
  for path in files:
    for text, _ in runlog.members(path):
      record = _record(text.partition(b"\n")[0])
      if record is not None:
        steps.setdefault(_phase(record), {})[record["step"]] = None
  each = max(4, SAMPLE_STEPS // max(1, len(steps)))
  return {(phase, step) for phase, found in steps.items() for step in _spread(list(found), each)}


def _load(files, chosen):
  """Counts of the records logged, and some records, by (phase, step)."""
  logged, records = {}, {}
  for path in files:
    for text, _ in runlog.members(path):
      lines = text.splitlines()
      first = _record(lines[0]) if lines else None
      key = first and (_phase(first), first["step"])
      if key not in chosen:
        continue
      for record in filter(None, map(_record, _spread(lines, 2 * SAMPLE_CAPS[0][1]))):
        records.setdefault((_phase(record), record["step"]), []).append(record)
      logged[key] = logged.get(key, 0) + len(lines)
  return {k: max(logged.get(k, 0), len(v)) for k, v in records.items()}, records


def _record(line):
  try:
    record = json.loads(line)
  except ValueError:
    return None
  good = isinstance(record, dict) and isinstance(record.get("step"), int)
  return record if good else None


def _phase(record):
  return str(_dict(record.get("info")).get("phase") or "train")


def _sample(record, length):
  """One sample for the page: strings, and numbers that JSON can hold."""
  scores = _dict(record.get("scores"))
  numbers = {k: _number(v) for k, v in scores.items()}
  judged = next((numbers[k] for k in ("correct", "accuracy", "reward") if k in numbers), None)
  info = {**_dict(record.get("task_info")), **_dict(record.get("info"))}
  info.pop("phase", None)
  answer = record.get("answer")
  return {
      "task": _cut(record.get("task", ""), 200), "group": record.get("group"),
      "status": str(record.get("status", "")),
      "answer": "" if answer is None else _cut(answer, length),
      "info": _cut(info, length) if info else "",
      "scores": [[_cut(k, 60), _cut(scores[k], 60) if v is None else v]
                 for k, v in list(numbers.items())[:20]],
      "reward": numbers.get("reward", judged), "ok": None if judged is None else judged > 0.5,
      "texts": _texts(record, length), "media": _media(record),
  }


def _media(record):
  """The pictures of the prompt, base64 of PNG."""
  found = record.get("media")
  good = [m for m in found if isinstance(m, str)] if isinstance(found, list) else []
  return [m for m in good[:MEDIA] if len(m) <= MEDIA_BYTES]


def _texts(record, length):
  """[label, text, did the policy say it]: prompt and response, or the turns if there are more."""
  turns = [t for t in record.get("turns") or [] if isinstance(t, dict)]
  said = [t for t in turns if t.get("role") == "assistant"]
  if len(said) <= 1 and len(turns) <= 2:
    tokens = f" · {said[0].get('tokens')} tokens" if said else ""
    return [["prompt", _cut(record.get("prompt", ""), length), 0],
            [f"response{tokens}", _cut(record.get("response", ""), length), 1]]
  shown = turns if len(turns) <= 24 else turns[:12] + turns[-12:]
  each = max(100, 2 * length // max(1, len(shown)))
  texts = [[f"{t.get('role', '')} · {t.get('tokens', '?')} tokens", _cut(t.get("text", ""), each),
            int(t.get("role") == "assistant")] for t in shown]
  if len(shown) < len(turns):
    texts.insert(12, [f"{len(turns) - len(shown)} turns are left out here", "", 0])
  return texts


def _cut(value, length):
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  if len(text) <= length:
    return text
  head, tail = 2 * length // 3, length // 3
  return f"{text[:head]}\n[... {len(text) - head - tail:,} characters left out ...]\n{text[-tail:]}"


def _dict(value):
  return value if isinstance(value, dict) else {}


def _number(value):
  try:
    number = float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return number if math.isfinite(number) else None


def _spread(items, count):
  """At most `count` items at even distances, the first and the last among them."""
  if len(items) <= count:
    return items
  return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
