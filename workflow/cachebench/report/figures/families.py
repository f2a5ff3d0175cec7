"""Every method beside fewer steps at the same cost, a panel a family, of a run."""

import numpy as np

from cachebench.report import style, tables
from cachebench.report.figures.differences import ticks
from cachebench.report.style import INK, empty

TITLE = "Families of methods beside fewer steps"
CAPTION = (
    "The paired difference in Fréchet distance to fewer steps at exactly the same cost, on the line between the two nearest "
    "runs of fewer steps, against MACs. A panel is a family; its methods are named where they end. Below the line is better, "
    "and the axis is linear around it and logarithmic beyond."
)
PER = "run"
PLACE = 2.5
KEY = "fd_minus_steps"


def draw(files):
    """A panel a family with the same axes, a line a method."""
    rows = files.frame[(files.frame.run == files.run) & files.frame[KEY].notna() & (files.frame.kind == "cache")]
    there = [name for name in style.FAMILIES if (rows.family == name).any()]
    if not there:
        return empty(f"No method of {files.run} could be compared with fewer steps at its cost.")
    linear = max(1e-6, 1.5 * float((rows[f"{KEY}_high"] - rows[f"{KEY}_low"]).median()))
    figure, axes = style.panels(len(there), 3.4, 2.6)
    for axis, name in zip(axes, there, strict=True):
        axis.set_yscale("symlog", linthresh=linear)
        axis.axhline(0, color=INK, lw=0.9, ls="--", zorder=0)
        for of in (of for _, of in rows[rows.family == name].sort_values("achieved").groupby("method", sort=False)):
            spread = np.array([of[KEY] - of[f"{KEY}_low"], of[f"{KEY}_high"] - of[KEY]]).clip(min=0)
            form = {"fmt": "o-", "color": style.FAMILIES[name], "ms": 3.5, "lw": 1.2, "elinewidth": 0.7, "alpha": 0.85}
            axis.errorbar(100 * of.achieved, of[KEY], spread, **form)
            first = of.iloc[0]
            axis.annotate(
                first["name"], (100 * first.achieved, first[KEY]), (3, 3), textcoords="offset points", fontsize=6.5, color=INK
            )
        axis.set_xlim(100 * rows.achieved.min() - 2, 102)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel("MACs per image, % of full", fontsize=9)
        axis.set_yticks(ticks(*axis.get_ylim(), linear))
        axis.set_yticks([], minor=True)
        axis.yaxis.set_major_formatter("{x:g}")
    axes[0].set_ylabel(f"{tables.called(rows)} − fewer steps", fontsize=9)
    figure.suptitle(f"{files.run}: beside fewer steps at the same cost", fontsize=12)
    return figure
