"""Draws a model card's figure: the training loss; with `--results` FD against steps and its interval; with a `--shard` of the
full run two samples of each class."""

import numpy as np
import pandas as pd
from matplotlib import pyplot

from _cli import arguments
from cachebench.files import atomic
from cachebench.report import style
from cachebench.report.files_of_run import mosaic


def draw_loss(axis, path):
    loss = pd.read_csv(path)
    axis.plot(loss.step, loss.loss, color="0.8", lw=1)
    axis.plot(loss.step, loss.loss.rolling(10, center=True).median(), color=style.INK)
    shown = loss.loss.min() * 0.95, loss.loss.quantile(0.97)
    axis.set(xlabel="training step", ylabel="loss (MSE of what is predicted)", title="Training loss", ylim=shown)


def draw_steps(axis, path, backbone):
    table = pd.read_csv(path)
    rows = table[(table.backbone == backbone) & (table.kind == "control") & (table.status == "ok")]
    fewer = rows.nfe < rows.nfe[rows.method == "full"].iloc[0]  # the step-reduction control's rows
    rows = rows[fewer | (rows.method == "full")].sort_values("nfe")
    error = [rows.fd - rows.fd_low, rows.fd_high - rows.fd]
    axis.errorbar(rows.nfe, rows.fd, yerr=error, marker="o", color=style.INK, capsize=3)
    first = rows.iloc[0]
    axis.set(xlabel=f"NFE ({first.sampler}, cfg_scale {first.cfg_scale:g})", title="Quality against steps")
    axis.set(ylabel=f"FD ({first.extractor}, n = {first['count']:.0f})", xticks=rows.nfe)


def draw_samples(axis, path):
    images = atomic.read_tensors(path, "np")[0]["images"][:20].transpose(0, 2, 3, 1)  # their labels take turns
    axis.imshow(mosaic(np.split(images, 2)), cmap="gray", vmin=0, vmax=255)
    axis.set_title("Samples of the full run, two of each class")
    axis.axis("off")


args = arguments(__doc__, "curve", "results?", "backbone?", "shard?", "out")
plan = [["loss", "steps"] if args.results else ["loss"]]
plan += [["samples"] * len(plan[0])] if args.shard else []
heights = (3.2, 2.2)[: len(plan)]
size = (4.5 * len(plan[0]), sum(heights))
figure, axes = pyplot.subplot_mosaic(plan, figsize=size, height_ratios=heights, layout="constrained")
draw_loss(axes["loss"], args.curve)
if args.results:
    draw_steps(axes["steps"], args.results, args.backbone)
if args.shard:
    draw_samples(axes["samples"], args.shard)
style.save(figure, [args.out])
