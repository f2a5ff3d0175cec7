"""Every method beside fewer steps at the same cost, a panel a family, of a run."""

import numpy as np

from cachebench.report import style, tables
from cachebench.report.against_cost import label_width, spread_out
from cachebench.report.figures.differences import ticks
from cachebench.report.style import INK, empty

TITLE = "Families of methods beside fewer steps"
CAPTION = (
    "The paired difference in Fréchet distance to fewer steps at exactly the same cost, on the line between the two nearest "
    "runs of fewer steps, against MACs. A panel is a family; its methods are named beside their least cost. Below the line is "
    "better, and the axis is linear around it and logarithmic beyond."
)
PER = "run"
PLACE = 2.5
KEY = "fd_minus_steps"
SMALL, GAP = 6.5, 0.055  # points of the names, and their least distance as a share of a panel's height


def draw(files):
    """A panel a family with the same axes, a line a method."""
    rows = files.frame[(files.frame.run == files.run) & files.frame[KEY].notna() & (files.frame.kind == "cache")]
    there = [name for name in style.FAMILIES if (rows.family == name).any()]
    if not there:
        return empty(f"By FD no method of {files.run} could be compared with fewer steps at its cost.")
    linear = max(1e-6, 1.5 * float((rows[f"{KEY}_high"] - rows[f"{KEY}_low"]).median()))
    figure, axes = style.panels(len(there), 3.4, 2.6)
    for axis, name in zip(axes, there, strict=True):
        axis.set_yscale("symlog", linthresh=linear)
        axis.axhline(0, color=INK, lw=0.9, ls="--", zorder=0)
        for of in (of for _, of in rows[rows.family == name].sort_values("achieved").groupby("method", sort=False)):
            spread = np.array([of[KEY] - of[f"{KEY}_low"], of[f"{KEY}_high"] - of[KEY]]).clip(min=0)
            form = {"fmt": "o-", "color": style.FAMILIES[name], "ms": 3.5, "lw": 1.2, "elinewidth": 0.7, "alpha": 0.85}
            axis.errorbar(100 * of.achieved, of[KEY], spread, **form)
        axis.set_xlim(100 * rows.achieved.min() - 2, 102)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel("MACs per image, % of full", fontsize=9)
        axis.set_yticks(ticks(*axis.get_ylim(), linear))
        axis.set_yticks([], minor=True)
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel(f"{tables.called(rows)} − fewer steps", fontsize=9)
    figure.suptitle(f"{files.run}: beside fewer steps at the same cost", fontsize=12)
    for axis, name in zip(axes, there, strict=True):
        label(figure, axis, rows[rows.family == name])
    return figure


def label(figure, axis, rows):
    """Names the lines beside their cheapest points, in a column left of them in which no two are on top of each other."""
    ends = rows.sort_values("achieved").groupby("method", sort=False).first()
    edge = min(0.5, label_width(figure, axis, ends["name"]) * SMALL / 9 + 0.02)
    left, right = axis.get_xlim()
    axis.set_xlim(left - (edge + 0.03) / (0.97 - edge) * (right - left), right)
    axis.set_xticks([tick for tick in axis.get_xticks() if left <= tick <= 100])
    places = np.column_stack([100 * ends.achieved, ends[KEY]])
    heights = axis.transAxes.inverted().transform(axis.transData.transform(places))[:, 1]
    arrow = {"arrowstyle": "-", "color": INK, "lw": 0.4, "alpha": 0.5, "relpos": (1, 0.5), "shrinkA": 1, "shrinkB": 2}
    form = {"ha": "right", "va": "center", "fontsize": SMALL, "color": INK, "arrowprops": arrow, "textcoords": "axes fraction"}
    for text, place, height in zip(ends["name"], places, spread_out(heights, min(GAP, 1 / (len(ends) + 1))), strict=True):
        axis.annotate(text, tuple(place), (edge, height), **form)
