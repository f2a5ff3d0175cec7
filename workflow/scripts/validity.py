"""Whether the runs of a results folder can tell methods apart (csv: a line a run)."""

from pathlib import Path

from _cli import arguments
from cachebench.files import atomic
from cachebench.judge import validity
from cachebench.report import tables
from cachebench.run.folder import Folder

args = arguments(__doc__, "config?", "results", "comparisons", "folder", "out")

frame = tables.read(args.results, args.comparisons)
paths = {run: Path(Folder(args.folder).scores(run, "full")) for run in frame.run.unique()}
full = {run: next(iter(atomic.read_json(path).values())) for run, path in paths.items() if path.exists()}
atomic.write_csv(args.out, validity.lines(frame, full), validity.COLUMNS)
