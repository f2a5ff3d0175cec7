"""Device hours of configurations (printed, and csv): rows x images x (share of the full run's MACs x its MACs + decoding +
features) / rate.

The rate, in MACs a second, is `--rate`, or measured: a results.csv whose rows were timed on the device (the full runs' images a
second times their MACs, the slowest counts). A row costs its budget; an image that a router is trained on costs as much as five
network rows (three passes, one of them with its gradient). The other fits, and encoding, are left out."""

import csv
import sys

from _cli import arguments
from cachebench.engine import cost
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.run import opening
from cachebench.setup import check, config, matrix

args = arguments(__doc__, "config+", "rate?", "results?", "out?")

configurations = [check.check(config.read(path), path) for path in args.config]
if args.rate:
    rate = float(args.rate)
elif args.results:
    with open(args.results, newline="") as handle:
        timed = [row for row in csv.DictReader(handle) if row["method"] == "full" and row["images_per_s"]]
    if not timed:
        sys.exit(f"estimate: --results: no full run of {args.results} was timed")
    rate = min(float(row["images_per_s"]) * float(row["macs_per_image"]) for row in timed)
else:
    sys.exit("estimate: give --rate MACS_PER_SECOND, or --results of a run on the device")


def of_run(cfg, run):
    """What a run takes: its rows, MACs of an image of the full run and of what is around it, and hours."""
    spec, hours, rows = matrix.spec(cfg, run), 0.0, 0
    full, around = cost.image_macs(spec, cost.full_rows(spec)), opening.ends_macs(cfg, run)
    for name in matrix.method_ids(cfg, run):
        cls, budgets = loader.plugin(name), matrix.budgets(cfg, run, name)
        named = matrix.paths(cfg, name, run)  # files that may still have to be fetched
        if named or not cls(**method.settings(cls.sweep(spec, matrix.overrides(cfg, name, run)))[0]).supports(spec):
            rows += len(budgets)
            hours += (sum(budgets) * full + len(budgets) * around) * matrix.total(cfg["samples"]) / rate / 3600
            trained = [fit for fit in matrix.fits(cfg, cls, run) if {"iterations", "lambda"} <= fit.keys()]
            passes = sum(5.0 * fit["iterations"] * fit["batch_size"] for fit in trained)
            hours += passes * full / spec.rows / spec.num_evaluations / rate / 3600
    print(f"{run}: {rows} rows, {full / 1e12:.3g} + {around / 1e12:.2g} TMACs an image, {hours:.3g} h", flush=True)
    columns = {"configuration": cfg["name"], "run": run, "rows": rows, "macs_per_image": full, "macs_around": around}
    return columns | {"device_hours": round(hours, 3), "rate": rate}


lines = []
for cfg in configurations:
    run_lines = [of_run(cfg, run) for run in cfg["runs"]]
    print(f"{cfg['name']}: {sum(line['device_hours'] for line in run_lines):.3g} h at {rate:.3g} MACs a second", flush=True)
    lines += run_lines
if args.out:
    atomic.write_csv(args.out, lines)
