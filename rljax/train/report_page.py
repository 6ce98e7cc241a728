"""The fixed parts of report.html: style and script, inline, with no request to anywhere.

The script reads one JSON block (`#data`) that `report` writes, and puts text into the page only
through `textContent`, so that nothing an episode says can become markup.
"""

STYLE = """
:root { color-scheme: light dark; --bg:#f6f7f9; --card:#fff; --fg:#1b1f24; --muted:#667080;
  --line:#e2e5ea; --soft:#eef1f5; --accent:#2466d1; --good:#18794e; --goodbg:#e3f4ea; --bad:#b42318;
  --badbg:#fdeae8; --warn:#8a5a00; --warnbg:#fff4d9; --c0:#2466d1; --c1:#c4501b; --c2:#1d8a5f;
  --c3:#8a4fc7; --c4:#b3307a; --c5:#6b7280; }
@media (prefers-color-scheme: dark) { :root { --bg:#0f1216; --card:#181c22; --fg:#e7eaee;
  --muted:#98a2b0; --line:#2a3039; --soft:#20262e; --accent:#74a9ff; --good:#5fd39a;
  --goodbg:#12311f; --bad:#ff8d82; --badbg:#3a1a17; --warn:#f2c463; --warnbg:#35290f;
  --c0:#74a9ff; --c1:#ff9a62; --c2:#54c99a; --c3:#bf95f5; --c4:#f083b9; --c5:#98a2b0; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 3.2rem; }
body { margin:0; background:var(--bg); color:var(--fg); font:15px/1.5 system-ui, -apple-system,
  "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header.top { max-width: 1240px; margin: 0 auto; padding: 0 16px; }
header.top { padding-top: 22px; }
h1 { font-size: 1.55rem; margin: 0; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 34px 0 10px; }
h3 { font-size: .8rem; margin: 22px 0 8px; color: var(--muted); font-weight: 600;
  text-transform: uppercase; letter-spacing: .05em; }
.sub { color: var(--muted); margin: 2px 0 0; overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 2; background: var(--bg); margin-top: 12px;
  border-bottom: 1px solid var(--line); }
nav div { max-width: 1240px; margin: 0 auto; padding: 8px 16px; display: flex; gap: 20px;
  overflow-x: auto; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(132px, 1fr)); gap: 10px;
  margin: 16px 0; }
.tile, .card, .chart { background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.tile { padding: 10px 12px; }
.tile b { display: block; font-size: 1.08rem; line-height: 1.5; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { color: var(--muted); font-size: .8rem; }
.tile.wide { grid-column: span 2; }
.tile.good b { color: var(--good); } .tile.bad b { color: var(--bad); }
.card { padding: 12px 16px; margin: 10px 0; overflow-x: auto; }
.note { color: var(--muted); margin: 8px 0; }
.warning { background: var(--warnbg); color: var(--warn); border-radius: 10px; padding: 10px 16px;
  margin: 10px 0; overflow-wrap: anywhere; }
.warning ul { margin: 4px 0 0; padding-left: 20px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--muted); font-size: .8rem; }
th, td { padding: 5px 18px 5px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr:last-child td { border-bottom: 0; } .num { text-align: right; }
td svg { display: block; }
.charts { display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); }
.chart { padding: 9px 10px 4px; min-width: 0; }
.chart .head { display: flex; justify-content: space-between; gap: 10px; font-size: .82rem;
  align-items: baseline; }
.chart .name { font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.chart .unit { color: var(--muted); font-weight: 400; }
.chart .read { color: var(--muted); white-space: nowrap; font-variant-numeric: tabular-nums; }
.chart .legend { font-size: .76rem; color: var(--muted); display: flex; gap: 4px 14px;
  flex-wrap: wrap; font-variant-numeric: tabular-nums; }
.chart .legend i { display: inline-block; width: 12px; height: 3px; border-radius: 2px;
  vertical-align: middle; margin-right: 5px; }
.chart svg { display: block; width: 100%; height: 150px; touch-action: pan-y; }
.chart text { fill: var(--muted); font-size: 10.5px; font-variant-numeric: tabular-nums; }
.bar { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; font-size: .88rem; }
select, input[type=search], button { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 7px; padding: 4px 9px; max-width: 100%; }
input[type=search] { flex: 1 1 170px; min-width: 0; }
button { cursor: pointer; } button:hover { border-color: var(--accent); }
.sample .head { display: flex; flex-wrap: wrap; gap: 4px 8px; align-items: center;
  font-size: .85rem; }
.badge { border-radius: 20px; padding: 1px 9px; font-size: .78rem; background: var(--soft);
  color: var(--muted); white-space: nowrap; }
.badge.good { background: var(--goodbg); color: var(--good); }
.badge.bad { background: var(--badbg); color: var(--bad); }
.badge.warn { background: var(--warnbg); color: var(--warn); }
.id { color: var(--muted); overflow-wrap: anywhere; flex: 1 1 auto; }
.label { color: var(--muted); font-size: .75rem; margin: 8px 0 2px; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft);
  border-radius: 7px; padding: 7px 10px; max-height: 320px; overflow-y: auto;
  font: 13px/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.media { display: flex; flex-wrap: wrap; gap: 6px; }
.media img { height: 84px; image-rendering: pixelated; border: 1px solid var(--line); }
pre.said { border-left: 3px solid var(--accent); }
details summary { cursor: pointer; } #config pre { max-height: none; margin-top: 10px; }
footer { color: var(--muted); font-size: .8rem; padding: 26px 0 40px; }
@media (max-width: 560px) { th:nth-child(5), td:nth-child(5) { display: none; }
  .chart .read { font-size: .76rem; } h2 { margin-top: 26px; } }
"""

