"""Figures of what a run's files hold: compute masks, router scores, loss curves and sample images. No torch here."""

import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot, ticker
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from cachebench.engine.schedule import PAIRINGS, router_keys
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report.figures.style import INK, PALE, empty, palette, wrap
from cachebench.run.folder import Folder
from cachebench.run.opening import read_states
from cachebench.setup import matrix

MASK_COLOURS = ListedColormap([PALE, "#1f3b57"])
INDEX_COLUMNS = ("step", "iteration", "epoch", "evaluation", "block", "branch")  # of a fit's csv: where, not how well
IMAGES = 10  # in a row of the sample grid; with balanced labels the first ten are one of each class of ten


class Files:
    """What the pipeline wrote for one run below `folder` (results/<name>); `names`: {method id: printed name}, in order."""

    def __init__(self, cfg, run, folder, names):
        self.cfg, self.run, self.tree, self.names = cfg, run, Folder(folder), names
        self.spec = matrix.spec(cfg, run)

    @property
    def palette(self):
        """{method id: (colour, marker)}, the same for all runs of the config."""
        return palette(matrix.method_ids(self.cfg))

    def methods(self):
        return [name for name in self.names if name != "full"]

    def entries(self, name):
        return atomic.read_json(self.tree.settings(self.run, name))

    def fits(self, name, suffix="safetensors"):
        """Files of the fits that the config asks for; older ones may lie beside them. None for a plug-in that does not load."""
        try:
            cls = loader.plugin(name)
            labels = [cls.fit_label(params) for params in matrix.fits(self.cfg, cls, self.run)]
        except Exception:  # its rows say why
            return []
        return [Path(self.tree.fit(self.run, name, label, suffix)) for label in labels]

    def fitted(self, name):
        """State files of the fits that succeeded; that of a failed one holds nothing."""
        return [path for path in self.fits(name) if not atomic.read_json(path.with_suffix(".json")).get("reason")]

    def mask(self, name, entry):
        """Compute mask bool [evaluations, blocks, branches] of a setting, or a few words why there is none."""
        if entry.get("status"):
            return entry["status"]
        cls = loader.plugin(name)
        chosen, state = cls(**entry["params"]), None
        if cls.has_fit():
            state = read_states(self.fits(name)).get(cls.fit_label(entry["params"]))
        spec = chosen.sampler(self.spec)
        if chosen.rows(spec, state) is None:
            return "decided\nwhile running"
        return chosen.schedule(spec, state).compute


