"""The error to the full run along the trajectory, of a run."""

import seaborn as sns
from matplotlib import pyplot, ticker

from cachebench.report import against_cost
from cachebench.report.style import empty

TITLE = "Where along the trajectory the error arises"
CAPTION = (
    "Mean squared difference of x to the full run at every evaluation, from the same seeds, with its 95 % band over the "
    "images; after the last evaluation comes the sample, and of many methods the best of each family is in colour. With fewer "
    "steps only the noise levels that both grids share can be compared (dotted): often no more than the sample. What an "
    "evaluation reuses shows in the x after it; below stands the share of all branches that it computed, and the rest is its "
    "hit rate."
)
PER = "run"
PLACE = 5


def draw(files):
    """One panel per budget, a line with its 95 % band per method, on a log axis, and below it what each evaluation computed,
    from the run's trace.csv.

    The start, which all share, has no error and is not drawn."""
    table = files.traced
    if table.empty:
        return empty(f"The trajectories of {files.run} have not been traced yet.")
    apart = table[table.latent_mse > 0]
    if apart.empty:
        return empty(f"No setting of {files.run} has a trajectory to compare with the full run's.")
    budgets, shown = sorted(apart.budget.unique(), reverse=True), {}
    of_run = files.frame[(files.frame.run == files.run) & (files.frame.status == "ok")]
    styles = against_cost.coloured(files.frame, of_run, "latent_mse")
    size, form = (1 + 4.3 * len(budgets), 5.4), {"sharex": "col", "sharey": "row", "squeeze": False, "height_ratios": (3, 1)}
    figure, axes = pyplot.subplots(2, len(budgets), figsize=size, layout="constrained", **form)
    for error, share, budget in zip(*axes, budgets, strict=True):
        for place, name in enumerate(files.methods()):
            rows = apart[(apart.budget == budget) & (apart.method == name)]
            if len(rows) and name not in styles:
                error.plot(rows.evaluation, rows.latent_mse, color=against_cost.FAINT, lw=0.7, zorder=0)
            elif len(rows):
                shown[files.names[name]] = draw_method(error, rows, styles[name], place)
                draw_computed(share, table[(table.budget == budget) & (table.method == name)], styles[name])
        error.set(yscale="log", title=f"budget {budget:g}", ylabel="")
        share.set(xlabel="evaluation (after the last: the sample)", ylim=(-5, 105))
        share.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    axes[0, 0].set_ylabel(f"mean squared difference\nof x to full (n = {apart['count'].max():.0f})")
    axes[1, 0].set_ylabel("computed,\n% of branches")
    figure.suptitle(f"{files.run}: where along the trajectory the error arises", fontsize=12)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def draw_computed(axis, rows, style):
    """A thin stair of what each evaluation computed; nothing where only a few evaluations can be compared."""
    if len(rows) > rows.evaluation.max() / 2:
        axis.step(rows.evaluation, 100 * rows.computed, where="mid", color=style[0], lw=1.2, alpha=0.8)


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