SCRIPT = r"""
"use strict";
const D = JSON.parse(document.getElementById("data").textContent);
function el(tag, cls, text) {
  const e = document.createElement(tag);
  if (cls) e.className = cls;
  if (text !== undefined) e.textContent = text;
  return e;
}
function svg(parent, tag, attrs, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const k in attrs) e.setAttribute(k, attrs[k]);
  if (text !== undefined) e.textContent = text;
  parent.appendChild(e);
  return e;
}
function num(v) {
  if (v === null || v === undefined) return "-";
  const a = Math.abs(v);
  if (a !== 0 && (a < 1e-3 || a >= 1e7)) return (+v.toPrecision(3)).toExponential();
  if (a >= 1e4) return Math.round(v).toLocaleString("en-US");
  return String(+v.toPrecision(4));
}
function logTicks(lo, hi) {  // values; lo and hi are their decimal logarithms
  const jump = Math.max(1, Math.ceil((hi - lo) / 4)), out = [];
  for (let e = Math.floor(lo); e <= hi; e += jump)
    for (const f of hi - lo < 2.5 ? [1, 2, 5] : [1])
      if (e + Math.log10(f) >= lo && e + Math.log10(f) <= hi) out.push(f * 10 ** e);
  return out.length > 2 ? out : ticks(10 ** lo, 10 ** hi);
}
function ticks(lo, hi) {
  const raw = (hi - lo) / 3, p = Math.pow(10, Math.floor(Math.log10(raw))), f = raw / p;
  const step = p * (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10), out = [];
  for (let i = Math.ceil(lo / step); i * step <= hi + step * 1e-9; i++)
    out.push(+(i * step).toPrecision(9));
  return out;
}

const charts = [], option = { smooth: true, log: false };
function addChart(parent, spec) {
  const box = el("div", "chart"), head = el("div", "head"), name = el("div", "name", spec.name);
  const read = el("div", "read"), root = svg(box, "svg", {role: "img", "aria-label": spec.name});
  if (spec.unit) name.appendChild(el("span", "unit", " " + spec.unit));
  name.title = spec.name + (spec.bad ? " (" + spec.bad + " values are not finite)" : "");
  head.append(name, read);
  box.prepend(head);
  const multi = spec.series.length > 1, values = [];
  if (multi) {
    const legend = el("div", "legend");
    spec.series.forEach((s, i) => {
      const item = el("span"), swatch = el("i"), v = el("span");
      swatch.style.background = "var(--c" + i % 6 + ")";
      item.append(swatch, s.name + " ", v);
      values.push(v);
      legend.appendChild(item);
    });
    box.appendChild(legend);
  }
  parent.appendChild(box);
  const chart = { draw };
  let cursor = null, X = null, Y = null, B = null;
  function readout(step) {
    const last = step === null, s0 = spec.series[0];
    const at = spec.series.map(s => last ? s.x.length - 1 : nearest(s.x, step));
    spec.series.forEach((s, i) => { if (multi) values[i].textContent = num(s.y[at[i]]); });
    const x = s0.x[at[0]], smooth = option.smooth && s0.s ? s0.s[at[0]] : null;
    if (multi) read.textContent = last ? "" : "step " + x;
    else if (last) read.textContent = "last " + num(s0.y[at[0]]);
    else read.textContent = x + ": " + num(s0.y[at[0]]) +
      (smooth === null ? "" : ", mean " + num(+smooth.toPrecision(3)));
    if (last && spec.bad) read.textContent += " \u26a0 " + spec.bad + " not finite";
    if (cursor && X) {
      cursor.setAttribute("visibility", last ? "hidden" : "visible");
      if (!last) { cursor.setAttribute("x1", X(x)); cursor.setAttribute("x2", X(x)); }
    }
  }
  function draw() {
    const W = box.clientWidth - 20, H = 150, L = 50, R = 6, T = 8, F = 18;
    root.setAttribute("viewBox", "0 0 " + W + " " + H);
    root.replaceChildren();
    const all = spec.series.flatMap(s => s.y).filter(v => v !== null);
    if (!all.length) {
      svg(root, "text", {x: W / 2, y: H / 2, "text-anchor": "middle"}, "no finite values");
      return;
    }
    const log = option.log && all.every(v => v > 0), t = log ? Math.log10 : v => v;
    let lo = Infinity, hi = -Infinity, a = Infinity, b = -Infinity;
    for (const v of all) { lo = Math.min(lo, t(v)); hi = Math.max(hi, t(v)); }
    for (const s of spec.series) { a = Math.min(a, s.x[0]); b = Math.max(b, s.x[s.x.length - 1]); }
    if (hi - lo <= 1e-9 * Math.abs(hi)) {  // a constant sits in the middle
      const d = Math.abs(hi) * .1 || 1;
      lo -= d; hi += d;
    }
    const pad = (hi - lo) * .04;
    lo -= pad; hi += pad;
    if (a === b) { a -= 1; b += 1; }
    X = v => L + (v - a) / (b - a) * (W - L - R);
    Y = v => T + (hi - t(v)) / (hi - lo) * (H - T - F);
    B = p => a + (p - L) / (W - L - R) * (b - a);
    for (const v of log ? logTicks(lo, hi) : ticks(lo, hi)) {
      const y = Y(v);
      svg(root, "line", {x1: L, x2: W - R, y1: y, y2: y, stroke: "var(--line)"});
      svg(root, "text", {x: L - 6, y: y + 3.5, "text-anchor": "end"}, num(v));
    }
    for (const [v, anchor] of [[a, "start"], [(a + b) / 2, "middle"], [b, "end"]])
      svg(root, "text", {x: X(v), y: H - 4, "text-anchor": anchor}, num(Math.round(v)));
    spec.series.forEach((s, i) => {
      const color = "var(--c" + i % 6 + ")", smooth = option.smooth && s.s;
      line(s.x, s.y, color, smooth ? .28 : 1, smooth ? 1 : 1.6);
      if (smooth) line(s.x, s.s, color, 1, 1.8);
      if (spec.dots || s.x.length === 1) s.x.forEach((x, j) => {
        if (s.y[j] !== null) svg(root, "circle", {cx: X(x), cy: Y(s.y[j]), r: 2.6, fill: color});
      });
    });
    cursor = svg(root, "line", {y1: T, y2: H - F, stroke: "var(--muted)", visibility: "hidden"});
    readout(null);
  }
  function line(xs, ys, stroke, opacity, width) {
    let d = "", pen = "M";
    xs.forEach((x, i) => {
      if (ys[i] === null) { pen = "M"; return; }
      d += pen + X(x).toFixed(1) + " " + Y(ys[i]).toFixed(1); pen = "L";
    });
    svg(root, "path", {d, fill: "none", stroke, "stroke-opacity": opacity, "stroke-width": width,
                       "stroke-linejoin": "round"});
  }
  const move = e => { if (B) readout(B(e.clientX - root.getBoundingClientRect().left)); };
  root.addEventListener("pointermove", move);
  root.addEventListener("pointerdown", move);
  root.addEventListener("pointerleave", () => readout(null));
  charts.push(chart);
  draw();
}
function nearest(xs, v) {
  let lo = 0, hi = xs.length - 1;
  while (hi - lo > 1) { const m = (lo + hi) >> 1; if (xs[m] < v) lo = m; else hi = m; }
  return Math.abs(xs[lo] - v) <= Math.abs(xs[hi] - v) ? lo : hi;
}
const curves = document.getElementById("charts");
for (const group of D.groups) {
  curves.appendChild(el("h3", "", group.title));
  const grid = el("div", "charts");
  curves.appendChild(grid);
  for (const spec of group.charts) addChart(grid, spec);
}
const redraw = () => charts.forEach(c => c.draw());
for (const key of ["smooth", "log"]) {
  const box = document.getElementById("opt-" + key);
  if (box) box.addEventListener("change", () => { option[key] = box.checked; redraw(); });
}
let timer = 0, wide = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === wide) return;  // a phone resizes while it scrolls
  wide = innerWidth; clearTimeout(timer); timer = setTimeout(redraw, 120);
});
"""

