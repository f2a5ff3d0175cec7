"""Measures every speed target on this device and prints the table: measure, target, measured, met or missed (csv too)."""

import json
import sys

from _cli import arguments

options = ("config?", "trained?", "parts*", "repeats?", "iterations?", "images?", "out?", "threads?", "growth?")
args = arguments(__doc__, *options)

import torch  # noqa: E402

from cachebench import config, device, speed, store, targets  # noqa: E402
from cachebench.setting import reason  # noqa: E402

trained = args.trained or store.ROOT / "config/config.yaml"
if args.growth:  # a child of this script, which holds the device
    torch.set_num_threads(int(args.threads or torch.get_num_threads()))
    where = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps(targets.growth(config.load(trained), int(args.growth), where)))
    sys.exit()
where, found = device.pick(exclusive=True), []
torch.set_num_threads(int(args.threads or torch.get_num_threads()))
out = args.out or speed.unused(where, "-targets")
numbers = {"repeats": args.repeats or 20, "iterations": args.iterations or 6, "images": args.images or 250}
made = targets.Targets(
    str(args.config or store.ROOT / "config/speed.yaml"), str(trained), where, **{key: int(n) for key, n in numbers.items()}
)
for part in args.parts or targets.PARTS:
    try:
        rows = list(getattr(made, part)())
    except Exception as error:
        rows = [targets.row(part, part, "", reason=reason(error))]
    found += [made.about | row for row in rows]
    store.write_csv(out, found, targets.COLUMNS)
    for row in rows:
        print(targets.line(row), flush=True)
print(out)
