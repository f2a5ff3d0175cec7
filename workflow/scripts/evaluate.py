"""Scores images, a folder or an npz file with arr_0, against reference statistics (json with replicates, csv; printed)."""

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic
from cachebench.judge import foreign
from cachebench.report import typeset
from cachebench.setup import config

args = arguments(__doc__, "config?", "samples*", "reference", "json", "csv")
if not args.samples:
    raise SystemExit("evaluate: say which images: --config samples=PATH, a folder or an npz file with arr_0")
try:
    row, replicates = foreign.evaluate(config.load(args.config), args.samples[0], args.reference, device.pick())
except ValueError as error:
    raise SystemExit(f"samples: {error}") from None
atomic.write_json(args.json, row | {"replicates": replicates})
atomic.write_csv(args.csv, [row])
print(typeset.plain(row))
print(args.json)