def schedules(files):
    """Compute masks, one row per method and one column per budget: evaluation x (block, branch), computed = dark."""
    rows, budgets = files.methods(), matrix.budgets(files.cfg, files.run)
    if not rows:
        return empty("The results hold no method besides the full run.")
    entries = [{entry["budget"]: entry for entry in files.entries(name)} for name in rows]
    none = {"status": "no row"}  # of a method whose settings are fixed, at another's budget
    masks = [[files.mask(name, of.get(b, none)) for b in budgets] for name, of in zip(rows, entries, strict=True)]
    _, blocks, branches = files.spec.mask_shape
    tall = min(2.2, max(1.2, 0.05 * blocks * branches + 0.6))
    heights = [0.45 if all(isinstance(m, str) for m in of_method) else tall for of_method in masks]
    size, form = (1.6 + 3.2 * len(budgets), sum(heights) + 1.2), {"squeeze": False, "sharex": True, "height_ratios": heights}
    figure, axes = pyplot.subplots(len(rows), len(budgets), figsize=size, layout="constrained", **form)
    for axis_row, name, of_method, found in zip(axes, rows, entries, masks, strict=True):
        for axis, budget, mask in zip(axis_row, budgets, found, strict=True):
            draw_mask(axis, mask, of_method.get(budget), files.spec)
        axis_row[0].set_ylabel(wrap(files.names[name], 13), rotation=0, ha="right", va="center", labelpad=8)
    for axis, budget in zip(axes[0], budgets, strict=True):
        axis.annotate(f"budget {budget:g}", (0.5, 1), (0, 20), "axes fraction", "offset points", ha="center", weight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("evaluation (0 = noisiest)")
    handles = [Patch(color=MASK_COLOURS(1), label="computed"), Patch(color=MASK_COLOURS(0), label="skipped")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{files.run}: attention (upper) and MLP (lower) of every block", fontsize=11)
    return figure


def draw_mask(axis, mask, entry, spec):
    """One panel; a method with fewer evaluations fills less of the common axis. `mask` may be words instead."""
    evaluations, blocks, branches = spec.mask_shape
    axis.set(xlim=(-0.5, evaluations - 0.5), ylim=(blocks * branches - 0.5, -0.5))
    axis.tick_params(length=0, labelsize=8)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    block_ticks(axis, blocks)
    if isinstance(mask, str):
        axis.set_yticks([])
        axis.text(0.5, 0.5, mask, transform=axis.transAxes, ha="center", va="center", color="#777777", style="italic")
        return
    sites = mask.reshape(len(mask), -1).T
    thin = 0.5 if max(evaluations, blocks) <= 24 else 0
    axis.imshow(sites, cmap=MASK_COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="none")
    axis.set(xlim=(-0.5, evaluations - 0.5))
    axis.hlines(np.arange(1, len(sites) // branches) * branches - 0.5, -0.5, len(mask) - 0.5, color="white", lw=thin)
    axis.vlines(np.arange(1, len(mask)) - 0.5, -0.5, len(sites) - 0.5, color="white", lw=thin)
    axis.set_title(f"{100 * mask.mean():.0f} % of {mask.size} cells, {100 * entry['achieved']:.1f} % of MACs", fontsize=9)


def block_ticks(axis, blocks):
    """Block numbers at the middle of their two rows, at most about eight of them."""
    shown = np.arange(0, blocks, -(-blocks // 8))
    axis.set_yticks(shown * len(BRANCHES) + (len(BRANCHES) - 1) / 2, shown)
    for side in ("top", "right", "left", "bottom"):
        axis.spines[side].set_visible(False)


def routers(files):
    """Scores (sigmoid of the logits) of every fit that holds a 2-D tensor `routers`: cached evaluation x (block, branch)."""
    found = [(name, path, atomic.read_tensors(path, "np")[0]) for name in files.methods() for path in files.fitted(name)]
    found = [(n, path, state["routers"]) for n, path, state in found if "routers" in state and state["routers"].ndim == 2]
    if not found:
        return empty(f"No method of {files.run} has trained routers.")
    sites = max(logits.shape[1] for _, _, logits in found)
    size = (8, len(found) * min(5, 0.13 * sites + 1.3) + 0.4)
    figure, axes = pyplot.subplots(len(found), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, (name, path, logits) in zip(axes[:, 0], found, strict=True):
        keys = cached_evaluations(files.spec, logits, path.stem)
        scores = 1 / (1 + np.exp(-logits[list(keys.values())].astype(np.float64)))
        image = axis.imshow(scores.T, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="none")
        every = -(-len(keys) // 25)
        axis.set_xticks(range(0, len(keys), every), list(keys)[::every])
        axis.hlines(np.arange(2, scores.shape[1], 2) - 0.5, -0.5, len(keys) - 0.5, color="white", lw=0.8)
        axis.tick_params(length=0, labelsize=8)
        block_ticks(axis, scores.shape[1] // len(BRANCHES))
        axis.set(xlabel="cached evaluation (0 = noisiest)", ylabel="block (attn, mlp)")
        axis.set_title(textwrap.fill(f"{files.names[name]}: {path.stem.replace('+', ', ')}", 80), fontsize=10)
        figure.colorbar(image, ax=axis, label="score", pad=0.01)
    figure.suptitle(f"{files.run}: router scores", fontsize=11)
    return figure


def cached_evaluations(spec, logits, fit):
    """{evaluation: row of `logits`} for the trained rows; by row number where the rows are not those of L2C.

    The label of the fit says how the evaluations were paired."""
    pairing = next((p for p in PAIRINGS if f"pairing={p}" in fit), PAIRINGS[0])
    try:
        keys = router_keys(spec.plan.roles, pairing)
    except ValueError:
        keys = {}
    return keys if keys and max(keys.values()) < len(logits) else {i: i for i in range(len(logits))}


def fits(files):
    """Loss curves: for every fit a row, for every numeric column of its csv a panel; raw faint, running median strong."""
    found = [(name, path, curve(path)) for name in files.methods() for path in files.fits(name, "csv")]
    found = [(name, path, frame) for name, path, frame in found if len(frame.columns) > 1]
    if not found:
        return empty(f"No method of {files.run} wrote a loss curve.")
    width = max(len(values(frame)) for _, _, frame in found)
    figure, axes = pyplot.subplots(
        len(found), width, figsize=(max(5, 4.6 * width), 3.1 * len(found)), squeeze=False, layout="constrained"
    )
    for axis_row, (name, path, frame) in zip(axes, found, strict=True):
        for axis in axis_row[len(values(frame)) :]:
            axis.axis("off")
        for axis, column in zip(axis_row, values(frame), strict=False):
            draw_curve(axis, frame, column, files.palette[name][0])
        label = textwrap.fill(f"{files.names[name]}: {path.stem.replace('+', ', ')}", 50 * width)
        axis_row[0].set_title(label, loc="left", fontsize=9)
    figure.suptitle(f"{files.run}: fits", fontsize=11)
    return figure


def curve(path):
    """A fit's csv as a frame; empty for a fit that failed or has no curve."""
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def values(frame):
    """The numeric columns that say how the fit went."""
    return [c for c in frame.select_dtypes("number").columns[1:] if c not in INDEX_COLUMNS]


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


def samples(files):
    """The first images of every setting, the same seeds in each column, the full run on top."""
    grid = [("Full run", images(files, "full", 1.0))]
    for name in files.methods():
        for entry in files.entries(name):
            if not entry.get("status"):
                label = f"{files.names[name]}\nbudget {entry['budget']:g} ({100 * entry['achieved']:.1f} %)"
                grid.append((label, images(files, name, entry["budget"])))
    grid = [(label, found) for label, found in grid if len(found)]
    if not grid:
        return empty(f"No images of {files.run} are kept.")
    side = grid[0][1].shape[1]
    size = (2.3 + 0.62 * IMAGES, 0.62 * len(grid) + 0.8)
    figure, axis = pyplot.subplots(figsize=size)
    smooth = "nearest" if side <= 64 else "antialiased"
    axis.imshow(mosaic([found for _, found in grid]), cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    cell = side + max(1, side // 14)
    axis.set_yticks(np.arange(len(grid)) * cell + side / 2, [label for label, _ in grid], fontsize=8.5)
    axis.set_xticks(np.arange(IMAGES) * cell + side / 2, files.cfg["samples"]["first_seed"] + np.arange(IMAGES))
    axis.set_xlabel("seed", color=INK)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{files.run}: the same seeds in every row", fontsize=11)
    return figure


def images(files, name, budget):
    """uint8 [n, H, W, C], n <= IMAGES, from the first shards of a setting; n = 0 if it has none."""
    parts, index = [], 0
    while sum(map(len, parts)) < IMAGES:
        path = Path(files.tree.shard(files.run, name, budget, index))
        tensors = atomic.read_tensors(path, "np")[0] if path.exists() else {}
        if not len(tensors.get("images", [])):
            break
        parts, index = [*parts, tensors["images"].transpose(0, 2, 3, 1)], index + 1
    return np.concatenate(parts)[:IMAGES] if parts else np.empty((0, 1, 1, 1), np.uint8)


def mosaic(rows):
    """One image [H, W] or [H, W, 3] of rows of uint8 images [n, h, w, c], white between them."""
    _, h, w, c = rows[0].shape
    gap = max(1, h // 14)
    canvas = np.full((len(rows) * (h + gap) - gap, IMAGES * (w + gap) - gap, c), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            canvas[i * (h + gap) :, j * (w + gap) :][:h, :w] = image
    return canvas[..., 0] if c == 1 else canvas[..., :3]
