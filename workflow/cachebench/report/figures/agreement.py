"""What the order of methods on one setting tells of another, over all runs."""

import numpy as np
from matplotlib import pyplot

from cachebench.judge.agreement import agreement
from cachebench.report.agreement import named, value
from cachebench.report.style import COLOURS, INK, empty

TITLE = "What one setting tells of another"
CAPTION = (
    "Kendall's tau between the orders of the caching methods on two settings that differ in one thing: 1 is the same order, 0 "
    "tells nothing, −1 is the reverse. A dot is a pair of settings with four methods or more in common, and the bar is their "
    "mean with its 95 % interval, for which the methods are drawn anew."
)
PER = "all"
PLACE = 20


def wanted(cfg):
    """Where there are two runs, or two extractors."""
    return len(cfg["runs"]) > 1 or "extractors" in cfg


def table(files):
    """(titles, rows of texts) of what is drawn."""
    agreements, rows = agreement(files.frame), []
    for key, of in agreements.items():
        rows.append((named(key), str(of["pairs"]), value(of)))
    return ("On", "Pairs", "Kendall's tau, mean"), rows


def draw(files):
    """A line for each kind of pair: its taus, and their mean with its interval."""
    agreements = agreement(files.frame)
    if not agreements:
        return empty("No two settings have four methods in common.")
    figure, axis = pyplot.subplots(figsize=(7.5, 1.2 + 0.6 * len(agreements)), layout="constrained")
    for place, of in enumerate(agreements.values()):
        taus = [line[3] for line in of["all"]]
        axis.scatter(taus, place + np.linspace(-0.18, 0.18, len(taus)), s=14, color=COLOURS[0], alpha=0.5, lw=0)
        spread = np.clip([[of["tau"] - of["low"]], [of["high"] - of["tau"]]], 0, None)
        axis.errorbar(of["tau"], place, xerr=spread, fmt="|", color=INK, capsize=3, ms=14)
    axis.axvline(0, color=INK, lw=0.9, ls="--", zorder=0)
    axis.set_yticks(range(len(agreements)), [named(key) for key in agreements])
    axis.set_ylim(len(agreements) - 0.5, -0.5)
    axis.set_xlim(-1.05, 1.05)
    axis.set_xlabel("Kendall's tau of the orders of methods")
    return figure
