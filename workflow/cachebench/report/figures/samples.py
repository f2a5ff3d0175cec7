"""The first images of every setting of a run."""

import numpy as np
from matplotlib import pyplot

from cachebench.report.files_of_run import IMAGES, mosaic
from cachebench.report.style import INK, empty

TITLE = "Samples"
CAPTION = (
    "The first ten samples of every setting, not chosen. A column shares its seed and label, the full run is on top, and "
    "the share of its MACs that a setting reached stands in brackets."
)
PER = "run"
PLACE = 6
EMBED = "png"


def draw(files):
    """The first images of every setting, the same seeds in each column, the full run on top."""
    grid = [("Full run", files.images("full", 1.0))]
    for name in files.methods():
        for entry in files.entries(name):
            if not entry.get("status"):
                label = f"{files.names[name]}\nbudget {entry['budget']:g} ({100 * entry['achieved']:.1f} %)"
                grid.append((label, files.images(name, entry["budget"])))
    grid = [(label, images) for label, images in grid if len(images)]
    if not grid:
        return empty(f"No images of {files.run} are kept.")
    side = grid[0][1].shape[1]
    size = (2.3 + 0.62 * IMAGES, 0.62 * len(grid) + 0.8)
    figure, axis = pyplot.subplots(figsize=size)
    smooth = "nearest" if side <= 64 else "antialiased"
    axis.imshow(mosaic([images for _, images in grid]), cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    cell = side + max(1, side // 14)
    axis.set_yticks(np.arange(len(grid)) * cell + side / 2, [label for label, _ in grid], fontsize=8.5)
    axis.set_xticks(np.arange(IMAGES) * cell + side / 2, files.cfg["samples"]["first_seed"] + np.arange(IMAGES))
    axis.set_xlabel("seed", color=INK)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{files.run}: the same seeds in every row", fontsize=11)
    return figure
