"""What the interactive part of the page shows, as JSON: every setting with its costs, values and panel. No torch here."""

import math
from collections import Counter
from pathlib import Path

from cachebench.engine.spec import BRANCHES
from cachebench.judge import pairs
from cachebench.judge.equivalents import step_reduction
from cachebench.metrics import spaces
from cachebench.report import answers, files_of_run, marks, style, tables
from cachebench.report.page.panel import GAIN, images, panel, strip

COSTS = (
    tables.column("achieved"),
    tables.column("latency_ms"),
    tables.Column("peak_memory_mb", "Peak memory", "MB"),
    tables.Column("cache_bytes_per_image", "Feature store", "kB/image", scale=1e-3),
)
BESIDE = (  # fewer steps at the same cost
    tables.Column("fd_minus_steps", "FD − fewer steps", "at the same cost", -1, interval="bounds", paired=True),
    tables.Column("latent_mse_over_steps", "Latent MSE / fewer steps", "at the same cost", -1, interval="bounds", paired=True),
)
QUALITY = (tables.column("fd"), tables.column("sfid"), tables.column("latent_mse"))
PERCEIVED = tuple(tables.column(key) for key in ("ssim", "lpips", "class_accuracy"))
COLUMNS = (*QUALITY[:2], tables.column("fd_minus_full"), *BESIDE, QUALITY[2], *PERCEIVED)
COLUMNS += (*COSTS[:2], tables.column("speed_up"), *COSTS[2:])
COLUMNS += (tables.Column("hit_rate", "Hit rate", "% of branches", scale=100), tables.Column("fit_s", "Fit", "s"))
COLUMNS += (tables.Column("images_to_repay_fit", "Fit repaid", "after images", digits=0),)
SYMBOLS = dict(
    zip(style.MARKERS + "*", ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star"], strict=True)
)


def collect(cfg, frame, folder):
    """The JSON of the page of a results folder: `columns`, `runs` and `settings`, the latter in the order of the tables.
    pairs.Incomparable if rows of different counts, extractors or statistics would meet in them."""
    pairs.check_comparable(frame[frame.status == "ok"], "the leaderboard")
    frame = frame.assign(id=[marks.address(row) for row in frame.itertuples()])
    styles = style.palette(frame.method)
    further = [tables.column(spaces.named("fd", space)) for space in spaces.further(frame)]
    shown = tables.carried((COLUMNS[0], *further, *COLUMNS[1:]), frame)
    runs, settings, quality = [], [], tables.carried((*BESIDE, QUALITY[0], *further, *QUALITY[1:]), frame)
    for run in (run for run in cfg["runs"] if (frame.run == run).any()):
        rows = frame[frame.run == run]
        files = files_of_run.Files(cfg, run, folder)
        full = images(files, "full", 1.0)
        facts = {
            "name": run,
            "backbone": rows.backbone.iloc[0],
            "about": tables.conditions(rows),
            "steps": step_reduction(rows),
        }
        runs.append(facts | {"images": None if full is None else strip(full)})
        labels, _ = tables.settings(rows[rows.status == "ok"])
        for _, group in tables.grouped(rows):
            marked = {c.key: marks.of_budget(group, c.key) for c in shown}
            for _, row in group.iterrows():
                settings.append(describe(row, shown, marked, labels, styles[row.method]) | panel(files, row, full))
    fits = shared(settings)
    columns = {c.key: {"title": c.title, "unit": c.unit, "better": tables.direction(c)} for c in titled(frame, shown)}
    axes = {"x": [c.key for c in COSTS], "y": [c.key for c in quality]}
    drawn = {"symmetric": [BESIDE[0].key], "ratios": [BESIDE[1].key], "families": families(frame)}
    return drawn | {
        "columns": columns,
        "axes": axes,
        "branches": BRANCHES,
        "gain": GAIN,
        "runs": runs,
        "fits": fits,
        "settings": settings,
    }


def absent(cfg, frame, folder):
    """Of how many of the measured rows of `frame` what file is not below `folder`, and what is not shown for it; "" where all
    are there."""
    rows, lost = frame[frame.status == "ok"], Counter()
    of_run = {run: files_of_run.Files(cfg, run, folder) for run in rows.run.unique()}
    for row in rows.itertuples():
        files = of_run[row.run]
        lost["settings.json"] += not Path(files.tree.settings(row.run, row.method)).exists()
        lost["scores.json"] += not Path(files.tree.scores(row.run, row.method)).exists()
        lost["samples"] += not files.shards(row.method, row.budget)
    told = answers.listed([f"{what} of {count}" for what, count in lost.items() if count])
    if not told:
        return ""
    shown = "Their numbers are shown, but not what is made of these files: schedules, images, shares of the cost."
    return f"Of the {len(rows)} measured rows these files are not there: {told}. {shown}"


def shared(settings):
    """{name: fit} of the settings, of which many have the same: in each its name takes its place."""
    fits = {}
    for setting in settings:
        if "fit" in setting:
            name = f"{setting['run']}/{setting['method']}/{setting['fit']['label']}"
            fits[name], setting["fit"] = setting["fit"], name
    return fits


def families(frame):
    """[{"name", "colour"}] of the families of the caching methods in a frame, each always with the same colour."""
    there = set(frame.family)
    return [{"name": name, "colour": colour} for name, colour in style.FAMILIES.items() if name in there]


def titled(frame, shown):
    """The columns as they are titled for these results: a metric that depends on extractor and count names them."""
    extractor = ", ".join(frame.extractor[frame.extractor != ""].unique())
    counts = ", ".join(f"{c:.0f}" for c in frame["count"].dropna().unique())
    named = {c.key: c for c in tables.columns(extractor, counts, tables.called(frame), further=tables.further(frame))}
    if frame.latency_device.str.startswith("CPU").any():
        named["peak_memory_mb"] = tables.Column("peak_memory_mb", "Peak memory", "MB, whole process")
    return [named.get(c.key, c) for c in shown]


def describe(row, shown, marked, labels, style):
    """A row of the results: who it is, how it is drawn, and {column: value} of `shown`; no values where nothing ran."""
    colour, marker = style
    described = {
        key: row[key] for key in ("id", "run", "method", "name", "kind", "family", "effort", "backbone", "status", "reason")
    }
    described |= {
        "budget": row.budget,
        "under": float(f"{row.under:.3g}"),
        "colour": colour,
        "symbol": SYMBOLS[marker],
        "label": labels.get(row.name, ""),
    }
    described["mark"] = ", ".join(marks.of_row(row))
    described["params"] = [part.partition("=")[::2] for part in row.setting.split(",") if "=" in part]
    values = {c.key: value(row, c) for c in shown} if row.status == "ok" else {}
    return described | {"values": values, "ties": {key: mark[row.name] for key, mark in marked.items() if row.name in mark}}


def value(row, column):
    """A cell: the number and its interval in the column's unit (None where unknown), both as text, and why it is in doubt."""
    with_itself = column.paired and row.method == "full"
    why = "" if with_itself else marks.doubt(row, column.key)
    if with_itself or not math.isfinite(row[column.key]):
        never = column.key == "images_to_repay_fit" and row.fit_s > 0
        text = "never" if never else marks.DASH
        return {"value": None, "text": text, "spread": "", "why": why or ("" if with_itself or never else "not measured")}
    low, high = (row.get(f"{column.key}_{end}", math.nan) * column.scale for end in ("low", "high"))
    ends = {"low": low, "high": high} if math.isfinite(low + high) else {}
    number = row[column.key] * column.scale
    text = {"text": tables.number(number, column.digits), "spread": tables.spread(row, column), "why": why}
    return {"value": number} | text | ends
