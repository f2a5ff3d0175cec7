"""Draws which half of a solver's evaluations can be reused (method `alternate`), over all runs of results.csv."""

from _cli import arguments

args = arguments(__doc__, "results", "out+")

from cachebench import plots, solvers, tables  # noqa: E402

plots.save(solvers.draw(tables.read(args.results)), args.out)
