"""Scores images, a folder or an npz file with arr_0, against reference statistics (json with replicates, csv; printed)."""

from _cli import arguments

args = arguments(__doc__, "config", "samples", "reference", "json", "csv", "threads?")

import torch  # noqa: E402

from cachebench import config, device, evaluation, store  # noqa: E402

torch.set_num_threads(int(args.threads or torch.get_num_threads()))
if not args.samples:
    raise SystemExit("evaluate: say which images: --config samples=PATH, a folder or an npz file with arr_0")
try:
    row, replicates = evaluation.evaluate(config.load(args.config), args.samples, args.reference, device.pick())
except ValueError as error:
    raise SystemExit(f"samples: {error}") from None
store.write_json(args.json, row | {"replicates": replicates})
store.write_csv(args.csv, [row])
print(evaluation.table(row))
