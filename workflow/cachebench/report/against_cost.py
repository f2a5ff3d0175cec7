"""What pareto and fidelity share: two panels, a measure against MACs and against time, and its Pareto front. No torch here."""

import numpy as np
from matplotlib import pyplot, ticker
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.optimize import isotonic_regression

from cachebench.report import marks, symmetric, tables
from cachebench.report.style import FAMILIES, INK, MARKERS, MARKS, dark, empty, palette

LABEL_GAP = 0.075  # least distance of two direct labels, as a share of the axis
NAMED = 10  # methods that are all drawn in colour; of more only the best of each family is, and the controls
FAINT, SOFT = "#c4c4c4", "#555555"  # of lines that are not in colour, and of controls among many methods
COSTS = (("share", "MACs per image, % of full"), ("latency_ms", "measured time, ms per image"))


def pareto_front(cost, value):
    """Indices of the points that no other point beats in both (lower is better), by ascending cost; NaN never counts."""
    front = []
    for index in np.lexsort((value, cost)):
        if np.isfinite(cost[index] + value[index]) and (not front or value[index] < value[front[-1]]):
            front.append(int(index))
    return front


def methods_of(rows):
    return set(rows.method) - {"full"}


def leading(rows, key, few=NAMED):
    """The methods of a run's rows that are drawn in colour: the best of each family, at its least value of `key`, the controls,
    and caches on top of fewer steps; all, where they are few."""
    if len(methods_of(rows)) <= few:
        return methods_of(rows)
    rivals = rows[rows.method != "full"]
    always = (rivals.kind == "control") | rivals.method.str.contains("@")
    return {*rivals.method[always], *rivals[~always].sort_values(key).drop_duplicates("family").method}


def coloured(frame, rows, key):
    """{method: (colour, marker)} of the methods of a run's rows that are drawn in colour. Of many these are `leading`, in the
    look of their family, which grey print tells apart by its marker, and caches on fewer steps have one of their own; the
    controls are dark grey. `frame` has all runs."""
    named = leading(rows, key)
    if named == methods_of(rows):
        return {name: style for name, style in palette(frame.method).items() if name in named}
    first = rows[rows.method.isin(named)].drop_duplicates("method")
    controls = zip(first.method[first.kind == "control"], MARKERS * len(first), strict=False)
    caches = {row.method: look(row) for row in first.itertuples()}
    return caches | {name: (SOFT, marker) for name, marker in controls}


def look(row):
    """(colour, marker) of a cache among many."""
    return FAMILIES.get(row.family, INK), "X" if "@" in row.method else MARKS.get(row.family, "o")


def draw(files, key, ylabel, scale="linear"):
    """Two panels that share the axis of `key`; methods are lines through their budgets, full is a band. Those that are not
    `coloured` are thin and grey. On the `scale` "symlog" zero is fewer steps, else "linear" or "log"."""
    frame, run = files.frame, files.run
    rows = frame[(frame.run == run) & (frame.status == "ok") & frame[key].notna()].assign(share=lambda r: 100 * r.achieved)
    rows = rows[rows[key] > 0] if scale == "log" else rows
    if rows.empty:
        return empty(f"No setting of {run} has a value to show here.")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.8), sharey=True, width_ratios=(1.35, 1), layout="constrained")
    if scale == "log":
        axes[0].set_yscale("log", nonpositive="clip")
    styles, beside = coloured(frame, rows, key), scale == "symlog"
    for axis, (cost, xlabel) in zip(axes, COSTS, strict=True):
        draw_full(axis, rows[rows.method == "full"], cost, key)
        front = rows.iloc[[] if beside else pareto_front(rows[cost].to_numpy(), rows[key].to_numpy())]
        for name, of_method in rows[rows.method != "full"].sort_values("budget").groupby("method", sort=True):
            if name not in styles:
                axis.plot(of_method[cost], of_method[key], ".-", color=FAINT, lw=0.8, ms=4, zorder=1)
                continue
            draw_method(axis, of_method, cost, key, styles[name], of_method.index.isin(front.index) | beside)
        axis.plot(front[cost], front[key], drawstyle="steps-post", color="#999999", lw=5, alpha=0.35, zorder=1)
        if beside:
            axis.axhline(0, color=INK, lw=1.2, ls="--", zorder=2)
        axis.set_xlabel(xlabel)
    axes[0].axvline(100, color="#bbbbbb", lw=0.8, ls=":", zorder=0)  # the full run's cost, so that the axis reaches it
    first = rows.iloc[0]
    axes[0].set_ylabel(ylabel.format(fd=tables.called(rows), extractor=first.extractor, count=f"{first['count']:.0f}"))
    figure.suptitle(f"{run}: {'closeness to the full run' if scale == 'log' else 'quality'} against cost", fontsize=12)
    if beside:
        symmetric.bend(axes[0], rows, key)
    else:
        limits(axes[0], rows, key, scale == "log")
    lines = rows[rows.method.isin(styles)]
    edge = label_width(figure, axes[0], {marks.named(row) for row in lines.to_dict("records")}) + 0.02
    labelled = 0 < len(styles) <= 1 / LABEL_GAP and edge <= 0.45
    if labelled:
        label_lines(figure, axes[0], lines, key, {name: colour for name, (colour, _) in styles.items()}, edge)
    legend(figure, rows[rows.method.isin({"full", *styles})], styles, labelled, beside)
    return figure


