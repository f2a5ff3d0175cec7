"""Measures the speed of every method on this device, on random weights (csv); needs no files and no Snakemake."""

import itertools

from _cli import arguments

options = ("out?", "runs*", "methods*", "batch-sizes*", "precisions*", "modes*", "repeats?", "threads?")
args = arguments(__doc__, "config", *options)

import torch  # noqa: E402

from cachebench import config, device, speed, store  # noqa: E402

cfg = config.read(args.config)
cfg["methods"] = args.methods or cfg["methods"]
cfg = config.check(cfg, args.config)
where, wanted, found = device.pick(exclusive=True), cfg["speed"], []
torch.set_num_threads(int(args.threads or torch.get_num_threads()))
out = args.out or speed.unused(where)
grid = itertools.product(
    args.runs or cfg["runs"],
    args.precisions or wanted["precisions"],
    map(int, args.batch_sizes or wanted["batch_sizes"]),
    args.modes or wanted["modes"],
)
for run, precision, batch, mode in grid:
    for row in speed.rows(cfg, run, where, precision, batch, mode, int(args.repeats or wanted["repeats"])):
        found.append(row)
        shown = speed.PRINTED if row["status"] == "ok" else (*speed.GROUP, "reason")
        print(*(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in shown), flush=True)
    store.write_csv(out, found, speed.COLUMNS)
print(out)
