"""The error to the full run along the trajectory, of a run."""

import pandas as pd
import seaborn as sns
from matplotlib import ticker

from cachebench.report.style import empty, palette, panels

TITLE = "Where along the trajectory the error arises"
CAPTION = (
    "Mean squared difference of x to the full run at every evaluation, from the same seeds, with its 95 % band over the "
    "images; after the last evaluation comes the sample. With fewer steps only the noise levels that both grids share can "
    "be compared (dotted): often no more than the sample. What an evaluation reuses shows in the x after it."
)
PER = "run"
PLACE = 5


def draw(files):
    """One panel per budget, a line with its 95 % band per method, on a log axis, from the run's trace.csv.

    The start, which all share, has no error and is not drawn."""
    table = pd.read_csv(files.tree.trace(files.run))
    table = table[table.latent_mse > 0]
    if table.empty:
        return empty(f"No setting of {files.run} has a trajectory to compare with the full run's.")
    budgets, shown = sorted(table.budget.unique(), reverse=True), {}
    styles, (figure, axes) = palette(files.frame.method), panels(len(budgets), 4.3, 3.6)
    for axis, budget in zip(axes, budgets, strict=True):
        for place, name in enumerate(files.methods()):
            rows = table[(table.budget == budget) & (table.method == name)]
            shown |= {files.names[name]: draw_method(axis, rows, styles[name], place)} if len(rows) else {}
        axis.set(yscale="log", title=f"budget {budget:g}", xlabel="evaluation (after the last: the sample)", ylabel="")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    figure.supylabel(f"mean squared difference of x to full (n = {table['count'].max():.0f})", fontsize=10)
    figure.suptitle(f"{files.run}: where along the trajectory the error arises", fontsize=12)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def draw_method(axis, rows, style, place):
    """The line of a method, which is returned, and its band; markers stand apart from those of the methods before it, so
    that lines which coincide show."""
    colour, marker = style
    few = len(rows) < rows.evaluation.max() / 2  # points that two grids share, far apart
    every = None if few else (place % 4, 4)
    look = {"color": colour, "marker": marker, "ms": 5, "lw": 0.8 if few else 1.6, "markevery": every}
    sns.lineplot(rows, x="evaluation", y="latent_mse", ax=axis, **look)
    line = axis.lines[-1]
    line.set_linestyle(":" if few else "-")
    axis.fill_between(rows.evaluation, rows.latent_mse_low, rows.latent_mse_high, color=colour, alpha=0.15, lw=0)
    return line
