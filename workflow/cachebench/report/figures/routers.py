"""The router scores of a run's fits."""

import textwrap

import numpy as np
from matplotlib import pyplot

from cachebench.engine.schedule import PAIRINGS, router_keys
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.report.style import block_ticks, empty

TITLE = "Router scores"
CAPTION = (
    "Trained router scores (the sigmoid of the logits) at the evaluations that may reuse a branch. A branch is computed "
    "where its score exceeds the threshold of the setting."
)
PER = "run"
PLACE = 8


def draw(files):
    """Scores (sigmoid of the logits) of every fit that holds a 2-D tensor `routers`: cached evaluation x (block, branch)."""
    fits = [(name, path, atomic.read_tensors(path, "np")[0]) for name in files.methods() for path in files.fitted(name)]
    fits = [(n, path, state["routers"]) for n, path, state in fits if "routers" in state and state["routers"].ndim == 2]
    if not fits:
        return empty(f"No method of {files.run} has trained routers.")
    sites = max(logits.shape[1] for _, _, logits in fits)
    size = (8, len(fits) * min(5, 0.13 * sites + 1.3) + 0.4)
    figure, axes = pyplot.subplots(len(fits), 1, figsize=size, squeeze=False, layout="constrained")
    for axis, (name, path, logits) in zip(axes[:, 0], fits, strict=True):
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
