"""Measures the speed of every method on this device, on random weights (csv); needs no files and no Snakemake."""

import itertools

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.setup import check, config
from cachebench.speed import clock

options = ("out?", "runs*", "methods*", "batch-sizes*", "precisions*", "modes*", "repeats?")
args = arguments(__doc__, "config", *options)

cfg = config.read(args.config)
cfg["methods"] = args.methods or cfg["methods"]
cfg = check.check(cfg, args.config)
where, wanted, found = device.pick(exclusive=True), cfg["speed"], []
out = args.out or clock.unused(where)
grid = itertools.product(
    args.runs or cfg["runs"],
    args.precisions or wanted["precisions"],
    map(int, args.batch_sizes or wanted["batch_sizes"]),
    args.modes or wanted["modes"],
)
for run, precision, batch, mode in grid:
    for row in clock.rows(cfg, run, where, precision, batch, mode, int(args.repeats or wanted["repeats"])):
        found.append(row)
        shown = clock.PRINTED if row["status"] == "ok" else (*clock.GROUP, "reason")
        print(*(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in shown), flush=True)
    atomic.write_csv(out, found, clock.COLUMNS)
print(out)
