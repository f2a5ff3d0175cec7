"""Draws the figures of one run that `--out` names (png, svg, pdf)."""

from pathlib import Path

from _cli import arguments

args = arguments(__doc__, "config", "run", "results", "comparisons", "folder", "out+")

from cachebench import config, plots, plots_differences, plots_infinity, plots_run, plots_trace, tables  # noqa: E402

frame = tables.read(args.results, args.comparisons)
ordered = frame[frame.run == args.run].sort_values("kind", ascending=False, kind="stable")  # controls first, as in the table
names = dict(zip(ordered.method, ordered.name, strict=True))
files = plots_run.Files(config.load(args.config), args.run, Path(args.folder), names)
draw = {
    "pareto": lambda: plots.pareto(frame, args.run),
    "differences": lambda: plots_differences.draw(frame, args.run),
    "fidelity": lambda: plots.fidelity(frame, args.run),
    "infinity": lambda: plots_infinity.draw(files),
    "trace": lambda: plots_trace.draw(files),
    "routers": lambda: plots_run.routers(files),
    "fits": lambda: plots_run.fits(files),
    "samples": lambda: plots_run.samples(files),
}
for figure in dict.fromkeys(Path(path).stem for path in args.out):
    if figure not in draw:
        raise SystemExit(f"--out: no figure is called {figure!r}; allowed: {', '.join(draw)}")
    plots.save(draw[figure](), [path for path in args.out if Path(path).stem == figure])
