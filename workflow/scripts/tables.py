"""Writes the comparison table of every run that `--out` names: <run>.md, <run>.tex."""

from pathlib import Path

from _cli import arguments
from cachebench.judge import pairs
from cachebench.report import tables, typeset
from cachebench.setup import config

args = arguments(__doc__, "config?", "results", "comparisons?", "out+")

frame = tables.completed(config.load(args.config), tables.read(args.results, args.comparisons))
for run in dict.fromkeys(Path(path).stem for path in args.out):
    if run not in set(frame.run):
        raise SystemExit(f"--out: {args.results} has no run {run!r}; it has: {', '.join(frame.run.unique())}")
    try:
        typeset.write(frame, run, [path for path in args.out if Path(path).stem == run])
    except pairs.Incomparable as error:
        raise SystemExit(f"{args.results}: {error}") from None
