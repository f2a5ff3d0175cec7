"""What a forecaster's stand-ins are worth, evaluation by evaluation, beside plain reuse, of a run."""

from matplotlib import pyplot, ticker

from cachebench.report.style import empty, palette

TITLE = "What a forecast is worth at each evaluation"
CAPTION = (
    "Squared error of the network's output where a forecasting method skips, over the output's square, with its 95 % band over "
    "the images. The network stands at the full run's states, so that errors do not add up. Dotted: the same method where the "
    "last computed value is taken in the forecast's place."
)
PER = "run"
PLACE = 5.5


def draw(files):
    """One panel per budget, two lines on a log axis for each method with a forecaster, from the run's trace.csv."""
    told = files.traced.dropna(subset="stand_in")
    if told.empty:
        return empty(f"No method of {files.run} that forecasts has been traced.")
    budgets, shown, styles = sorted(told.budget.unique(), reverse=True), {}, palette(files.frame.method)
    form = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = pyplot.subplots(1, len(budgets), figsize=(1.5 + 4.3 * len(budgets), 4.2), **form)
    for axis, budget in zip(axes[0], budgets, strict=True):
        for name in files.methods():
            rows = told[(told.budget == budget) & (told.method == name)]
            if len(rows):
                shown[files.names[name]] = draw_method(axis, rows, styles[name])
        axis.set(yscale="log", title=f"budget {budget:g}", xlabel="evaluation")
        axis.xaxis.set_major_locator(ticker.MaxNLocator(8, integer=True))
    axes[0, 0].set_ylabel(f"squared error of the output\nover its square (n = {told['count'].max():.0f})")
    figure.suptitle(f"{files.run}: forecast (solid) and plain reuse (dotted)", fontsize=12)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def draw_method(axis, rows, style):
    """The method's line, which is returned, its band, and the dotted line of plain reuse."""
    colour, marker = style
    (line,) = axis.plot(rows.evaluation, rows.stand_in, color=colour, marker=marker, ms=5, lw=1.4)
    axis.fill_between(rows.evaluation, rows.stand_in_low, rows.stand_in_high, color=colour, alpha=0.15, lw=0)
    axis.plot(rows.evaluation, rows.reuse, color=colour, marker=marker, ms=3, lw=1, ls=":", alpha=0.8)
    return line
