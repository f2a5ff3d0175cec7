"""What the page's panel of a row shows beside its numbers: schedule, samples, fit, where the cost comes from. No torch here."""

import base64
import io
import math
import os
import re
from operator import itemgetter
from pathlib import Path

import numpy as np
from PIL import Image

from cachebench.engine import cost
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.plugin import method
from cachebench.plugin.loader import reason
from cachebench.report import files_of_run, tables
from cachebench.report.page import copied
from cachebench.run import match

GAIN = 4  # how much the difference view amplifies
SIDE = 96  # pixels of a side above which an image is shrunk, so that a page of many settings stays small
POINTS = 300  # of a fit's curve
LINES = 20  # of a log
SAME = 1e-9  # shares of the MACs that differ by less are the same
NOTES = {"missing": "Not known: no settings.json has this row.", "not sampled": "Not known: its samples are not there."}


def attempt(action, *arguments):
    """What `action` returns, or words why it could not: whatever is missing or broken, the page is made without it."""
    try:
        return action(*arguments)
    except Exception as error:
        return reason(error)


def panel(files, row, full):
    """What only the panel of a setting shows: schedule, samples beside `full`, fit, where the cost comes from."""
    entry = attempt(entry_of, files, row)
    entry = {} if isinstance(entry, str) else entry
    command, shares = copied.command(files, row, entry), attempt(computed, files, row)
    shown = {"command": command, "note": shares} if isinstance(shares, str) else {"command": command, "computed": shares}
    kept_images = images(files, row.method, entry.get("budget", row.budget)) if row.method != "full" else None
    if kept_images is not None:
        shown["images"] = samples(kept_images, full)
    parts = {"fit": attempt(fit_curve, files, row), "times": "params" in entry and attempt(files.times, row.method, entry)}
    parts |= {"decided": attempt(decided, files, row, entry)}
    parts |= {"cost": attempt(cost_parts, files, entry), "seeds": row.status == "ok" and attempt(seeds, files, row, entry)}
    parts |= {"counted": attempt(counted, row), "stands_in": attempt(stands_in, files, row)}
    parts["nearest"] = "params" in entry and attempt(nearest, files, row, entry)
    shown |= {key: part for key, part in parts.items() if part and not isinstance(part, str)}
    if len(entry.get("knob", [])) > 1:
        ends = match.useful(entry["knob"], files.cfg["tolerance"])
        shown["knob"] = [files.plugin(row.method).knob, *(f"{end:g}" if isinstance(end, float) else str(end) for end in ends)]
    if row.status == "unreachable" and "params" in entry:
        shown["lines"] = copied.lines_for(row, entry)
    if row.status == "failed":
        shown["log"] = attempt(failure, files, row)
    return shown | {"cite": copied.cite(row.reference)}


def failure(files, row):
    """Of a row that failed {"links": [[text, address from the page]], "tail"}: the plug-in's line that its reason names and
    the logs of its jobs, and how the first log with a traceback ends."""
    folder = Path(files.tree.root).resolve()
    project = folder.parents[files.cfg["name"].count("/") + 1]
    place = re.search(r"\(([^()]+), line (\d+)\)", row.reason)
    links = [[f"{place[1]}, line {place[2]}", os.path.relpath(project / place[1], folder)]] if place else []
    logs = {
        path: path.read_text("utf-8", "replace")
        for path in sorted(project.glob(f"logs/{files.cfg['name']}/{row.run}/{row.method}/*.log"))
    }
    told = {path: text for path, text in logs.items() if "Traceback" in text} or logs
    links += [[str(path.relative_to(project)), os.path.relpath(path, folder)] for path in told]
    return {"links": links, "tail": "\n".join(next(iter(told.values()), "").splitlines()[-LINES:])}


def nearest(files, row, entry):
    """[[text of the parameters that differ, percent of the full run's MACs]] of the settings that cost next less and next more
    than a row does, or than it was to."""
    priced, asked = files.priced(row.method), entry["budget"] if entry.get("status") else entry["achieved"]
    less = [setting for setting in priced if setting[1] < asked - SAME]
    more = [setting for setting in priced if setting[1] > asked + SAME]
    neighbours = [max(less, key=itemgetter(1), default=None), min(more, key=itemgetter(1), default=None)]
    knob = files.plugin(row.method).knob

    def differing(params):
        return {name: value for name, value in params.items() if value != entry["params"].get(name)} or {knob: params[knob]}

    return [[method.label(differing(setting[0])), tables.number(100 * setting[1])] for setting in neighbours if setting]


def stands_in(files, row):
    """Of a method that forecasts {"evaluations", "forecast", "low", "high", "reuse"}: the squared error of the network's output
    over its square at each evaluation that it skips, on the full run's trajectory, and where the last value is reused in its
    place; None of any other."""
    table = files.traced
    rows = table[(table.method == row.method) & (table.budget == row.budget) & table.stand_in.notna()]
    if rows.empty:
        return None
    columns = {"forecast": "stand_in", "low": "stand_in_low", "high": "stand_in_high", "reuse": "reuse"}
    told = {name: [rounded(value) for value in rows[column]] for name, column in columns.items()}
    return {"evaluations": rows.evaluation.astype(int).tolist()} | told


def cost_parts(files, entry):
    """{part: percent of the setting's MACs}: the network's, and the products that the method makes itself; None of a setting
    that is not known."""
    if "rows" not in entry:
        return None
    arch, rows = files.spec.arch, entry["rows"]
    whole, branches = cost.total(arch, rows), {site: n for site, n in rows.items() if site.partition("@")[0] in BRANCHES}
    told = {"attention and MLP": cost.total(arch, branches), "the method's own": rows.get("spent", 0)}
    told = {"the network's rest": whole - sum(told.values())} | told
    return {part: round(100 * macs / whole, 1) for part, macs in told.items()}


