"""Every method's paired difference to fewer steps, and its ranks, of a run."""

import pandas as pd
from matplotlib import pyplot
from matplotlib.lines import Line2D

from cachebench.report import marks, symmetric, tables
from cachebench.report.against_cost import look
from cachebench.report.style import INK, dark, empty

TITLE = "Against fewer steps, and ranks"
CAPTION = (
    "Every method's paired difference in Fréchet distance to the step-reduction control of each budget, less the bias of both, "
    "with its 95 % interval: left of the line is better. A marker is filled where Holm's correction over the budget's methods "
    "leaves it better or worse, and open for a tie; the control's own is filled. On the right is the rank, with the ranks that "
    "the differences to this method leave it; the rows are in the order of their mean place over the budgets, and the axis is "
    "linear around zero and logarithmic beyond."
)
PER = "run"
PLACE = 2

KEY = "fd_minus_control"
ROW, ROWS = 0.26, 13.0  # inches: the height of a row, and of all rows at most
PANELS, PANEL = 13.5, (1.7, 4.0)  # inches: the width of all panels, as far as one of them then lies between these
BAND = "#f1f1f1"  # behind every second row, so that the eye can follow it


def draw(files):
    """A panel a budget with a control, side by side, and a row a method in all of them: the difference with its 95 % interval,
    open for a tie, beside it its rank. The figure's height is that of the rows alone."""
    of_run, panels = files.frame[files.frame.run == files.run], {}
    for budget, rows in sorted(of_run[of_run.verdict != ""].groupby("budget"), reverse=True):
        control = of_run[(of_run.budget == budget) & (of_run.method == rows.control.iloc[0])]
        panels[budget] = pd.concat([rows, control.assign(**{KEY: 0.0})]).sort_values(KEY)
    if not panels:
        return empty(f"By FD no method of {files.run} could be compared with fewer steps.")
    shown = pd.concat(panels.values())
    places = shown.groupby("budget")[KEY].rank(pct=True).groupby(shown.method).mean().sort_values(kind="stable")
    named = shown.drop_duplicates("method").set_index("method", drop=False).loc[places.index]
    tall, wide = min(ROW, ROWS / len(named)), min(max(PANELS / len(panels), PANEL[0]), PANEL[1])
    small, form = min(9, 50 * tall), {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    size = (2 + wide * len(panels), tall * len(named) + 1.6)
    figure, (axes,) = pyplot.subplots(1, len(panels), figsize=size, **form)
    for axis, (budget, rows) in zip(axes, panels.items(), strict=True):
        draw_budget(axis, rows, list(named.index), small)
        axis.set_title(f"budget {budget:g}", fontsize=10, loc="left", pad=16)
        axis.tick_params(axis="x", labelrotation=90 if wide < 2 else 0, labelsize=8)
    symmetric.bend(axes[0], shown, KEY, "x", few=wide < 3)
    axes[0].set_yticks(range(len(named)), named["name"], fontsize=small)
    axes[0].set_ylim(len(named) - 0.5, -0.5)
    for label, (_, row) in zip(axes[0].get_yticklabels(), named.iterrows(), strict=True):
        label.set_color(dark(look(row)[0]))
    lost = marks.unranked(of_run)
    unsure = f" ({lost})" if lost else ""
    figure.suptitle(f"{files.run}: against fewer steps at the same budget{unsure}", fontsize=12)
    below = f"; *: {marks.BELOW}" if any(marks.below(row) for _, row in shown.iterrows()) else ""
    told = f"{tables.called(of_run)} less that of fewer steps (the line), 95 % interval; lower is better; open: a tie{below}"
    kinds = {look(row): f"{row.family}{', on fewer steps' if '@' in row.method else ''}" for _, row in named.iterrows()}
    handles = [Line2D([], [], color=colour, marker=marker, ls="", ms=5, label=kind) for (colour, marker), kind in kinds.items()]
    form = {"loc": "outside lower center", "ncols": int(size[0] / 1.6), "frameon": False, "fontsize": 9, "title_fontsize": 9}
    figure.legend(handles=handles, title=told, **form)
    return figure


def draw_budget(axis, rows, methods, small):
    """One panel; the rows stand at the places of their `methods`, and ranks have the size `small` in points."""
    for y in range(1, len(methods), 2):
        axis.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=-1)
    axis.axvline(0, color=INK, lw=0.9, zorder=0)
    for _, row in rows.iterrows():
        y, (colour, marker), fill = methods.index(row.method), look(row), "white" if row.verdict == "tie" else None
        form = {"fmt": marker, "color": colour, "mfc": fill, "ms": 5, "capsize": 2, "elinewidth": 1.2}
        spread = [[row[KEY] - row[f"{KEY}_low"]], [row[f"{KEY}_high"] - row[KEY]]] if row.verdict else None
        axis.errorbar(row[KEY], y, xerr=spread, **form)
        rank = f"{marks.ranks(row)}{'*' if marks.below(row) else ''}"
        axis.annotate(rank, (1.02, y), xycoords=("axes fraction", "data"), va="center", fontsize=small, color=INK)
    axis.annotate("rank", (1.02, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=INK)
    axis.tick_params(axis="y", length=0)
