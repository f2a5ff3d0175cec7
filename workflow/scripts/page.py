"""Writes the self-contained HTML page of a results folder from results.csv, comparisons.csv and the figures of all runs."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "results", "comparisons?", "verdicts?", "figures+", "out")

from cachebench import compare, config, page, page_data, store, tables, verdicts  # noqa: E402

cfg = config.load(args.config)
frame = tables.completed(cfg, tables.read(args.results, args.comparisons))
folder = Path(args.out).parent
printed = verdicts.read(args.verdicts) if args.verdicts else ()
try:
    data = page_data.collect(cfg, frame, folder)
    html = page.render(cfg, frame, args.config, args.figures, folder, data, printed)
except compare.Incomparable as error:
    raise SystemExit(f"{args.results}: {error}") from None
store.write_text(args.out, html)
