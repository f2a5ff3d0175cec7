// The chart of a run: all its methods against cost, the best of each family in colour, and a small chart of each family and of the controls.
"use strict";

const families = new Map(data.families.map(family => [family.name, family]));
const SIDE_BY_SIDE = matchMedia("(max-width: 40rem)").matches ? 1 : 4;

// How a measure is drawn: where fewer steps are the zero line, on a symmetric logarithm, linear within the usual interval.
function scale(key, points) {
  const cells = points.map(point => point.values[key]), values = cells.map(cell => cell.value);
  if (data.symmetric.includes(key)) {
    const halves = cells.filter(cell => "low" in cell).map(cell => (cell.high - cell.low) / 2).sort((a, b) => a - b);
    const linear = halves[halves.length >> 1] || Math.max(...values.map(Math.abs)) / 10 || 1;
    const most = Math.max(...cells.flatMap(cell => [cell.value, cell.low ?? 0, cell.high ?? 0]).map(Math.abs));
    const ends = [1, 2, 5].flatMap(lead => [-2, -1, 0, 1, 2, 3].map(power => lead * 10 ** power)).filter(end => end > linear && end < 1.2 * most);
    const shown = ends.filter((end, i) => ends.length < 6 || String(end).match(/^0?\.?0*1/));
    const ticks = [0, ...shown, ...shown.map(end => -end)], bend = value => Math.asinh(value / linear);
    return { bend, axis: { tickvals: ticks.map(bend), ticktext: ticks.map(tick => String(tick).replace("-", "−")) }, zero: 0 };
  }
  const low = Math.min(...values), high = Math.max(...values), log = low > 0 && high > 4 * low;
  return { bend: value => value, axis: log ? logarithmic(values) : {}, zero: data.ratios.includes(key) ? 1 : null };
}

// Error bars of a column's intervals on a scale, null where none of the points has one.
function bars(points, key, bend, shade) {
  const cells = points.map(point => point.values[key]);
  if (!cells.some(cell => "low" in cell)) return null;
  const side = (end, sign) => cells.map(cell => end in cell ? Math.max(0, sign * (bend(cell[end]) - bend(cell.value))) : 0);
  return { type: "data", symmetric: false, array: side("high", 1), arrayminus: side("low", -1), color: shade, thickness: 1, width: 3 };
}

function hover(point, x, y) {
  const line = key => `${escaped(title(key))}: ${escaped([point.values[key].text, point.values[key].spread].filter(Boolean).join(" "))}`;
  return `<b>${escaped(point.name)}</b>, budget ${[point.budget, point.mark].filter(Boolean).join(", ")}<br>${escaped(point.label)}<br>${line(x)}<br>${line(y)}`;
}

const shade = point => point.method === "full" ? colour("ink") : point.kind === "control" ? colour("soft") : families.get(point.family)?.colour ?? point.colour;

function trace(points, x, y, own, bright) {
  const first = points[0], full = first.method === "full", ink = bright ? shade(first) : colour("pale");
  return {
    name: first.name, ids: points.map(point => point.id), mode: full ? "markers" : "lines+markers", type: "scatter", showlegend: bright,
    x: points.map(point => point.values[x].value), y: points.map(point => own.bend(point.values[y].value)),
    ...(bright ? { error_x: bars(points, x, value => value, `${ink}70`), error_y: bars(points, y, own.bend, `${ink}70`) } : {}),
    line: { color: ink, width: bright ? 2 : 1, dash: first.kind === "control" ? "dash" : "solid" },
    marker: { color: ink, symbol: first.symbol, size: full ? 15 : bright ? 9 : 6, line: { width: 0 } },
    text: points.map(point => hover(point, x, y)), hovertemplate: "%{text}<extra></extra>",
  };
}

// The methods in colour: those that were looked for, else of each family the one that comes lowest, at whatever cost, the controls, and
// caches on top of fewer steps.
function looked(groups, y) {
  const words = at("chart-find").value.trim().toLowerCase();
  if (words) return new Set(groups.filter(([, of]) => of[0].name.toLowerCase().includes(words)).map(([method]) => method));
  const best = new Map();
  for (const [method, of] of groups) {
    const least = Math.min(...of.map(point => point.values[y].value)), family = of[0].kind === "control" || method.includes("@") ? method : of[0].family;
    if (!best.has(family) || least < best.get(family).least) best.set(family, { least, method });
  }
  return new Set([...best.values()].map(one => one.method));
}

