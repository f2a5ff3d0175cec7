"""The transfer matrix as Markdown and as heat maps, from the csv files of its columns. No torch here."""

import itertools
import math

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import pyplot
from matplotlib.colors import TwoSlopeNorm

from cachebench.report import markdown as md
from cachebench.report import tables
from cachebench.report.style import empty

MSE = tables.Column("latent_mse", "Latent MSE", interval="half")
RULE = """A schedule fitted on one run (row), used on another (column) of the same backbone and sampler, at the same budget.
Evaluation 2p + r takes the mask of evaluation 2p' + r, p' being the pair at the same relative position.
The values are the latent MSE to the full run of the column, with the 95 % interval. On the diagonal are the run's own
schedules; ▲ says that the paired difference to them is above zero beyond its 95 % interval, ▼ below, = neither."""


def read(paths):
    """The rows of all columns as one frame, reasons as text."""
    frame = pd.concat([pd.read_csv(path) for path in paths], ignore_index=True)
    return frame.assign(reason=frame.reason.astype(object).where(frame.reason.notna(), ""))


def matrices(frame):
    """[(title, cells)]: one per group of runs that share schedules, method and budget; cells {(fitted at, used at): row}."""
    out = []
    groups = frame.groupby("used_at", sort=False).fitted_at.agg(tuple)
    for runs in dict.fromkeys(tuple(dict.fromkeys(of_run)) for of_run in groups):
        for (name, budget), rows in frame[frame.used_at.isin(runs)].groupby(["name", "budget"], sort=False):
            every = rows.set_index(["fitted_at", "used_at"]).reindex(list(itertools.product(runs, runs)))
            cells = dict(every.assign(reason=every.reason.fillna("not a budget of this run")).iterrows())
            out.append((f"{name}, budget {budget:g}", runs, cells))
    return out


def mark(row):
    """How a transferred schedule compares with the run's own."""
    if math.isnan(row.minus_home):
        return ""
    return " ▲" if row.minus_home_low > 0 else " ▼" if row.minus_home_high < 0 else " ="


def markdown(frame):
    """Every matrix as a table, with the reasons of what is missing below."""
    out = ["# Transfer", "", RULE, ""]
    for title, runs, cells in matrices(frame):
        rows = [
            [source, *(tables.phrase(cells[source, run], MSE) + mark(cells[source, run]) for run in runs)] for source in runs
        ]
        out += [f"## {md.escape(title)}", "", md.table(["fitted at", *runs], rows)]
        lost = [f"{a} at {b}: {md.escape(row.reason)}" for (a, b), row in cells.items() if row.reason]
        out += [*(f"* {text}" for text in lost), ""]
    counts = ", ".join(f"{n:g}" for n in frame["count"].dropna().unique())
    return "\n".join([*out, f"n = {counts or 'none'} images."]) + "\n"


def draw(frame):
    """A heat map per matrix: values with their marks, coloured by the ratio to the run's own schedule, on a log scale."""
    heat_maps = matrices(frame)
    if not heat_maps:
        return empty("No method whose schedule comes from a fit runs on two runs of the same backbone and sampler.")
    wide = min(3, len(heat_maps))
    down = -(-len(heat_maps) // wide)
    side = 1.1 * max(len(runs) for _, runs, _ in heat_maps) + 1
    figure, axes = pyplot.subplots(down, wide, figsize=(1.1 * wide * side, down * side), squeeze=False, layout="constrained")
    for axis in axes.flat[len(heat_maps) :]:
        axis.axis("off")
    for axis, (title, runs, cells) in zip(axes.flat, heat_maps, strict=False):
        values = np.array([[cells[source, run].latent_mse for run in runs] for source in runs])
        texts = [[tables.number(cells[source, run].latent_mse) + mark(cells[source, run]) for run in runs] for source in runs]
        labels = [run.replace("-", "-\n") for run in runs]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(values / np.diag(values))
        ratio[np.isnan(ratio) & ~np.isnan(values)] = 0  # no schedule of its own to compare with: white, but printed
        norm = TwoSlopeNorm(0, -1, 1)
        form = {"annot": np.array(texts), "fmt": "", "annot_kws": {"fontsize": 8}, "cbar": axis is axes[0, -1]}
        bar = {"label": "times the run's own schedule", "ticks": [-1, 0, 1], "format": lambda v, _: f"{10.0**v:g}"}
        sns.heatmap(ratio, cmap="vlag", norm=norm, ax=axis, xticklabels=labels, yticklabels=labels, cbar_kws=bar, **form)
        axis.tick_params(length=0, labelsize=8, rotation=0)
        axis.set(title=title, xlabel="used at", ylabel="fitted at")
    return figure
