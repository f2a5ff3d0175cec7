"""Measures the speed of every static method on this device (csv); needs no weights and no Snakemake."""

import itertools
from datetime import date

from _cli import arguments

args = arguments(__doc__, "config", "out?", "runs*", "methods*", "batch-sizes*", "repeats?", "threads?")

import torch  # noqa: E402

from cachebench import config, device, speed, store  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
torch.set_float32_matmul_precision("high")  # TF32 where there is a GPU
cfg = config.read(args.config)
cfg["methods"] = args.methods or cfg["methods"]
cfg = config.check(cfg, args.config)
where, wanted = device.pick(exclusive=True), cfg["speed"]
name = "".join(c if c.isalnum() else "-" for c in device.describe(where).partition(",")[0])
out = args.out or store.ROOT / f"resources/measured/{name}-{date.today()}.csv"
found = []
grid = itertools.product(
    args.runs or cfg["runs"],
    wanted["precisions"],
    map(int, args.batch_sizes or wanted["batch_sizes"]),
    wanted["modes"],
)
for run, precision, batch, mode in grid:
    if reason := speed.impossible(where, precision, mode):
        print(f"{run} {precision} {batch} {mode}: left out. {reason}")
        continue
    for row in speed.rows(cfg, run, where, precision, batch, mode, int(args.repeats or wanted["repeats"])):
        found.append(row)
        if row["status"] == "ok":
            print(*(f"{row[key]:.3f}" if isinstance(row[key], float) else row[key] for key in speed.PRINTED), flush=True)
    store.write_csv(out, found, speed.COLUMNS)
print(out)
