"""Draws the figures that `--out` names (png, svg, pdf): of one run, or without `--run` of all."""

from pathlib import Path

from _cli import arguments
from cachebench.report import figures, flaws, style, tables
from cachebench.report.files_of_run import Files
from cachebench.setup import config

args = arguments(__doc__, "config?", "run?", "results", "comparisons", "folder", "out+")

cfg = config.load(args.config)
files = Files(cfg, args.run, args.folder, flaws.asked(cfg, tables.read(args.results, args.comparisons)))
for name in dict.fromkeys(Path(path).stem for path in args.out):
    style.save(figures.load(name).draw(files), [path for path in args.out if Path(path).stem == name])
