"""Draws the figures of one run that `--out` names (png, svg, pdf)."""

from pathlib import Path

from _cli import arguments
from cachebench.report import tables
from cachebench.report.figures import differences, infinity, of_run, style, trace
from cachebench.setup import config

args = arguments(__doc__, "config?", "run", "results", "comparisons", "folder", "out+")

frame = tables.read(args.results, args.comparisons)
ordered = frame[frame.run == args.run].sort_values("kind", ascending=False, kind="stable")  # controls first, as in the table
names = dict(zip(ordered.method, ordered.name, strict=True))
files = of_run.Files(config.load(args.config), args.run, Path(args.folder), names)
draw = {
    "pareto": lambda: style.pareto(frame, args.run),
    "differences": lambda: differences.draw(frame, args.run),
    "fidelity": lambda: style.fidelity(frame, args.run),
    "infinity": lambda: infinity.draw(files),
    "trace": lambda: trace.draw(files),
    "routers": lambda: of_run.routers(files),
    "fits": lambda: of_run.fits(files),
    "samples": lambda: of_run.samples(files),
}
for figure in dict.fromkeys(Path(path).stem for path in args.out):
    if figure not in draw:
        raise SystemExit(f"--out: no figure is called {figure!r}; allowed: {', '.join(draw)}")
    style.save(draw[figure](), [path for path in args.out if Path(path).stem == figure])