function draw() {
  const run = at("chart-run").value, x = at("chart-x").value, y = at("chart-y").value;
  const points = data.settings.filter(one => one.run === run && one.values[x]?.value != null && one.values[y]?.value != null);
  const own = points.length ? scale(y, points) : { bend: value => value, axis: {}, zero: null };
  const groups = [...Map.groupBy(points, point => point.method)].map(([method, of]) => [method, of.toSorted((a, b) => a.values[x].value - b.values[x].value)]);
  const bright = looked(groups, y);
  const traces = groups.map(([method, of]) => trace(of, x, y, own, bright.has(method))).sort((a, b) => a.showlegend - b.showlegend);
  const full = data.settings.find(one => one.run === run && one.method === "full")?.values ?? {};
  const dotted = { type: "line", layer: "below", line: { color: colour("soft"), width: 1, dash: "dot" } };
  const shapes = own.zero == null ? [] : [{ ...dotted, xref: "paper", x0: 0, x1: 1, y0: own.zero, y1: own.zero, line: { color: colour("ink"), width: 1.5, dash: "dash" } }];
  if (full[y]?.value != null) shapes.push({ ...dotted, xref: "paper", x0: 0, x1: 1, y0: own.bend(full[y].value), y1: own.bend(full[y].value) });
  if (full[x]?.value != null) shapes.push({ ...dotted, yref: "paper", y0: 0, y1: 1, x0: full[x].value, x1: full[x].value });
  const nothing = { text: `No setting of ${escaped(run)} has both numbers.`, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 };
  const steps = { text: "fewer steps", showarrow: false, xref: "paper", x: 1, xanchor: "right", y: own.zero, yanchor: "bottom", font: { size: 11 } };
  Plotly.react("chart", traces, layout({
    xaxis: axis(x), yaxis: axis(y, own.axis), shapes,
    annotations: !points.length ? [nothing] : own.zero == null ? [] : [own.axis.type === "log" ? { ...steps, y: Math.log10(own.zero) } : steps],
    legend: { orientation: "h", y: -0.2, yanchor: "top", font: { size: 11 } },
  }), QUIET);
  multiples(groups, x, y, own);
}

// A small chart of each family and one of the controls, all with the same axes.
function multiples(groups, x, y, own) {
  const family = of => of[0].kind === "cache" ? of[0].family : of[0].method === "full" ? "" : "controls";
  const shown = [...families.keys(), "controls"].filter(name => groups.some(([, of]) => family(of) === name));
  const rows = Math.ceil(shown.length / SIDE_BY_SIDE), extra = { shapes: [], annotations: [] }, traces = [];
  const place = at("families");
  place.hidden = !shown.length;
  if (!shown.length) return;
  place.style.height = `${40 + 190 * rows}px`;
  shown.forEach((name, i) => {
    const mark = i ? String(i + 1) : "", column = i % SIDE_BY_SIDE, row = Math.floor(i / SIDE_BY_SIDE), wide = 1 / SIDE_BY_SIDE, high = 1 / rows;
    extra[`xaxis${mark}`] = axis(null, { domain: [column * wide + 0.03, (column + 1) * wide - 0.01], anchor: `y${mark}`, matches: i ? "x" : undefined, title: { text: i + SIDE_BY_SIDE < shown.length ? "" : title(x), font: { size: 10 } } });
    extra[`yaxis${mark}`] = axis(null, { ...own.axis, domain: [1 - (row + 1) * high + 0.1 * high, 1 - row * high - 0.12 * high], anchor: `x${mark}`, matches: i ? "y" : undefined, showticklabels: !column });
    extra.annotations.push({ text: `<b>${name}</b>`, showarrow: false, xref: "paper", yref: "paper", x: column * wide + 0.03, xanchor: "left", y: 1 - row * high, yanchor: "top", font: { size: 12 } });
    if (own.zero != null) extra.shapes.push({ type: "line", xref: `x${mark} domain`, x0: 0, x1: 1, yref: `y${mark}`, y0: own.zero, y1: own.zero, line: { color: colour("ink"), width: 1, dash: "dash" } });
    for (const [, of] of groups.filter(([, of]) => family(of) === name)) traces.push({ ...trace(of, x, y, own, true), showlegend: false, error_x: null, error_y: null, xaxis: `x${mark}`, yaxis: `y${mark}` });
  });
  Plotly.react(place, traces, layout({ ...extra, margin: { l: 40, r: 10, t: 10, b: 40 } }), { ...QUIET, displayModeBar: false });
}

for (const name of ["run", "x", "y"]) at(`chart-${name}`).addEventListener("change", () => charted(draw));
at("chart-find").addEventListener("input", () => charted(draw));
for (const axisOf of ["x", "y"]) for (const option of at(`chart-${axisOf}`).options) option.disabled = !data.settings.some(one => one.values[option.value]?.value != null);
at("chart-y").value = [...at("chart-y").options].find(option => !option.disabled)?.value ?? at("chart-y").value;
initial.set("chart-y", at("chart-y").value);

// The answer: what "best" means, and which methods count, are two switches.

function answer() {
  const [by, effort] = ["by", "effort"].map(name => document.querySelector(`input[name=${name}]:checked`).value);
  for (const one of document.querySelectorAll(".answer")) one.hidden = one.dataset.by !== by || one.dataset.effort !== effort;
  for (const one of document.querySelectorAll(".league")) one.hidden = one.dataset.by !== (by === "margin" ? "closeness" : by);
}

for (const input of document.querySelectorAll("#answer input")) input.addEventListener("change", answer);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charted(() => { draw(); follow(); }));

function show() {
  recall();
  answer();
  filter();
  charted(draw);
}

show();
addEventListener("hashchange", () => { show(); follow(); });
addEventListener("change", () => remember());
addEventListener("input", () => remember());
charted(() => {
  for (const place of ["chart", "families"]) if (at(place).on) at(place).on("plotly_click", event => { location.hash = event.points[0].id; });
});
follow();
