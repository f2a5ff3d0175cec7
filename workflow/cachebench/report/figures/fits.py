"""The loss curves of a run's fits."""

import textwrap

from matplotlib import pyplot, ticker

from cachebench.report.files_of_run import curve, curve_columns
from cachebench.report.style import empty, palette

TITLE = "Fits"
CAPTION = "Every fit over its iterations: raw values faint, their running median strong."
PER = "run"
PLACE = 9


def draw(files):
    """Loss curves: for every fit a row, for every numeric column of its csv a panel; raw faint, running median strong."""
    found = [(name, path, curve(path)) for name in files.methods() for path in files.fits(name, "csv")]
    found = [(name, path, frame) for name, path, frame in found if len(frame.columns) > 1]
    if not found:
        return empty(f"No method of {files.run} wrote a loss curve.")
    styles, width = palette(files.frame.method), max(len(curve_columns(frame)) for _, _, frame in found)
    figure, axes = pyplot.subplots(
        len(found), width, figsize=(max(5, 4.6 * width), 3.1 * len(found)), squeeze=False, layout="constrained"
    )
    for axis_row, (name, path, frame) in zip(axes, found, strict=True):
        for axis in axis_row[len(curve_columns(frame)) :]:
            axis.axis("off")
        for axis, column in zip(axis_row, curve_columns(frame), strict=False):
            draw_curve(axis, frame, column, styles[name][0])
        label = textwrap.fill(f"{files.names[name]}: {path.stem.replace('+', ', ')}", 50 * width)
        axis_row[0].set_title(label, loc="left", fontsize=9)
    figure.suptitle(f"{files.run}: fits", fontsize=11)
    return figure


def draw_curve(axis, frame, column, colour):
    x, y = frame.iloc[:, 0], frame[column]
    window = max(5, len(frame) // 20)
    axis.plot(x, y, color=colour, lw=0.7, alpha=0.35)
    axis.plot(x, y.rolling(window, center=True, min_periods=1).median(), color=colour, lw=1.8)
    if (y > 0).all() and y.max() > 30 * y.min():
        axis.set_yscale("log")
    else:
        axis.ticklabel_format(axis="y", scilimits=(-3, 4))
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    axis.set(xlabel=frame.columns[0], ylabel=column.replace("_", " "))
