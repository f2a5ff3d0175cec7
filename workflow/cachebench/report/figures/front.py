"""What README shows: the gap to the full run against cost, and the images of three of its rows."""

import numpy as np
from matplotlib import pyplot

from cachebench.judge import answers
from cachebench.judge.equivalents import step_reduction
from cachebench.report import against_cost, marks, style, symmetric, tables
from cachebench.report.files_of_run import IMAGES, mosaic
from cachebench.report.style import INK, PALE, empty

TITLE = "At a glance"
CAPTION = (
    "Left: how far the Fréchet distance stands above the full run's, against cost, with 95 % intervals; fewer steps dashed, "
    "and of the others the best of each family is in colour, and caches on fewer steps. Right: the same seeds in the full run, "
    "with fewer steps, and with the method that is closest to the full run, at the least budget."
)
PER = "run"
PLACE = 0
KEY = "fd_minus_full"


def draw(files):
    """Lines of FD - full on the left, three rows of images on the right."""
    rows = files.frame[(files.frame.run == files.run) & (files.frame.status == "ok")]
    known, steps = rows[rows[KEY].notna() & (rows.method != "full")], step_reduction(rows)
    if known.empty or not steps:
        return empty(f"Nothing of {files.run} could be compared with the full run.")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 3.6), width_ratios=(1.15, 1), layout="constrained")
    lines(left, known, steps)
    strips = shown(files, rows, steps)
    right.imshow(mosaic([images for _, images in strips]), cmap="gray", vmin=0, vmax=255)
    side = strips[0][1].shape[1]
    right.set_yticks(
        [i * (side + max(1, side // 14)) + side / 2 for i in range(len(strips))], [name for name, _ in strips], fontsize=9
    )
    right.set_xticks([])
    right.tick_params(length=0)
    right.spines[:].set_visible(False)
    return figure


def lines(axis, rows, steps):
    named = against_cost.leading(rows[rows.kind == "cache"], KEY, few=0)
    axis.axhline(0, color=INK, lw=0.8)
    for method, of in rows.sort_values("achieved").groupby("method", sort=False):
        first = of.iloc[0]
        is_steps, bright = method == steps, method in named and first.kind == "cache"
        colour = INK if is_steps else style.FAMILIES.get(first.family, INK) if bright else PALE
        label = "fewer steps" if is_steps else marks.named(first) if bright else None
        form = {
            "ls": "--" if is_steps else "-",
            "lw": 1.8 if is_steps or bright else 0.8,
            "marker": style.MARKS.get(first.family, ".") if bright else ".",
            "ms": 4 if bright else 3,
            "mfc": "white" if "@" in method else colour,
        }
        if bright or is_steps:
            ends = [of[KEY] - of[f"{KEY}_low"], of[f"{KEY}_high"] - of[KEY]]
            axis.errorbar(100 * of.achieved, of[KEY], ends, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
        axis.plot(100 * of.achieved, of[KEY], color=colour, label=label, zorder=3 if is_steps or bright else 1, **form)
    symmetric.bend(axis, rows, KEY)
    axis.set_xlabel("MACs per image, % of the full run")
    axis.set_ylabel(f"{tables.short(tables.called(rows))} − full run (lower is better)")
    axis.legend(fontsize=8, frameon=False)


def shown(files, rows, steps):
    """[(name, images)] of the full run, of fewer steps and of the closest method, at the least budget with both."""
    least = min(answers.budgets(rows))
    answer = answers.answer(rows[rows.budget == least], "closeness")
    chosen = [("Full run", "full", 1.0), (f"Fewer steps, {100 * least:g} %", steps, least)]
    if answer.row is not None:
        chosen.append((f"{answer.row['name']}, {100 * least:g} %", answer.row.method, least))
    strips = [(style.wrap(name, 18), files.images(method, budget)) for name, method, budget in chosen]
    return [(name, images) for name, images in strips if len(images)] or [
        ("No images are kept", np.full((IMAGES, 1, 1, 1), 255, np.uint8))
    ]
