// The panel of a row: the address after # names it, so that a link opens it and "back" closes it.
"use strict";

function heatmap(place, setting, z = setting.computed, single = false) {
  const gap = z[0].length <= 60 ? 1 : 0, branches = data.branches.length;
  const names = z.map((_, i) => `${Math.floor(i / branches)} ${data.branches[i % branches]}`);
  const when = z[0].map((_, e) => `evaluation ${e}${setting.times ? `, t = ${+setting.times[e].toFixed(1)}` : ""}`);
  const share = single || setting.family === "tokens" ? "of the tokens" : "of the images";
  const said = value => ({ 0: "skipped", 100: "computed" }[value] ?? `${value} % ${share} computed`);
  const words = z.map((site, i) => site.map((value, e) => `${when[e]}, block ${names[i]}: ${said(value)}`));
  const scale = [[0, colour("reused")], [1, colour("computed")]], timed = setting.times?.length === z[0].length;
  place.style.height = `${single ? 150 : Math.min(560, 90 + 15 * names.length)}px`;
  Plotly.newPlot(place, [{
    type: "heatmap", z, y: names, text: words, colorscale: scale, zmin: 0, zmax: 100, showscale: false, xgap: gap, ygap: gap,
    ...(timed ? { x: setting.times } : {}), hovertemplate: "%{text}<extra></extra>",
  }], layout({
    xaxis: axis(null, { title: { text: single ? "" : placed(timed) }, showgrid: false, ...(timed ? { autorange: "reversed" } : {}) }),
    margin: { l: 60, r: 10, t: 8, b: single ? 22 : 45 }, yaxis: axis(null, { autorange: "reversed", showgrid: false, type: "category" }),
  }), { ...QUIET, displayModeBar: false });
}

const placed = timed => timed ? "the network's time (noisiest first)" : "evaluation (0 = noisiest)";

// The hit rate of every evaluation, with its spread over the images that decide for themselves.
function hits(place, setting) {
  const { mean, low, high } = setting.decided, timed = setting.times?.length === mean.length, x = timed ? setting.times : mean.map((_, e) => e);
  const line = { mode: "lines", x, hoverinfo: "skip", line: { width: 0 } };
  place.style.height = "200px";
  Plotly.newPlot(place, [
    { ...line, y: low }, { ...line, y: high, fill: "tonexty", fillcolor: `${colour("mark")}40` },
    { ...line, y: mean, mode: "lines+markers", line: { color: colour("mark"), width: 1.5 }, hoverinfo: "text",
      text: mean.map((value, e) => `evaluation ${e}: ${value} % skipped; of the images between ${low[e]} % and ${high[e]} %`) },
  ], layout({
    showlegend: false, xaxis: axis(null, { title: { text: placed(timed) }, ...(timed ? { autorange: "reversed" } : {}) }),
    margin: { l: 60, r: 10, t: 8, b: 45 }, yaxis: axis(null, { title: { text: "hit rate, %" }, range: [-3, 103] }),
  }), { ...QUIET, displayModeBar: false });
}

// The error of what stands in for the skipped values, and of plain reuse in its place.
function standsIn(place, { evaluations, forecast, low, high, reuse }) {
  const line = { x: evaluations, mode: "lines+markers", hovertemplate: "evaluation %{x}: %{y:.3g}" };
  const side = end => end.map((value, i) => value == null ? 0 : Math.abs(value - forecast[i]));
  place.style.height = "220px";
  Plotly.newPlot(place, [
    { ...line, y: forecast, name: "forecast", line: { color: colour("mark"), width: 1.5 },
      error_y: { type: "data", symmetric: false, array: side(high), arrayminus: side(low), color: colour("mark"), thickness: 1, width: 3 } },
    { ...line, y: reuse, name: "plain reuse", line: { color: colour("soft"), width: 1.5, dash: "dot" } },
  ], layout({
    xaxis: axis(null, { title: { text: placed() } }), margin: { l: 60, r: 10, t: 8, b: 45 }, legend: { orientation: "h", y: 1.15 },
    yaxis: axis(null, { title: { text: "squared error / square" }, ...logarithmic([...forecast, ...reuse].filter(value => value > 0)) }),
  }), { ...QUIET, displayModeBar: false });
}

// The ends of a colour or an axis: of positive values that span much more than a decade on a logarithm.
const wide = known => Math.min(...known) > 0 && Math.max(...known) > 30 * Math.min(...known);

