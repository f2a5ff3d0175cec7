"""Compares the methods of each budget: paired differences, ranks and read-outs (csv)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "results", "folder", "out")

from cachebench import compare, store, tables  # noqa: E402

frame = tables.read(args.results)
pairs = frame[["run", "method"]].drop_duplicates().itertuples(index=False, name=None)
files = {pair: store.read_json(Path(args.folder, *pair) / "scores.json") for pair in pairs}
scored = {pair: {float(budget): row for budget, row in rows.items()} for pair, rows in files.items()}
try:
    rows = compare.comparisons(frame, scored)
except compare.Incomparable as error:
    raise SystemExit(f"{args.results}: {error}") from None
store.write_csv(args.out, rows, compare.COLUMNS)
