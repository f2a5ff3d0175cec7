"""The fit over the number of images that each FD-infinity of a run rests on."""

from pathlib import Path

import numpy as np
from matplotlib.ticker import FuncFormatter

from cachebench.files import atomic
from cachebench.report.style import empty, palette, panels

TITLE = "FD and the number of images"
CAPTION = (
    "Fréchet distance of random subsets against the number of images, on an axis that is even in 1 / N, where it is nearly "
    "a line; its end at infinitely many images is FD-infinity (arXiv:1911.07023) with its 95 % interval. The full run "
    "stands in every panel."
)
PER = "run"
PLACE = 4


def wanted(cfg):
    return cfg["metrics"]["infinity"]


def draw(files):
    """One panel per budget: FD against 1 / N of random subsets, the fitted line, and where it meets infinitely many images."""
    found = [(name, float(b), row) for name in files.names for b, row in scores(files, name) if "infinity_fit" in row]
    budgets, shown = sorted({b for name, b, _ in found if name != "full"} or {b for _, b, _ in found}, reverse=True), {}
    if not found:
        return empty(f"FD of {files.run} was not extrapolated to infinitely many images.")
    styles, (figure, axes) = palette(files.frame.method), panels(len(budgets), 4.3, 3.6)
    for axis, budget in zip(axes, budgets, strict=True):
        for name, b, row in found:
            if name == "full" or b == budget:
                shown[files.names[name]] = draw_method(axis, row, styles[name])
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{1 / x:.0f}" if x > 0 else "∞"))
        axis.set(title=f"budget {budget:g}", xlabel="images (even in 1 / N)")
    figure.supylabel("FD of so many images", fontsize=10)
    figure.suptitle(f"{files.run}: FD extrapolated to infinitely many images", fontsize=12)
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return figure


def scores(files, name):
    """(budget, its scores) pairs of a method; none if there are no scores."""
    path = Path(files.tree.scores(files.run, name))
    return atomic.read_json(path).items() if path.exists() else ()


def draw_method(axis, row, style):
    """The points of a fit, which are returned, its line, and its end with the 95 % interval."""
    (colour, marker), fit = style, row["infinity_fit"]
    x = 1 / np.array(fit["count"])
    points = axis.plot(x, fit["fd"], marker, color=colour, ms=4, alpha=0.7)[0]
    axis.plot([0, x.max()], [fit["intercept"], fit["intercept"] + fit["slope"] * x.max()], color=colour, lw=1.2)
    spread = [[row["fd_infinity"] - row["fd_infinity_low"]], [row["fd_infinity_high"] - row["fd_infinity"]]]
    axis.errorbar(0, row["fd_infinity"], spread, fmt=marker, color=colour, ms=6, capsize=3, elinewidth=1)
    return points