function curve(place, setting, name) {
  if (setting.fit.values) return siteMap(place, setting.fit, name);
  const y = setting.fit.series[name], known = y.filter(value => value != null);
  const log = wide(known);
  place.style.height = "220px";
  Plotly.newPlot(place, [{ x: setting.fit.steps, y, mode: "lines", line: { color: colour("mark"), width: 1.5 }, hovertemplate: "%{x}: %{y:.4g}<extra></extra>" }],
    layout({
      xaxis: axis(null, { title: { text: setting.fit.x } }), margin: { l: 60, r: 10, t: 8, b: 45 },
      yaxis: axis(null, { ...(log ? logarithmic(known) : {}), title: { text: name.replaceAll("_", " ") } }),
    }), { ...QUIET, displayModeBar: false });
}

// What a fit found for each evaluation and block, or branch, or whatever two things it has a number for.
function siteMap(place, fit, name) {
  const values = fit.values[name], known = values.flat().filter(value => value != null), log = wide(known);
  const bend = value => value == null ? null : log ? Math.log10(value) : value, ends = known.length ? [Math.min(...known), Math.max(...known)] : [];
  const words = values.map((line, i) => line.map((value, j) => `${fit.across} ${fit.columns[j]}, ${fit.down} ${fit.rows[i]}: ${value ?? "none"}`));
  place.style.height = `${Math.min(560, 90 + 15 * values.length)}px`;
  Plotly.newPlot(place, [{
    type: "heatmap", x: fit.columns, y: fit.rows, z: values.map(line => line.map(bend)), text: words, hovertemplate: "%{text}<extra></extra>",
    colorscale: [[0, colour("reused")], [1, colour("computed")]],
    colorbar: { title: { text: name.replaceAll("_", " "), side: "right" }, tickvals: ends.map(bend), ticktext: ends.map(String), thickness: 12 },
  }], layout({
    xaxis: axis(null, { title: { text: fit.across === "evaluation" ? placed() : fit.across }, showgrid: false }), margin: { l: 60, r: 10, t: 8, b: 45 },
    yaxis: axis(null, { title: { text: fit.down }, autorange: "reversed", showgrid: false, type: "category" }),
  }), { ...QUIET, displayModeBar: false });
}

function facts(setting) {
  const rows = Object.keys(setting.values).map(key => [title(key), [setting.values[key].text, setting.values[key].spread].join(" ")]);
  const list = element("dl", { className: "values" });
  for (const [name, text] of rows) list.append(element("dt", {}, name), element("dd", {}, text));
  return list;
}

function strips(setting) {
  const full = pictures()[setting.run], own = pictures()[setting.id], shown = [];
  const fewer = data.runs.find(run => run.name === setting.run).steps;
  const steps = data.settings.find(one => one.run === setting.run && one.method === fewer && one.budget === setting.budget);
  if (full) shown.push(["Full run", full]);
  if (own && steps && steps !== setting && pictures()[steps.id]) shown.push([steps.name, pictures()[steps.id].own]);
  if (own) shown.push([setting.name, own.own]);
  if (own?.difference) shown.push([`Difference × ${data.gain}`, own.difference]);
  if (!shown.length) return element("p", { className: "about" }, "No images are kept.");
  const grid = element("div", { className: "strips" });
  for (const [name, src] of shown) grid.append(element("span", {}, name), element("img", { src, alt: `${name}: samples of the first seeds` }));
  return grid;
}

// A heading and a text that a button copies.
function copied(heading, text) {
  const copy = element("button", { type: "button" }, "Copy");
  copy.addEventListener("click", () => navigator.clipboard.writeText(text).then(() => { copy.textContent = "Copied"; }));
  return [element("h3", {}, heading), element("pre", {}, text), element("div", { className: "buttons" }, copy)];
}

function sentence(words) {
  return element("p", { className: "about" }, words);
}

