"""What all figures share: theme, colours, panels, and how they are written. No torch here."""

import textwrap

import matplotlib

matplotlib.use("Agg")

import numpy as np
import seaborn as sns
from matplotlib import colors, pyplot

from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.plugin import method

# Seaborn's colour-blind palette without its yellow and pale pink, which are lost on white, and two dark ones.
COLOURS = ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#ca9161", "#949494", "#332288", "#882255")
MARKERS = "osD^vPX"
# Of families of caching methods, in which no two are orange.
FAMILIES = dict(zip(method.FAMILIES[:-1], (COLOURS[i] for i in (0, 1, 2, 9, 4, 5)), strict=True))
MARKS = dict(zip(FAMILIES, MARKERS, strict=False))  # so that grey print tells them apart too
INK, PALE = "#222222", "#d9d9d9"
EMPTY = "nothing-to-show"  # what marks such a figure in its svg file

sns.set_theme(style="ticks", rc={"svg.hashsalt": "cachebench", "axes.titlesize": 11, "axes.spines.top": False})
pyplot.rcParams |= {
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # TrueType, as journals ask for
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


def save(figure, paths):
    """Writes the figure to `paths` (png at 150 dpi, svg, pdf; the same figure gives the same bytes) and closes it."""
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    figure.draw_without_rendering()  # places everything, once for all files
    bounds = figure.get_tightbbox().padded(0.1)
    figure.set_layout_engine("none")
    for path in paths:
        metadata = dates.get(str(path).rpartition(".")[2])
        with atomic.atomic(path) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches=bounds, metadata=metadata)
    pyplot.close(figure)


def palette(methods):
    """{method id: (colour, marker)} of a config's methods in their order, so the same in all its figures: of ten no two have
    the same colour, of seventy no two both."""
    rivals = [name for name in dict.fromkeys(methods) if name != "full"]
    chosen = {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(rivals)}
    return {"full": (INK, "*")} | chosen


def panels(count, width, height, wide=3):
    """(figure, axes) of so many panels that share their y axis, `wide` side by side."""
    down, across = -(-count // wide), min(wide, count)
    form = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = pyplot.subplots(down, across, figsize=(1 + width * across, 0.8 + height * down), **form)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, axes.flat[:count]


def dark(colour):
    """The colour, dark enough for small text on white."""
    return tuple(0.7 * c for c in colors.to_rgb(colour))


def wrap(text, width=16):
    return "\n".join(textwrap.wrap(text, width, break_long_words=False)) or text


def empty(message):
    """A figure that only says why there is nothing to show."""
    figure, axis = pyplot.subplots(figsize=(7, 1.6))
    axis.axis("off")
    axis.set_gid(EMPTY)
    axis.text(0.5, 0.5, textwrap.fill(message, 80), ha="center", va="center", color=INK)
    return figure


def block_ticks(axis, blocks):
    """Block numbers at the middle of their two rows, at most about eight of them."""
    shown = np.arange(0, blocks, -(-blocks // 8))
    axis.set_yticks(shown * len(BRANCHES) + (len(BRANCHES) - 1) / 2, shown)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)
