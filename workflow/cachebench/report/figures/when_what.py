"""When a value is skipped by what stands in for it: schedules by forecasters, of a run."""

import math

from matplotlib import colors, pyplot

from cachebench.plugin import loader
from cachebench.report import tables
from cachebench.report.style import INK, PALE, empty, wrap

TITLE = "When a value is skipped, and what stands in for it"
CAPTION = (
    "Schedules (rows) with stand-ins (columns) at one budget, the one at which most of them stand: mean squared error of the "
    "latents to the full run, and Fréchet distance. A schedule's own stand-in is the last value, unless it is another "
    "method's. The palest cell is the best, bold the best of its row."
)
PER = "run"
PLACE = 5

OWN = ""  # the stand-in of a schedule by itself
MEASURES = (("latent_mse", "latent MSE to full", True), ("fd", "{fd}", False))  # key, title, whether colours are logarithmic


def wanted(cfg):
    """Where a run has at least two schedules with at least two stand-ins."""
    from collections import Counter

    from cachebench.plugin import loader
    from cachebench.setup import matrix

    def crossed(run):
        told = [loader.parts(name) for name in matrix.method_ids(cfg, run)]
        pairs = {(parts["own"], parts["forecaster"]) for parts in told if not (parts["steps"] or parts["number"])}
        return sum(count > 1 for count in Counter(schedule for schedule, _ in pairs).values()) > 1

    return any(map(crossed, cfg["runs"]))


def chosen(frame, run):
    """The rows of a run's crossed schedules at one budget, with the columns `when` and `what`; none where fewer than two
    schedules have two stand-ins there."""
    rows = frame[(frame.run == run) & (frame.status == "ok") & (frame.method != "full")]
    told = rows.method.map(loader.parts)
    rows = rows.assign(when=told.map(lambda parts: parts["own"]), what=told.map(lambda parts: parts["forecaster"] or OWN))
    rows, best = rows[[not (parts["steps"] or parts["number"]) for parts in told]], rows.iloc[:0]
    for _, at in rows.groupby("budget"):  # of as many the lowest budget
        crossed = at[at.groupby("when").what.transform("nunique") > 1]
        if crossed.when.nunique() > 1 and len(crossed) > len(best):
            best = crossed
    return best


def named(row):
    """(schedule, stand-in) as printed."""
    when, _, what = row["name"].partition(" + ")
    return when, what or "own"


def table(files):
    """(titles, rows of texts) of what is drawn."""
    titles = ("Schedule", "Stand-in", "MACs (% of full)", "Latent MSE to full ↓", "FD ↓")
    rows = [
        (*named(row), f"{100 * row.achieved:.1f}", *(tables.phrase(row, tables.column(key)) for key, *_ in MEASURES))
        for _, row in chosen(files.frame, files.run).sort_values(["when", "what"]).iterrows()
    ]
    return titles, rows


def draw(files):
    """A panel for each measure."""
    rows = chosen(files.frame, files.run)
    if rows.empty:
        return empty(f"No budget of {files.run} has two schedules with two stand-ins each.")
    whens, whats = sorted(rows.when.unique()), sorted(rows.what.unique())
    size = (2.2 + 2.2 * len(whats), 1.6 + 0.5 * len(whens))
    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=size, sharey=True, layout="constrained")
    for axis, (key, title, log) in zip(axes, MEASURES, strict=True):
        draw_measure(axis, rows, whens, whats, key, log)
        axis.set_title(title.format(fd=tables.called(rows)), fontsize=10)
    printed = {(row.when, row.what): named(row) for row in each(rows)}
    whens_printed, whats_printed = ({pair[n]: text[n] for pair, text in printed.items()} for n in (0, 1))
    axes[0].set_yticks(range(len(whens)), [whens_printed[when] for when in whens])
    for axis in axes:
        axis.set_xticks(range(len(whats)), [wrap(whats_printed[what], 12) for what in whats], fontsize=8)
    figure.suptitle(f"{files.run}: when a value is skipped, and what stands in, at budget {rows.budget.iloc[0]:g}", fontsize=12)
    return figure


def each(rows):
    return [row for _, row in rows.iterrows()]


def draw_measure(axis, rows, whens, whats, key, log):
    """Coloured cells with their values; grey where a pair has none."""
    cells = {(row.when, row.what): row[key] for row in each(rows) if math.isfinite(row[key])}
    shade = shades(list(cells.values()), log)
    axis.set(xlim=(-0.5, len(whats) - 0.5), ylim=(len(whens) - 0.5, -0.5))
    for y, when in enumerate(whens):
        best = min((cells[when, what] for what in whats if (when, what) in cells), default=math.nan)
        for x, what in enumerate(whats):
            value = cells.get((when, what))
            colour, ink = (PALE, INK) if value is None else shade(value)
            axis.add_patch(pyplot.Rectangle((x - 0.5, y - 0.5), 1, 1, fc=colour, ec="white", lw=1.5))
            text, weight = "–" if value is None else tables.number(value), "bold" if value == best else "normal"
            axis.text(x, y, text, ha="center", va="center", color=ink, fontsize=9, fontweight=weight)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)


def shades(values, log):
    """A function: value -> (colour, ink), pale for the lowest."""
    ends = (min(values, default=1), max(values, default=1))
    norm = (colors.LogNorm if log and ends[0] > 0 else colors.Normalize)(*ends)
    palest = pyplot.get_cmap("Blues")

    def shade(value):
        place = 0.08 + 0.8 * float(norm(value) if ends[0] < ends[1] else 0)
        return palest(place), "white" if place > 0.55 else INK

    return shade