function costs(setting) {
  const parts = Object.entries(setting.cost ?? {}).filter(([, share]) => share > 0);
  const [name, low, high] = setting.knob ?? [];
  const knob = name ? [sentence(`Here ${name} works from ${low} to ${high}: before it saves nothing, and beyond it saves no more.`)] : [];
  const { met, spread, planned, waits } = setting.counted ?? {};
  if (met) knob.push(sentence(`It computed ${met} % of the full run's MACs, with a standard deviation of ${spread} % over the images; ${planned} % were planned, on other images. A trajectory waits for the device ${waits} times, to decide.`));
  if (setting.nearest?.length) knob.push(sentence(`The nearest other settings: ${setting.nearest.map(([text, share]) => `${text} costs ${share} % of the full run's MACs`).join(", ")}.`));
  return parts.length ? [...knob, sentence(`Where the MACs go: ${parts.map(([part, share]) => `${part} ${share} %`).join(", ")}.`)] : knob;
}

function seeds(setting) {
  const told = Object.entries(setting.seeds ?? {}).map(([word, [seed, error]]) => `${word}: seed ${seed} (latent MSE ${error})`);
  return told.length && pictures()[setting.id] ? [sentence(`Of these, to the full run, ${told.join(", ")}.`)] : [];
}

// Where to look for what went wrong: links to the plug-in's line and to the logs, and how the log ends.
function log(setting) {
  if (!setting.log?.links) return [];
  const links = setting.log.links.map(([text, href]) => element("a", { href }, text));
  return [element("h3", {}, "What went wrong"), element("div", { className: "buttons" }, ...links), ...(setting.log.tail ? [element("pre", {}, setting.log.tail)] : [])];
}

function open(setting) {
  const focused = at("panel").open && at("panel").contains(document.activeElement) ? document.activeElement.getAttribute("href") ?? "" : null;
  const close = element("button", { type: "button", ariaLabel: "Close" }, "Close");
  close.addEventListener("click", () => at("panel").close());
  const others = data.settings.filter(one => one.run === setting.run && one.method === setting.method);
  const budgets = others.map(one => element("a", { href: `#${one.id}`, ariaCurrent: one === setting ? "true" : null }, `budget ${one.budget}`));
  const parameters = element("dl");
  for (const [name, text] of setting.params) parameters.append(element("dt", {}, name), element("dd", {}, text));
  const schedule = element("div", { className: "schedule" });
  const curves = Object.keys(setting.fit?.series ?? setting.fit?.values ?? {}).map(name => [element("div", { className: "curve" }), name]);
  const forecast = element("div", { className: "curve" }), hitRate = element("div", { className: "curve" }), single = Object.entries(setting.decided?.samples ?? {});
  const singles = single.map(([word, [seed]]) => [`${word === "median" ? "An image in the middle" : `The image that computed the ${word} branches`}, seed ${seed}:`, element("div", { className: "schedule" })]);
  const every = setting.fit?.every > 1 ? `, medians of ${setting.fit.every} rows` : "";
  at("panel").replaceChildren(
    element("header", {}, element("div", {}, element("h2", { id: "panel-title" }, setting.name), element("div", { className: "about" }, [setting.run, setting.mark].filter(Boolean).join(", "))),
      element("div", { className: "buttons" }, close)),
    element("div", { className: "buttons" }, ...budgets),
    ...(setting.reason ? [element("p", {}, `${setting.status === "ok" ? "In doubt" : setting.status}: ${setting.reason}`)] : []),
    ...log(setting),
    element("div", { className: "pair" },
      element("div", {}, element("h3", {}, "Result"), facts(setting)),
      element("div", {}, element("h3", {}, "Parameters"), setting.params.length ? parameters : element("p", { className: "about" }, "None."))),
    element("h3", {}, "Schedule: what is computed"), setting.computed ? schedule : sentence(setting.note), ...costs(setting),
    ...(single.length ? [sentence("The hit rate of every evaluation: the share of branches that were skipped. The band holds the middle 80 % of the images."), hitRate, ...singles.flatMap(([words, place]) => [sentence(words), place])] : []),
    ...(setting.stands_in ? [element("h3", {}, "What stands in for skipped values"), sentence("The squared error of the network's output where it is forecast, over its square, on the full run's trajectory, with its 95 % interval; dotted, where the last computed value is reused in its place."), forecast] : []),
    element("h3", {}, "Samples of the same seeds"), strips(setting), ...seeds(setting),
    ...(curves.length ? [element("h3", {}, "Fit"), element("p", { className: "about" }, setting.fit.label.replaceAll("+", ", ") + every), ...curves.map(([place]) => place)] : []),
    ...(setting.lines ? copied("Lines of config that give the nearest setting a row", setting.lines) : []),
    ...copied("Reproduce this row", setting.command),
    ...(setting.command.startsWith("mv ") ? [sentence("It sets the samples that are there aside, in a folder beside them whose name ends in the time, so that the new ones can be compared with them; the scores are made of the new ones. Nothing removes that folder: delete it when you no longer need it.")] : []),
    ...(setting.cite ? copied("Cite", setting.cite) : []),
  );
  if (!at("panel").open) at("panel").showModal();
  at("panel").scrollTop = 0;
  if (focused !== null) (budgets.find(link => link.getAttribute("href") === focused) ?? close).focus();
  charted(() => {
    if (setting.computed) heatmap(schedule, setting);
    if (single.length) hits(hitRate, setting);
    if (setting.stands_in) standsIn(forecast, setting.stands_in);
    singles.forEach(([, place], i) => heatmap(place, setting, single[i][1][1], true));
    for (const [place, name] of curves) curve(place, setting, name);
  });
}