def counted(row):
    """Of a setting that decides while running, as text: the percent of the full run's MACs over all images and their standard
    deviation, the percent that was planned on others, and how often a trajectory waits for the device; else None."""
    if row.status != "ok" or not row.syncs > 0:
        return None
    shares = {key: tables.number(100 * row[column]) for key, column in (("met", "achieved"), ("spread", "achieved_sd"))}
    return shares | {"planned": tables.number(100 * row.planned), "waits": tables.number(row.syncs)}


def seeds(files, row, entry):
    """{"nearest", "middle", "farthest": [seed, latent MSE]} of the images that are shown, to those of the full run; None where
    its scores are not there."""
    path = Path(files.tree.scores(row.run, row.method))
    scored = atomic.read_json(path).get(str(entry["budget"])) if path.exists() else None
    if scored is None:
        return None
    errors = np.array(scored["errors"]["latent_mse"][: files_of_run.IMAGES])
    order, first = errors.argsort(), files.cfg["samples"]["first_seed"]
    chosen = {"nearest": order[0], "middle": order[len(order) // 2], "farthest": order[-1]}
    return {word: [first + int(i), tables.number(errors[i])] for word, i in chosen.items()}


def entry_of(files, row):
    """The entry of settings.json that a results row comes from, or that it is missing yet."""
    lost = {"budget": row.budget, "status": "missing"}
    return next((entry for entry in files.entries(row.method) if entry["budget"] == row.budget), lost)


def computed(files, row):
    """[[100, 0, ...], ...] for each (block, branch) the percentage of the images that computed it, by evaluation; or words why
    there is none."""
    shares = files.computed(row.method, entry_of(files, row))
    return NOTES.get(shares, shares) if isinstance(shares, str) else by_site(100 * shares)


def by_site(shares):
    """Percentages [evaluations, blocks, branches] as rows of (block, branch)."""
    return shares.round().astype(int).reshape(len(shares), -1).T.tolist()


def decided(files, row, entry):
    """Of a setting whose images decide for themselves the hit rate of every evaluation in percent, {"mean", "low", "high"}
    (the ends leave out a tenth of the images on either side), and {"samples": {"fewest", "median", "most"}} with the [seed,
    percentages by (block, branch)] of three single images; None of any other."""
    each = files.decided(row.method, entry)
    if each is None:
        return None
    hits, first = 100 - each.mean((2, 3), dtype=float), files.cfg["samples"]["first_seed"]
    order = hits.mean(1).argsort(kind="stable")[::-1]
    chosen = {"fewest": order[0], "median": order[len(order) // 2], "most": order[-1]}
    ends = dict(zip(("low", "high"), np.quantile(hits, (0.1, 0.9), axis=0), strict=True)) | {"mean": hits.mean(0)}
    told = {end: values.round(1).tolist() for end, values in ends.items()}
    return told | {"samples": {word: [first + int(i), by_site(each[i])] for word, i in chosen.items()}}


def rounded(value):
    """A number with as many digits as can be read; None of what is none."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def images(files, name, budget):
    """The first images of a setting as `files` gives them; None where none are kept."""
    kept = attempt(files.images, name, budget)
    return None if isinstance(kept, str) or not len(kept) else kept


def samples(kept_images, full):
    """{"own": strip of the images, "difference": strip of their difference to `full`, darker = further} as data URIs."""
    out = {"own": strip(kept_images)}
    if full is not None and full.shape[1:] == kept_images.shape[1:]:
        n = min(len(full), len(kept_images))
        apart = np.abs(kept_images[:n].astype(int) - full[:n].astype(int))
        out["difference"] = strip((255 - np.minimum(GAIN * apart, 255)).astype(np.uint8))
    return out


def strip(images):
    """uint8 [n, H, W, C] side by side as a data URI: PNG, or a smaller WebP of large images."""
    side, memory = max(images.shape[1:3]), io.BytesIO()
    picture = Image.fromarray(files_of_run.mosaic([images]))
    kind = "PNG" if side <= SIDE else "WEBP"
    picture.reduce(-(-side // SIDE)).save(memory, kind, optimize=True, quality=80)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(memory.getvalue()).decode()}"


def fit_curve(files, row):
    """{"label", "x", "steps", "series": {column: values}} of the fit that a setting uses, thinned by medians; {"label"} and
    what a Map has, where it is one; or None."""
    cls, entry = files.plugin(row.method), entry_of(files, row)
    if not cls.has_fit() or "params" not in entry:
        return None
    label = cls.fit_label(entry["params"])
    curve = files_of_run.curve(files.tree.fit(files.run, row.method, label, "csv"))
    columns = files_of_run.curve_columns(curve) if len(curve.columns) > 1 else []
    if not columns:
        return None
    if as_map := files_of_run.curve_map(curve):
        maps = {name: [[rounded(v) for v in row] for row in of.tolist()] for name, of in as_map.values.items()}
        return {"label": label} | as_map._asdict() | {"values": maps}
    every = -(-len(curve) // POINTS) or 1
    thin = curve[[*curve.columns[:1], *columns]].groupby(np.arange(len(curve)) // every).median()
    series = {c: [rounded(v) for v in thin[c]] for c in columns}
    return {"label": label, "every": every, "x": curve.columns[0], "steps": thin.iloc[:, 0].tolist(), "series": series}
