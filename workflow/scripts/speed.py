"""Measures on this device the speed of the settings in a folder: a run's results/<name>, or without one the committed folder
resources/settings/<name> (csv). Needs no Snakemake."""

import itertools

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.setup import check, config
from cachebench.speed import clock

options = ("folder?", "out?", "runs*", "methods*", "batch-sizes*", "precisions*", "modes*", "repeats?")
args = arguments(__doc__, "config?", *options)

cfg = config.load(args.config)
cfg = check.check(clock.only(cfg, args.methods) if args.methods else cfg, args.config or "config")
folder = clock.folder_of(cfg, args.folder)
where, wanted, rows = device.pick(exclusive=True), cfg["speed"], []
out = args.out or clock.unused(where)
grid = itertools.product(
    args.runs or cfg["runs"],
    args.precisions or wanted["precisions"],
    map(int, args.batch_sizes or wanted["batch_sizes"]),
    args.modes or wanted["modes"],
)
for run, precision, batch, mode in grid:
    for row in clock.rows(cfg, folder, run, where, precision, batch, mode, int(args.repeats or wanted["repeats"])):
        rows.append(row)
        shown = clock.PRINTED if row["status"] == "ok" else (*clock.GROUP, "reason")
        print(*(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in shown), flush=True)
    atomic.write_csv(out, rows, clock.COLUMNS)
print(out)
