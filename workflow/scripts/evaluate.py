"""Scores images, as docs/images.md says which, against reference statistics (json with replicates, csv; printed)."""

from _cli import arguments
from cachebench.engine import device
from cachebench.files import atomic, images
from cachebench.judge import foreign
from cachebench.report import typeset
from cachebench.setup import config, sources

args = arguments(__doc__, "config?", "samples*", "reference+", "order?", "json", "csv")
if not args.samples:
    raise SystemExit("evaluate: say which images: --config samples=PATH, a folder, zip, npz, npy, idx or pt file")
try:
    cfg = config.load(args.config)
    files = dict(zip(sources.spaces(cfg), args.reference, strict=True))
    given = files.pop(""), device.pick(), args.order or images.ORDERS[0], files
    row, replicates = foreign.evaluate(cfg, args.samples[0], *given)
except ValueError as error:
    raise SystemExit(f"samples: {error}") from None
atomic.write_json(args.json, row | {"replicates": replicates})
atomic.write_csv(args.csv, [row])
print(typeset.plain(row))
print(args.json)
