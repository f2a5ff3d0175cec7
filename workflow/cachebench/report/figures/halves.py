"""Which half of a solver's evaluations can be reused at all: `alternate` beside L2C and fewer steps, over all runs."""

import pandas as pd
from matplotlib import pyplot

from cachebench.report import tables
from cachebench.report.style import empty, palette, wrap

TITLE = "Which half of a solver's evaluations can be reused"
CAPTION = (
    "Every second evaluation, but at most one, reused completely, on each solver, beside L2C and fewer steps at nearly the "
    "same cost: mean squared error of the latents to the full run of the same solver, with its 95 % interval. On "
    "DPM-Solver-2 the outer prediction cancels out of the second-order update, so reusing the outer evaluations costs "
    "little there; that is a property of the solver and not of the network. On Heun's method neither half cancels, but an "
    "outer evaluation stands at the time of the mid one before it, and close to it, so that reusing it keeps the order."
)
PER = "all"
PLACE = 10

HALVES = ("alternate.outer", "alternate.mid")
PROBES = (*HALVES, "l2c", "fewer_steps")  # in this order


def wanted(cfg):
    """Where a run probes both."""
    from cachebench.setup import matrix

    return any(set(HALVES) <= set(matrix.method_ids(cfg, run)) for run in cfg["runs"])


def table(files):
    """(titles, rows of texts) of what is drawn."""
    titles, rows = ("Sampler", "What is reused", "NFE", "MACs (% of full)", "Latent MSE to full ↓", "FD − full ↓"), []
    for _, of_run in chosen(files.frame).groupby("run", sort=False):
        for _, row in of_run.iterrows():
            values = (tables.phrase(row, tables.column(key)) for key in ("latent_mse", "fd_minus_full"))
            rows.append((row.sampler, f"{row['name']} ({row.setting})", f"{row.nfe:.0f}", f"{100 * row.achieved:.1f}", *values))
    return titles, rows


def chosen(frame):
    """The measured rows of the probes, at about one cost, of every run that probes both halves: these at the lowest budget at
    which both stand, and of each other probe the row that costs nearest to them."""
    good, of_runs = frame[(frame.status == "ok") & frame.method.isin(PROBES)], []
    for _, of_run in good.groupby("run", sort=False):
        halves = of_run[of_run.method.isin(HALVES)]
        both = halves.groupby("budget").filter(lambda rows: set(rows.method) == set(HALVES))
        if both.empty:
            continue
        pair = both[both.budget == both.budget.min()]
        others = of_run.drop(halves.index)
        nearest = (others.achieved - pair.achieved.mean()).abs().sort_values(kind="stable").index
        of_runs.append(pd.concat([pair, others.loc[nearest].drop_duplicates("method")]))
    if not of_runs:
        return good.iloc[:0]
    return pd.concat([rows.sort_values("method", key=lambda names: names.map(PROBES.index)) for rows in of_runs])


def draw(files):
    """Latent MSE to the full run of each probe, one panel per run; at (nearly) the same cost."""
    rows = chosen(files.frame)
    if rows.empty:
        return empty("No run of this configuration reuses one half of the evaluations (method `alternate`).")
    runs, styles = list(rows.groupby("run", sort=False)), palette(files.frame.method)
    form = {"sharey": True, "squeeze": False, "layout": "constrained"}
    figure, (axes,) = pyplot.subplots(1, len(runs), figsize=(1.5 + 3.6 * len(runs), 3.8), **form)
    for axis, (run, of_run) in zip(axes, runs, strict=True):
        for place, (_, row) in enumerate(of_run.iterrows()):
            spread = [[row.latent_mse - row.latent_mse_low], [row.latent_mse_high - row.latent_mse]]
            colour, marker = styles[row.method]
            axis.errorbar(place, row.latent_mse, spread, fmt=marker, color=colour, capsize=3, ms=7)
        labels = [f"{wrap(row['name'], 12)}\n{100 * row.achieved:.0f} %" for _, row in of_run.iterrows()]
        axis.set_xticks(range(len(of_run)), labels, fontsize=8)
        axis.set(xlim=(-0.5, len(of_run) - 0.5), yscale="log", title=f"{run}: {of_run.sampler.iloc[0]}")
    axes[0].set_ylabel("latent MSE to full, lower is closer")
    figure.suptitle("Reusing one half of the evaluations completely (share of the full run's MACs below)", fontsize=11)
    return figure