def draw_full(axis, full, cost, key):
    for _, row in full.iterrows():
        axis.axhspan(row[f"{key}_low"], row[f"{key}_high"], color=INK, alpha=0.08, lw=0, zorder=0)
        axis.axhline(row[key], color=INK, lw=0.8, zorder=0)
        axis.plot(row[cost], row[key], "*", color=INK, ms=11, zorder=4)


def draw_method(axis, rows, cost, key, style, on_front):
    """A line through a method's budgets; its points behind the front are faint."""
    colour, marker = style
    low, high = (rows[key] - rows[f"{key}_low"]).clip(lower=0), (rows[f"{key}_high"] - rows[key]).clip(lower=0)
    spread = None
    if cost == "latency_ms":
        spread = [rows[cost] - rows.latency_ms_low, rows.latency_ms_high - rows[cost]]
        spread = np.clip(np.array(spread, float), 0, None)
    axis.errorbar(rows[cost], rows[key], [low, high], spread, fmt="none", ecolor=colour, elinewidth=1, capsize=2, alpha=0.6)
    dash = "--" if (rows.kind == "control").any() else "-"
    axis.plot(rows[cost], rows[key], dash, color=colour, lw=1.6, zorder=2)
    for alpha, of in ((1.0, rows[on_front]), (0.4, rows[~on_front])):
        axis.plot(of[cost], of[key], marker, color=colour, ms=7, mec="white", mew=0.6, alpha=alpha, zorder=3)


def limits(axis, rows, key, log):
    """The axis fits the values with some room; one huge interval must not flatten everything else."""
    low, high = rows[key].min(), rows[key].max()
    if log:
        axis.set_ylim(low / 2.5, high * 2.5)
        return
    ends = rows[[f"{key}_low", f"{key}_high"]]
    room = max(3 * (high - low), 1.2 * float((ends[f"{key}_high"] - ends[f"{key}_low"]).median() or 0), 1e-3 * abs(high), 1e-9)
    bottom, top = (np.nanmin([low, ends[f"{key}_low"].min()]), np.nanmax([high, ends[f"{key}_high"].max()]))
    axis.set_ylim(max(bottom, low - room) - 0.04 * room, min(top, high + room) + 0.04 * room)


def label_lines(figure, axis, rows, key, colours, edge, size=9, gap=LABEL_GAP):
    """Names the lines beside their cheapest points, in a column left of the data that is `edge` of the axis wide, in points of
    `size`; no two names are on top of each other. `colours` are of the methods."""
    ends = rows.sort_values("share").groupby("method", sort=False).first()
    left, right = axis.get_xlim()
    axis.set_xlim(left - (edge + 0.04) / (0.96 - edge) * (right - left), right)
    axis.xaxis.set_major_locator(ticker.FixedLocator([t for t in axis.get_xticks() if left <= t <= right]))
    figure.draw_without_rendering()
    heights = axis.transAxes.inverted().transform(axis.transData.transform(ends[["share", key]].to_numpy(float)))[:, 1]
    for (name, end), height in zip(ends.iterrows(), spread_out(heights, gap), strict=True):
        arrow = {"arrowstyle": "-", "color": colours[name], "lw": 0.6, "alpha": 0.7, "relpos": (1, 0.5)}
        arrow |= {"shrinkA": 2, "shrinkB": 4}
        label = {"ha": "right", "va": "center", "fontsize": size, "color": dark(colours[name]), "arrowprops": arrow}
        label["bbox"] = {"fc": "white", "ec": "none", "alpha": 0.8, "pad": 0.6}  # not struck through by the full run's line
        axis.annotate(marks.named(end), (end.share, end[key]), (edge, height), textcoords="axes fraction", **label)


def label_width(figure, axis, names, size=9):
    """Width of the widest name as a share of the axis."""
    figure.draw_without_rendering()
    widths = []
    for name in names:
        text = axis.text(0, 0, name, fontsize=size)
        widths.append(text.get_window_extent().width / axis.get_window_extent().width)
        text.remove()
    return max(widths, default=0)


def spread_out(heights, gap=LABEL_GAP):
    """`heights` moved as little as possible (least squares) so that all lie in [0, 1] and are `gap` apart."""
    order, steps = np.argsort(heights), gap * np.arange(len(heights))
    placed = np.empty(len(heights))
    placed[order] = np.clip(isotonic_regression(heights[order] - steps).x, gap / 2, 1 - gap / 2 - steps[-1]) + steps
    return placed


def legend(figure, rows, styles, labelled, beside):
    """What is not named in the panels; every method where its line is not. `beside` fewer steps there is no front."""
    named = rows[rows.method != "full"].groupby("method").first()
    handles = [] if labelled else [method_handle(marks.named(row), styles[name]) for name, row in named.iterrows()]
    if (rows.method == "full").any():
        handles.append(Line2D([], [], color=INK, marker="*", ms=10, lw=0.8, label="full run"))
        handles.append(Patch(color=INK, alpha=0.08, lw=0, label="its 95 % interval"))
    if beside:
        handles.append(Line2D([], [], color=INK, ls="--", lw=1.2, label="fewer steps at the same cost"))
    else:
        handles.append(Line2D([], [], color="#999999", lw=5, alpha=0.35, label="Pareto front"))
    if (rows.kind[rows.method != "full"] == "control").any():
        handles.append(Line2D([], [], color=SOFT, ls="--", lw=1.4, label="control"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5), frameon=False, fontsize=9)


def method_handle(text, style):
    return Line2D([], [], color=style[0], marker=style[1], ms=6, lw=1.6, label=text)
