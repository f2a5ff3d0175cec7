"""Compares the methods of each budget: paired differences, ranks and read-outs (csv)."""

from pathlib import Path

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import pairs
from cachebench.report import tables
from cachebench.run.folder import Folder
from cachebench.setup import config

args = arguments(__doc__, "config?", "results", "folder", "out")

cfg, frame = config.load(args.config), tables.read(args.results)
frame = frame.assign(under=tables.under(cfg, frame))
methods = frame[["run", "method"]].drop_duplicates().itertuples(index=False, name=None)
paths = {pair: Path(Folder(args.folder).scores(*pair)) for pair in methods}
files = {pair: atomic.read_json(path) for pair, path in paths.items() if path.exists()}
scored = {pair: {float(budget): row for budget, row in rows.items()} for pair, rows in files.items()}
try:
    rows = pairs.comparisons(frame, scored, cfg.get("quality"))
except pairs.Incomparable as error:
    raise SystemExit(f"{args.results}: {error}") from None
atomic.write_csv(args.out, rows, pairs.columns())
