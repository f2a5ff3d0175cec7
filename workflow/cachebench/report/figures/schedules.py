"""What every method computes at every budget of a run."""

import numpy as np
from matplotlib import pyplot, ticker
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Patch

from cachebench.report.style import PALE, block_ticks, empty, wrap
from cachebench.setup import matrix

TITLE = "What is computed"
CAPTION = (
    "What every method computes at every budget: evaluations from left (0 = noisiest) to right, blocks from top to bottom, "
    "in each block attention above MLP; dark is computed, light is skipped: reused, or in the two drop ablations left out; on "
    "another time grid evaluations stand at their time. "
    "Where each image decides for itself, the shade is the share of them that computed, as it was counted while they were "
    "sampled. A sampler with fewer steps computes everything, fewer times, and so does the full run, which is not shown."
)
PER = "run"
PLACE = 7
EMBED = "png"

FINE = 12  # columns of pixels for an evaluation
COLOURS = LinearSegmentedColormap.from_list("computed", [PALE, "#1f3b57"])


def draw(files):
    """What was computed, one row per method and one column per budget: evaluation x (block, branch), computed = dark."""
    rows, budgets = files.methods(), matrix.budgets(files.cfg, files.run)
    if not rows:
        return empty("The results hold no method besides the full run.")
    entries = [{entry["budget"]: entry for entry in files.entries(name)} for name in rows]
    none = {"status": "no row"}  # of a method whose settings are fixed, at another's budget
    achieved = {(name, b): entry.get("achieved") for name, of in zip(rows, entries, strict=True) for b, entry in of.items()}
    achieved |= files.frame[files.frame.run == files.run].set_index(["method", "budget"]).achieved.to_dict()  # as counted
    shares = [[files.computed(name, of.get(b, none)) for b in budgets] for name, of in zip(rows, entries, strict=True)]
    if all(isinstance(of_budget, str) for of_method in shares for of_budget in of_method):
        return empty(f"What the methods of {files.run} compute is not known: no samples are there.")
    _, blocks, branches = files.spec.mask_shape
    places = [[place(files, name, of.get(b, none)) for b in budgets] for name, of in zip(rows, entries, strict=True)]
    tall = min(2.2, max(1.2, 0.05 * blocks * branches + 0.6))
    heights = [0.45 if all(isinstance(m, str) for m in of_method) else tall for of_method in shares]
    size, form = (1.6 + 3.2 * len(budgets), sum(heights) + 1.2), {"squeeze": False, "sharex": True, "height_ratios": heights}
    figure, axes = pyplot.subplots(len(rows), len(budgets), figsize=size, layout="constrained", **form)
    for axis_row, name, method_shares, edges in zip(axes, rows, shares, places, strict=True):
        for axis, budget, of_budget, at in zip(axis_row, budgets, method_shares, edges, strict=True):
            draw_shares(axis, of_budget, achieved.get((name, budget)), files.spec, at)
        axis_row[0].set_ylabel(wrap(files.names[name], 13), rotation=0, ha="right", va="center", labelpad=8)
    for axis, budget in zip(axes[0], budgets, strict=True):
        axis.annotate(f"budget {budget:g}", (0.5, 1), (0, 20), "axes fraction", "offset points", ha="center", weight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("evaluation (0 = noisiest)")
    handles = [Patch(color=COLOURS(1.0), label="computed"), Patch(color=COLOURS(0.0), label="skipped")]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{files.run}: attention (upper) and MLP (lower) of every block", fontsize=11)
    return figure


def place(files, name, entry):
    """Where a setting's evaluations begin and end on the axis of the full run's, by the network's time; None where they are
    the full run's, or have no times of their own."""
    times = None if "params" not in entry else files.times(name, entry)
    full = files.times("full", {"params": {}})
    if not times or not full or times == full:
        return None
    middles = np.interp(np.negative(times), np.negative(full), range(len(full)))
    return np.concatenate([[-0.5], (middles[1:] + middles[:-1]) / 2, [len(full) - 0.5]])


def draw_shares(axis, computed, achieved, spec, edges=None):
    """One panel. `computed` may be words instead; `edges` is what `place` says."""
    evaluations, blocks, branches = spec.mask_shape
    axis.set(xlim=(-0.5, evaluations - 0.5), ylim=(blocks * branches - 0.5, -0.5))
    axis.tick_params(length=0, labelsize=8)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    block_ticks(axis, blocks)
    if isinstance(computed, str):
        axis.set_yticks([])
        axis.text(0.5, 0.5, computed, transform=axis.transAxes, ha="center", va="center", color="#777777", style="italic")
        return
    sites = computed.reshape(len(computed), -1).T
    thin = 0.5 if max(evaluations, blocks) <= 24 else 0
    edges = np.arange(len(computed) + 1) - 0.5 if edges is None or len(edges) != len(computed) + 1 else edges
    fine = np.linspace(*edges[[0, -1]], 1 + FINE * evaluations)  # an evaluation is as wide as it stands for
    columns = np.searchsorted(edges[1:-1], (fine[1:] + fine[:-1]) / 2)
    around = (edges[0], edges[-1], len(sites) - 0.5, -0.5)
    form = {"extent": around, "vmin": 0, "vmax": 1, "aspect": "auto", "interpolation": "none"}
    axis.imshow(sites[:, columns], cmap=COLOURS, **form)
    axis.set(xlim=(-0.5, evaluations - 0.5))
    axis.hlines(np.arange(1, len(sites) // branches) * branches - 0.5, edges[0], edges[-1], color="white", lw=thin)
    axis.vlines(edges[1:-1], -0.5, len(sites) - 0.5, color="white", lw=thin)
    share = f"{100 * computed.mean():.0f} % of {computed.size} cells"
    axis.set_title(f"{share}, {100 * achieved:.1f} % of MACs", fontsize=9)
