"""One self-contained HTML page of a results folder: what ran, what came out, tables and figures. No torch here."""

import base64
import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

import jinja2
import numpy as np
from plotly.offline import get_plotlyjs

from cachebench import config, page_compare, solvers, store, tables, verdicts

REPORT = store.ROOT / "workflow/report"  # the template, and the captions that Snakemake's own report uses too
FIGURES = {
    "pareto": "Quality against cost",
    "fidelity": "Closeness to the full run against cost",
    "trace": "Where along the trajectory the error arises",
    "samples": "Samples",
    "schedules": "What is computed",
    "routers": "Router scores",
    "fits": "Fits",
    "solvers": "Which half of a solver's evaluations can be reused",
}
FD, DIFFERENCE, LATENT = (tables.column(key) for key in ("fd", "fd_minus_full", "latent_mse"))


def compare(row, other, key):
    """-1, 0 or 1: `row` below, tied with or above `other` in `key`; a tie where the 95 % intervals overlap or are unknown."""
    if row[f"{key}_high"] < other[f"{key}_low"]:
        return -1
    return int(row[f"{key}_low"] > other[f"{key}_high"])


def fewer_steps(rows, full_nfe):
    """The step-reduction control among rows of one budget: a control with fewer evaluations than the full run; else None."""
    found = rows[(rows.kind == "control") & (rows.nfe < full_nfe) & rows.fd.notna()].sort_values("fd")
    return found.iloc[0] if len(found) else None


def fd_key(rows):
    """What FDs are compared by: the paired difference to the full run, which is sharper, where every row has its interval."""
    return "fd_minus_full" if rows.fd_minus_full_low.notna().all() and rows.fd_minus_full_high.notna().all() else "fd"


def summary(frame, run):
    """Plain sentences: (those about all budgets, [(budget, sentences)])."""
    rows = frame[(frame.run == run) & (frame.status == "ok")]
    full = rows[rows.method == "full"]
    full_nfe = full.nfe.iloc[0] if len(full) else np.inf
    verdicts, per_budget = {-1: [], 0: [], 1: []}, []
    for budget, group in sorted(frame[(frame.run == run) & (frame.method != "full")].groupby("budget"), reverse=True):
        good = group[group.status == "ok"]
        control = fewer_steps(good, full_nfe)
        sentences = [closest(good), lowest(good, control), not_beyond_random(good)]
        missing = len(group) - len(good)
        sentences += [f"{missing} of {len(group)} methods have no number here; the table says why."] if missing else []
        per_budget.append((f"{budget:g}", [s for s in sentences if s]))
        for _, row in good[(good.kind != "control") & good.fd.notna()].iterrows():
            if control is not None:
                verdicts[compare(row, control, fd_key(good))].append((row["name"], f"{budget:g}"))
    return overall(verdicts), per_budget


def overall(verdicts):
    """The sentences about all budgets from {-1, 0, 1: [(method, budget)]}: the count first, then who."""
    count = sum(map(len, verdicts.values()))
    if not count:
        return ["No method could be compared with fewer steps at the same budget."]
    lower, tied, higher = (len(verdicts[sign]) for sign in (-1, 0, 1))
    sentences = [
        f"Against fewer steps at the same budget, FD is lower in {lower} of {count} cases, higher in {higher}, a tie in {tied}."
    ]
    for sign, word in ((-1, "Lower"), (1, "Higher"), (0, "Tie")):
        names = dict.fromkeys(name for name, _ in verdicts[sign])
        who = [f"{name} at {', '.join(b for n, b in verdicts[sign] if n == name)}" for name in names]
        sentences += [f"{word}: {'; '.join(who)}."] if who else []
    return sentences


def closest(rows):
    """Which row is closest to the full run's own images, and which cannot be told from it."""
    known = rows[rows.latent_mse.notna()].sort_values("latent_mse")
    if known.empty:
        return ""
    best, others = known.iloc[0], [row for _, row in known.iloc[1:].iterrows()]
    text = f"Closest to the full run's images: {best['name']}, latent MSE {tables.phrase(best, LATENT)}"
    tied = [row["name"] for row in others if not compare(best, row, "latent_mse")]
    if tied:
        return f"{text}, a tie with {', '.join(tied)}."
    return f"{text}; next {others[0]['name']}, {tables.phrase(others[0], LATENT)}." if others else f"{text}."


def lowest(rows, control):
    """Which row has the lowest FD, and whether that differs from fewer steps."""
    known = rows[rows.fd.notna()].sort_values("fd")
    if known.empty:
        return "No FD was measured."
    best = known.iloc[0]
    text = f"Lowest FD: {best['name']}, {tables.phrase(best, FD)}"
    if control is None:
        return f"{text}. No step-reduction control ran at this budget."
    key = fd_key(known)
    if best["method"] == control["method"]:
        tied = [row["name"] for _, row in known.iloc[1:].iterrows() if not compare(best, row, key)]
        return f"{text}, which is the step-reduction control itself" + (f"; a tie with {', '.join(tied)}." if tied else ".")
    column = DIFFERENCE if key == DIFFERENCE.key else FD
    verdict = "lower beyond the intervals" if compare(best, control, key) else "a tie"
    values = f"{tables.phrase(best, column)} against {tables.phrase(control, column)} of {control['name']}"
    return f"{text}. {column.title} {values}: {verdict}."


