"""Compares the methods of each budget: paired differences, ranks and read-outs (csv). With `samples.until` this is one of
several looks, each with more images, and the file `looks` holds those before."""

from pathlib import Path

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import looks, pairs
from cachebench.metrics import spaces
from cachebench.report import flaws, tables
from cachebench.run.folder import Folder
from cachebench.setup import config, stamps

args = arguments(__doc__, "config?", "results", "folder", "looks*", "out")

cfg = config.load(args.config)
frame = flaws.asked(cfg, tables.read(args.results))
frame = frame.assign(under=tables.under(cfg, frame))
methods = frame[["run", "method"]].drop_duplicates().itertuples(index=False, name=None)
paths = {pair: Path(Folder(args.folder).scores(*pair)) for pair in methods}
files = {pair: atomic.read_json(path) for pair, path in paths.items() if path.exists()}
scored = {pair: {float(budget): row for budget, row in rows.items()} for pair, rows in files.items()}
try:
    rows = pairs.comparisons(frame, scored, cfg.get("quality"), cfg["tolerance"])
except pairs.Incomparable as error:
    raise SystemExit(f"{args.results}: {error}") from None
for path in args.looks:
    common = {"samples": stamps.each_sample(cfg), "most": looks.at_most(cfg["samples"])}
    of_run = {run: stamps.scores(cfg, run) | common for run in cfg["runs"]}
    made_of = {
        (row.run, row.budget, row.method): stamps.digest(of_run[row.run], row.setting, row.code_version)
        for _, row in frame.iterrows()
    }
    rows, told = looks.judged(rows, looks.read(path), made_of, cfg)
    atomic.write_csv(path, told, looks.COLUMNS)
atomic.write_csv(args.out, rows, pairs.columns(spaces.further(frame)))
