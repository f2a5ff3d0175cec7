"""The loss curves of a run's fits, and what calibrated ones found."""

import textwrap

import numpy as np
from matplotlib import colors, pyplot, ticker

from cachebench.report.files_of_run import curve, curve_columns, curve_map
from cachebench.report.style import empty, palette

TITLE = "Fits"
CAPTION = (
    "Every fit over its iterations: raw values faint, their running median strong. What is calibrated for each evaluation and "
    "block, or branch, or earlier evaluation, is a map of them."
)
PER = "run"
PLACE = 9


def draw(files):
    """For every fit a row, for every numeric column of its csv a panel: a loss curve, or a map of evaluation by site."""
    fits = [(name, path, curve(path)) for name in files.methods() for path in files.fits(name, "csv")]
    fits = [(name, path, frame) for name, path, frame in fits if len(frame.columns) > 1]
    if not fits:
        return empty(f"No method of {files.run} wrote a loss curve.")
    styles, width = palette(files.frame.method), max(len(curve_columns(frame)) for _, _, frame in fits)
    figure, axes = pyplot.subplots(
        len(fits), width, figsize=(max(5, 4.6 * width), 3.1 * len(fits)), squeeze=False, layout="constrained"
    )
    for axis_row, (name, path, frame) in zip(axes, fits, strict=True):
        for axis in axis_row[len(curve_columns(frame)) :]:
            axis.axis("off")
        found_map = curve_map(frame)
        for axis, column in zip(axis_row, curve_columns(frame), strict=False):
            if found_map:
                draw_map(axis, found_map, column)
            else:
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


def draw_map(axis, fit_map, column):
    """The values of a `column` of a Map in colour, on a log scale where they span much more than a decade."""
    values, places = fit_map.values[column], fit_map.columns
    known = values[np.isfinite(values)]
    log = known.size and known.min() > 0 and known.max() > 30 * known.min()
    around = (places[0] - 0.5, places[-1] + 0.5, len(fit_map.rows) - 0.5, -0.5)
    form = {"extent": around, "aspect": "auto", "interpolation": "none", "norm": colors.LogNorm() if log else None}
    image = axis.imshow(values, cmap="Blues", **form)
    axis.figure.colorbar(image, ax=axis, label=column.replace("_", " "))
    names = [row.partition(" ")[0] for row in fit_map.rows]
    firsts = [i for i, name in enumerate(names) if name not in names[:i]]
    each = len(names) / len(firsts)  # rows of a block
    shown = firsts[:: -(-len(firsts) // 8)]
    axis.set_yticks([i + (each - 1) / 2 for i in shown], [names[i] for i in shown])
    axis.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
    across = "evaluation (0 = noisiest)" if fit_map.across == "evaluation" else fit_map.across
    axis.set(xlabel=across, ylabel=fit_map.down + (", attention above MLP" if each == 2 else ""))