def not_beyond_random(rows):
    """Which methods do not come closer to the full run than a random choice of the same cost, and by how much."""
    known = rows[rows.latent_mse.notna()]
    random = known[known.method == "random_skip"]
    if random.empty:
        return ""
    random, texts = random.iloc[0], []
    for _, row in known[known.kind != "control"].iterrows():
        if compare(row, random, "latent_mse") != -1:
            texts.append(f"{row['name']} ({tables.number(row.latent_mse / random.latent_mse)} times its latent MSE)")
    return f"Not closer to the full run than {random['name']}: {', '.join(texts)}." if texts else ""


def facts(cfg, frame, config_path):
    """[(what, text)] of what was run, on what."""
    good = frame[frame.status == "ok"]

    def listed(column, form=str):
        found = [value for value in good[column].dropna().unique() if value != ""]
        return ", ".join(form(value) for value in found) or "nothing measured"

    date = datetime.fromtimestamp(Path(config_path).stat().st_mtime)
    return [
        ("Images per setting", listed("count", lambda c: f"{c:.0f}") + f", {cfg['samples']['labels']} labels"),
        ("Budgets", listed_budgets(cfg)),
        ("Rows", f"{len(good)} of {len(frame)} measured"),
        ("Extractor", cfg["extractor"]["name"]),
        ("Reference", cfg["reference"]),
        ("Sampled on", listed("device")),
        ("Timed on", listed("latency_device") + f", batches of {cfg['latency']['batch_size']}"),
        ("Configuration", f"{cfg['name']}, of {date:%Y-%m-%d %H:%M}"),
    ]


def listed_budgets(cfg):
    """The budgets of every run, in a line; the run is named where they differ."""
    of_run = {run: ", ".join(f"{b:g}" for b in config.budgets(cfg, run)) for run in cfg["runs"]}
    same = len(set(of_run.values())) == 1
    shown = next(iter(of_run.values())) if same else "; ".join(f"{run}: {budgets}" for run, budgets in of_run.items())
    return f"{shown}, met within {cfg['tolerance']:g}"


def embed(path):
    """The image file as a data URI."""
    kind = {".svg": "svg+xml", ".png": "png"}[Path(path).suffix]
    return f"data:image/{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def caption(name):
    """The figure's caption, the same text as in Snakemake's report."""
    return " ".join((REPORT / f"{name}.rst").read_text().split())


def figures(paths, run, folder):
    """Context of the figures in the folder called `run`, in page order: vector graphics, but pixels for the samples."""
    here = [path for path in map(Path, paths) if path.parent.name == run]
    found = {path.stem: path for path in here if path.suffix == ".png"}
    found |= {path.stem: path for path in here if path.suffix == ".svg" and path.stem != "samples"}
    chosen = [(name, title, found[name]) for name, title in FIGURES.items() if name in found]
    files = {name: {p.suffix[1:]: os.path.relpath(p, folder) for p in here if p.stem == name} for name in found}
    return [
        {"name": name, "title": title, "caption": caption(name), "data": embed(path), "files": files[name]}
        for name, title, path in chosen
    ]


def script(text):
    """{"text", "digest"} of an inline script; the digest is what the page's security policy allows to run."""
    return {"text": text, "digest": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}


def render(cfg, frame, config_path, paths, folder, data, compared=None, printed=()):
    """The page's HTML. `paths` are the figure files of all runs, `folder` is where the page will lie, beside results.csv;
    `data` is what page_data.collect returned, `compared` what page_compare.read did; `printed` are rows of verdicts.csv."""
    runs = []
    for run in (run["name"] for run in data["runs"]):
        lead, budgets = summary(frame, run)
        table, drawn = tables.build(frame, run), figures(paths, run, folder)
        about = {"name": run, "table": table, "lead": lead, "budgets": budgets, "figures": drawn}
        runs.append(about | {"compared": page_compare.groups(compared, run)})
    halves = {"rows": solvers.rows(frame), "figures": figures(paths, "figures", folder)}
    loader = jinja2.FileSystemLoader(REPORT)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"direction": tables.direction, "DASH": tables.DASH, "COMPARED": page_compare.HEADINGS}
    scripts = [script(get_plotlyjs()), script((REPORT / "page.js").read_text())]
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # no </script> inside
    context = {"facts": facts(cfg, frame, config_path), "runs": runs, "halves": halves, "scripts": scripts}
    context |= {"printed": printed, "margin": verdicts.MARGIN}
    return environment.get_template("page.html.j2").render(name=cfg["name"], data=data, json=text, **context)
