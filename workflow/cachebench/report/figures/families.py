"""Every method beside fewer steps at the same cost, a panel a family, of a run."""

import numpy as np

from cachebench.plugin import method
from cachebench.report import marks, style, symmetric, tables
from cachebench.report.against_cost import label_lines, label_width
from cachebench.report.style import INK, empty

TITLE = "Families of methods beside fewer steps"
CAPTION = (
    "The paired difference in Fréchet distance to fewer steps at exactly the same cost, on the line between the two nearest "
    "runs of fewer steps, against MACs. A panel is a family, or the controls; each line is named beside its least cost. Below "
    "the line is better, and the axis is linear around it and logarithmic beyond."
)
PER = "run"
PLACE = 2.5
KEY = "fd_minus_steps"
SMALL, GAP = 6.5, 0.055  # points of the names, and their least distance as a share of a panel's height


def draw(files):
    """A panel a family with the same axes, a line a method; the last one has the controls."""
    rows = files.frame[(files.frame.run == files.run) & files.frame[KEY].notna()].assign(share=lambda r: 100 * r.achieved)
    there = [name for name in method.FAMILIES if (rows.family == name).any()]
    if not there:
        return empty(f"By FD no method of {files.run} could be compared with fewer steps at its cost.")
    figure, axes = style.panels(len(there), 3.4, 2.6)
    for axis, name in zip(axes, there, strict=True):
        colour, dash = (style.FAMILIES[name], "-") if name in style.FAMILIES else (INK, "--")
        axis.axhline(0, color=INK, lw=0.9, ls=":", zorder=0)
        for _, of in rows[rows.family == name].sort_values("share").groupby("method", sort=False):
            spread = np.array([of[KEY] - of[f"{KEY}_low"], of[f"{KEY}_high"] - of[KEY]]).clip(min=0)
            form = {"fmt": f"o{dash}", "color": colour, "ms": 3.5, "lw": 1.2, "elinewidth": 0.7, "alpha": 0.85}
            axis.errorbar(of.share, of[KEY], spread, **form)
        axis.set_xlim(rows.share.min() - 2, 102)
        axis.locator_params(axis="x", nbins=4)
        axis.set_title(name if name in style.FAMILIES else "controls", fontsize=10, loc="left")
        axis.set_xlabel("MACs per image, % of full", fontsize=9)
        symmetric.bend(axis, rows, KEY)
    axes[0].set_ylabel(f"{tables.called(rows)} − fewer steps", fontsize=9)
    figure.suptitle(f"{files.run}: beside fewer steps at the same cost (the dotted line)", fontsize=12)
    names = {marks.named(row) for row in rows.to_dict("records")}
    edge = min(0.55, label_width(figure, axes[0], names, SMALL) + 0.02)
    for axis, name in zip(axes, there, strict=True):
        of = rows[rows.family == name]
        gap = min(GAP, 1 / (of.method.nunique() + 1))
        label_lines(figure, axis, of, KEY, dict.fromkeys(of.method, INK), edge, SMALL, gap)
    return figure