BROWSER = r"""
const $ = id => document.getElementById(id), browser = $("browser");
if (browser && D.samples.length) {
  const phases = [...new Set(D.samples.map(s => s.phase))];
  for (const p of phases) $("phase").add(new Option(p, p));
  $("phase").addEventListener("change", () => fillSteps());
  for (const id of ["step", "show", "order"]) $(id).addEventListener("change", list);
  $("find").addEventListener("input", list);
  for (const [id, d] of [["prev", -1], ["next", 1]]) $(id).addEventListener("click", () => {
    const s = $("step"), i = s.selectedIndex + d;
    if (i >= 0 && i < s.options.length) { s.selectedIndex = i; list(); }
  });
  fillSteps();
}
function fillSteps() {
  const steps = D.samples.filter(s => s.phase === $("phase").value);
  $("step").replaceChildren();
  steps.forEach((s, i) => {
    const mark = i === 0 ? " (first)" : i === steps.length - 1 ? " (last)" : "";
    $("step").add(new Option("step " + s.step + (steps.length > 1 ? mark : ""), s.step));
  });
  $("step").selectedIndex = steps.length - 1;
  list();
}
function list() {
  const phase = $("phase").value, step = $("step").value, show = $("show").value;
  const all = D.samples.find(s => s.phase === phase && String(s.step) === step) || {samples: []};
  const find = $("find").value.toLowerCase(), order = $("order").value;
  const wanted = {correct: s => s.ok === true, incorrect: s => s.ok === false,
                  unscored: s => s.ok === null, all: s => true}[show] || (s => s.status === show);
  const text = s => [s.task, s.answer, s.info, ...s.texts.map(t => t[1])].join("\n").toLowerCase();
  const found = all.samples.filter(s => wanted(s) && (!find || text(s).includes(find)));
  const key = s => s.reward === null ? -1e300 : s.reward;
  if (order === "high") found.sort((a, b) => key(b) - key(a));
  if (order === "low") found.sort((a, b) => key(a) - key(b));
  browser.replaceChildren(...found.map(card));
  $("count").textContent = found.length + " of " + all.samples.length + " shown here" +
    (all.logged > all.samples.length ? ", " + all.logged + " logged" : "");
  if (!found.length) browser.appendChild(el("p", "note", "No sample fits the filter."));
}
function card(s) {
  const box = el("div", "card sample"), head = el("div", "head");
  head.appendChild(s.ok === null ? el("span", "badge warn", "unscored") :
    el("span", "badge " + (s.ok ? "good" : "bad"), s.ok ? "correct" : "incorrect"));
  head.appendChild(el("span", "id", s.task + (s.group === null ? "" : " \u00b7 group " + s.group)));
  head.appendChild(el("span", "badge" + (s.status === "stop" ? "" : " warn"), s.status));
  for (const [k, v] of s.scores)
    head.appendChild(el("span", "badge", k + " " + (typeof v === "number" ? num(v) : v)));
  box.appendChild(head);
  if (s.media.length) {
    const row = el("div", "media");
    for (const m of s.media) row.appendChild(el("img")).src = "data:image/png;base64," + m;
    box.append(el("div", "label", "images"), row);
  }
  for (const [role, text, said] of s.texts) {
    box.append(el("div", "label", role), el("pre", said ? "said" : "", text));
  }
  if (s.answer !== "") box.append(el("div", "label", "task answer"), el("pre", "", s.answer));
  if (s.info !== "") {
    const more = el("details"), label = el("summary", "label", "info");
    more.append(label, el("pre", "", s.info));
    box.appendChild(more);
  }
  return box;
}
"""
