"""Every method's paired difference to fewer steps, and its ranks, of a run."""

import pandas as pd
from matplotlib import pyplot

from cachebench.report import marks, symmetric, tables
from cachebench.report.style import INK, dark, empty, palette

TITLE = "Against fewer steps, and ranks"
CAPTION = (
    "Every method's paired difference in Fréchet distance to the step-reduction control of its budget, less the bias of "
    "both, with its 95 % interval. A marker is filled where Holm's correction over the budget's methods leaves it better or"
    " worse, and open for a tie; the control's own is filled. On the right is the rank, with the ranks that the differences "
    "to this method leave it; the axis is linear around zero and logarithmic beyond."
)
PER = "run"
PLACE = 2

KEY = "fd_minus_control"


def draw(files):
    """One panel per budget with a control, the lowest FD first: the difference with its 95 % interval, open for a tie, beside
    it its rank."""
    of_run, styles, panels = files.frame[files.frame.run == files.run], palette(files.frame.method), []
    for budget, rows in sorted(of_run[of_run.verdict != ""].groupby("budget"), reverse=True):
        control = of_run[(of_run.budget == budget) & (of_run.method == rows.control.iloc[0])]
        panels.append((budget, pd.concat([rows, control.assign(**{KEY: 0.0})]).sort_values(KEY)))
    if not panels:
        return empty(f"By FD no method of {files.run} could be compared with fewer steps.")
    heights = [0.26 * len(rows) + 0.5 for _, rows in panels]
    figure, axes = pyplot.subplots(
        len(panels), 1, figsize=(7.5, sum(heights) + 0.9), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, (budget, rows) in zip(axes[:, 0], panels, strict=True):
        draw_budget(axis, rows, styles)
        axis.set_title(f"budget {budget:g}", fontsize=10, loc="left")
    label = f"{tables.called(of_run)} less that of fewer steps (the line), 95 % interval; lower is better, open: a tie"
    axes[-1, 0].set_xlabel(label, fontsize=9)
    lost = marks.unranked(of_run)
    unsure = f" ({lost})" if lost else ""
    figure.suptitle(f"{files.run}: against fewer steps at the same budget{unsure}", fontsize=12)
    return figure


def draw_budget(axis, rows, styles):
    axis.axvline(0, color=INK, lw=0.9, zorder=0)
    for y, (_, row) in enumerate(rows.iterrows()):
        (colour, marker), fill = styles[row.method], "white" if row.verdict == "tie" else None
        form = {"fmt": marker, "color": colour, "mfc": fill, "ms": 6, "capsize": 2, "elinewidth": 1.2}
        spread = [[row[KEY] - row[f"{KEY}_low"]], [row[f"{KEY}_high"] - row[KEY]]] if row.verdict else None
        axis.errorbar(row[KEY], y, xerr=spread, **form)
        axis.annotate(marks.ranks(row), (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK)
    axis.annotate("rank", (1.02, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=INK)
    axis.set_yticks(range(len(rows)), [marks.named(row) for _, row in rows.iterrows()], fontsize=9)
    for label, method in zip(axis.get_yticklabels(), rows.method, strict=True):
        label.set_color(dark(styles[method][0]))
    symmetric.bend(axis, rows, KEY, "x")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
