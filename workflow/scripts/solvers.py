"""Draws which half of a solver's evaluations can be reused (method `alternate`), over all runs of results.csv."""

from _cli import arguments
from cachebench.report import tables
from cachebench.report.figures import halves, style

args = arguments(__doc__, "results", "out+")

style.save(halves.draw(tables.read(args.results)), args.out)
