"""Draws a model card's figure: the training loss, and FD against steps with its interval, from a results.csv."""

import pandas as pd
from matplotlib import pyplot

from _cli import arguments
from cachebench.report import style

args = arguments(__doc__, "curve", "results", "run", "out")

loss, table = pd.read_csv(args.curve), pd.read_csv(args.results)
rows = table[(table.run == args.run) & (table.kind == "control") & (table.status == "ok")]
fewer = rows.nfe < rows.nfe[rows.method == "full"].iloc[0]  # the step-reduction control's rows
rows = rows[fewer | (rows.method == "full")].sort_values("nfe")
figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
left.plot(loss.step, loss.loss, color="0.8", lw=1)
left.plot(loss.step, loss.loss.rolling(10, center=True).median(), color=style.INK)
left.set(
    xlabel="training step",
    ylabel="loss (MSE of what is predicted)",
    title="Training loss",
    ylim=(loss.loss.min() * 0.95, loss.loss.quantile(0.97)),
)
error = [rows.fd - rows.fd_low, rows.fd_high - rows.fd]
right.errorbar(rows.nfe, rows.fd, yerr=error, marker="o", color=style.INK, capsize=3)
right.set(
    xlabel=f"NFE ({rows.sampler.iloc[0]}, cfg_scale {rows.cfg_scale.iloc[0]:g})",
    ylabel=f"FD ({rows.extractor.iloc[0]}, n = {rows['count'].iloc[0]:.0f})",
    title="Quality against steps",
)
right.set_xticks(rows.nfe)
figure.tight_layout()
style.save(figure, [args.out])
