// The page's interaction: tables that sort, a leaderboard that filters, the Pareto chart, and a panel for each setting.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
for (const setting of data.settings) if (setting.fit) setting.fit = data.fits[setting.fit];
const settings = new Map(data.settings.map(setting => [setting.id, setting]));
const pictures = () => pictures.of ??= JSON.parse(at("images").textContent); // of {row or run}, once a row is looked at
const at = id => document.getElementById(id);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const title = key => [data.columns[key].title, data.columns[key].unit].filter(Boolean).join(", ");
const escaped = text => String(text).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`);
const QUIET = { displaylogo: false, responsive: true, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]] };
const TOUCH = matchMedia("(pointer: coarse)").matches; // where a drag scrolls the page, not the chart

// An element with properties and children; text is always text, never markup.
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Tables: a click on a heading sorts the rows of each group; rows without numbers stay last.

function sortTable(table, index, sign) {
  const heads = [...table.querySelectorAll("thead th")];
  sign ??= heads[index].getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heads.forEach(head => head.removeAttribute("aria-sort"));
  heads[index].setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const value = row => {
    const cell = row.cells[index];
    return "value" in cell.dataset ? parseFloat(cell.dataset.value) : cell.textContent;
  };
  const order = (a, b) => {
    const x = value(a), y = value(b);
    if (typeof x === "string") return sign * x.localeCompare(y);
    return isNaN(x) - isNaN(y) || sign * (x - y) || 0;
  };
  for (const body of table.tBodies) {
    const rows = [...body.querySelectorAll("tr:not(.group)")];
    const off = rows.filter(row => row.classList.contains("off"));
    body.append(...rows.filter(row => !off.includes(row)).sort(order), ...off);
  }
}

addEventListener("click", event => {
  const head = event.target.closest?.("thead button")?.parentElement, table = head?.closest("table");
  if (head) sortTable(table, head.cellIndex);
  if (table === at("board")) remember();
});

// Leaderboard: what the filters leave; the full run is the reference at every budget and beside every kind.

function filter() {
  const [scope, ...words] = at("filter-where").value.split(" ");
  const where = words.join(" "), budget = at("filter-budget").value, kind = at("filter-kind").value;
  const rows = [...at("board").tBodies[0].rows];
  for (const row of rows) {
    const reference = row.dataset.kind === "full";
    row.hidden = (scope && row.dataset[scope] !== where)
      || (!reference && budget && row.dataset.budget !== budget)
      || (!reference && kind && row.dataset.kind !== kind)
      || (!at("filter-empty").checked && row.classList.contains("off"));
  }
  at("shown").value = `${rows.filter(row => !row.hidden).length} of ${rows.length} rows`;
}

for (const name of ["where", "budget", "kind", "empty"]) at(`filter-${name}`).addEventListener("change", filter);
at("filter-where").addEventListener("change", () => {
  const [scope, ...words] = at("filter-where").value.split(" ");
  const first = data.runs.find(run => scope === "run" ? run.name === words.join(" ") : run.backbone === words.join(" "));
  if (first) at("chart-run").value = first.name;
  charted(draw);
});

// Charts

// Does what needs the charts' library: now, or once that is there.
function charted(action) {
  if (window.Plotly) action();
  else addEventListener("plotly", action, { once: true });
}

function axis(key, extra = {}) {
  const line = colour("line");
  return { title: { text: key && title(key), font: { size: 13 } }, gridcolor: line, linecolor: line, zeroline: false, automargin: true, ...extra };
}

// A log axis; powers of ten only where it spans more than about one.
function logarithmic(values) {
  const decades = Math.log10(Math.max(...values) / Math.min(...values));
  return { type: "log", exponentformat: "power", ...(decades > 1.2 ? { dtick: 1 } : {}) };
}

function layout(extra) {
  const ink = colour("ink");
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: ink, size: 12, family: "system-ui, sans-serif" },
    margin: { l: 60, r: 16, t: 34, b: 50 }, hovermode: "closest", dragmode: TOUCH ? false : "zoom",
    hoverlabel: { bgcolor: colour("band"), bordercolor: colour("line"), font: { color: ink }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("mark") }, ...extra,
  };
}

// The address after # has the row that is open, and after ? what was switched, so that a link shows what its sender saw.

const SWITCHES = ["chart-run", "chart-x", "chart-y", "chart-find", "filter-where", "filter-budget", "filter-kind", "filter-empty"];
const READ = { sort: () => order(), "filter-empty": () => String(at("filter-empty").checked) }; // what has no value of its own
const value = name => READ[name]?.() ?? at(name)?.value ?? document.querySelector(`input[name=${name}]:checked`).value;
const initial = new Map([...SWITCHES, "by", "effort", "sort"].map(name => [name, value(name)]));
const row = () => decodeURIComponent(location.hash.slice(1).split("?")[0]);

// The column by which the leaderboard is sorted, from 1, negative where that falls; "" as it came.
function order() {
  const heads = [...at("board").tHead.rows[0].cells], index = heads.findIndex(head => head.hasAttribute("aria-sort"));
  return index < 0 ? "" : String(heads[index].getAttribute("aria-sort") === "ascending" ? index + 1 : -index - 1);
}

function remember(opened = row()) {
  const changed = [...initial].filter(([name, first]) => value(name) !== first).map(([name]) => [name, value(name)]);
  history.replaceState(null, "", `#${opened}${changed.length ? `?${new URLSearchParams(changed)}` : ""}`);
}

function recall() {
  for (const [name, text] of new URLSearchParams(location.hash.split("?")[1] ?? "")) {
    const radio = [...document.querySelectorAll(`input[name=${CSS.escape(name)}]`)].find(input => input.value === text);
    if (radio) radio.checked = true;
    else if (name === "filter-empty") at(name).checked = text === "true";
    else if (name === "sort") sortAgain(Number(text));
    else if (SWITCHES.includes(name)) at(name).value = text;
  }
}

function sortAgain(column) {
  const index = Math.abs(column) - 1;
  if (at("board").tHead.rows[0].cells[index] && order() !== String(column)) sortTable(at("board"), index, Math.sign(column));
}

function follow() {
  const setting = settings.get(row());
  for (const line of at("board").tBodies[0].rows) line.classList.toggle("opened", line.dataset.id === setting?.id);
  if (setting) open(setting);
  else if (at("panel").open) at("panel").close();
  remember();
}

at("panel").addEventListener("close", () => { if (settings.has(row())) remember(""); });
at("panel").addEventListener("click", event => { if (event.target === at("panel")) at("panel").close(); });
