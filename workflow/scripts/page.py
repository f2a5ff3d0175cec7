"""Writes the self-contained HTML page of a results folder from results.csv, comparisons.csv and the figures of all runs."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "results", "comparisons?", "verdicts?", "figures+", "out")

from cachebench import config, page, page_data, store, tables, verdicts  # noqa: E402

cfg = config.load(args.config)
frame = page_data.completed(cfg, tables.read(args.results, args.comparisons))
folder = Path(args.out).parent
data = page_data.collect(cfg, frame, folder)
printed = verdicts.read(args.verdicts) if args.verdicts else ()
store.write_text(args.out, page.render(cfg, frame, args.config, args.figures, folder, data, printed))
