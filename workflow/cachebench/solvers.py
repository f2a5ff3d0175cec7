"""Which half of a solver's evaluations can be reused at all: `alternate` beside L2C and fewer steps, over a config's runs."""

from cachebench import tables

PROBES = ("alternate.outer", "alternate.mid", "l2c", "dpm_solver", "ddim")  # in this order


def rows(frame):
    """The rows of every run that has a reusable-half probe, cheapest budget only: [{column: text}]."""
    out = []
    for _, of_run in chosen(frame).groupby("run", sort=False):
        for _, row in of_run.iterrows():
            texts = {key: tables.phrase(row, tables.column(key)) for key in ("latent_mse", "fd_minus_full")}
            cost = {"nfe": f"{row.nfe:.0f}", "macs": f"{100 * row.achieved:.1f}"}
            out.append({"sampler": row.sampler, "what": f"{row['name']} ({row.setting})"} | cost | texts)
    return out


def chosen(frame):
    """The measured rows of the probes at the lowest budget, of every run where both halves were probed."""
    good = frame[(frame.status == "ok") & frame.method.isin(PROBES)]
    probed = good[good.method.str.startswith("alternate.")].groupby("run").method.nunique()
    good = good[good.run.isin(probed.index[probed == 2])]
    lowest = good[good.budget == good.groupby("run").budget.transform("min")]
    order = lowest.method.map({name: i for i, name in enumerate(PROBES)})
    return lowest.assign(order=order).sort_values("order", kind="stable").sort_values("run", kind="stable")


def draw(frame):
    """Latent MSE to the full run of each probe, one panel per run; at (nearly) the same cost."""
    from matplotlib import pyplot

    from cachebench.plots import empty, palette, wrap

    found = chosen(frame)
    if found.empty:
        return empty("No run of this configuration reuses one half of the evaluations (method `alternate`).")
    runs, styles = list(found.groupby("run", sort=False)), palette(frame.method)
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
