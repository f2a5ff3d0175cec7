"""Chooses, for each budget, the setting of one method whose exact cost is closest (json, one entry per budget)."""

import os
from pathlib import Path

from _cli import arguments, tell
from cachebench.files import atomic, closure
from cachebench.plugin import loader, method
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.apart import stay_alive
from cachebench.run.match import candidates, knob_curve, match, measured_rows
from cachebench.run.opening import read_states
from cachebench.setup import config, matrix, stamps

args = arguments(__doc__, "config?", "run", "method", "states*", "out", "died?")

cfg = config.load(args.config)
spec, made_with = matrix.spec(cfg, args.run), stamps.match(cfg, args.run, args.method)
for report in (Path(state).with_suffix(".json") for state in args.states):
    if not (told := atomic.read_json(report)).get("reason"):
        stamps.check(report, told.get("made_with"), stamps.fit(cfg, args.run))


def entries(grid, budgets, tolerance):
    try:
        refusals = [cls(**params).supports(spec) for params in method.settings(grid)]
        if all(refusals):
            return [{"budget": b, "status": "unsupported", "reason": refusals[0]} for b in budgets]
        measure = measured_rows(cfg, args.run, spec)
        counted = candidates(cls, spec, read_states(args.states), grid, budgets, measure)
        chosen = match(cls, spec, budgets, tolerance, counted)
        curves = ({"knob": knob_curve(cls, spec, entry["params"], counted, measure.errors)} for entry in chosen)
        return [entry | (told if told["knob"] else {}) for entry, told in zip(chosen, curves, strict=True)]
    except FAILURES as error:
        return failed(error, budgets)


def failed(error, budgets):
    """The entries of a method that fails, which the terminal is told of at once."""
    told = reason(error)
    files = closure.files_of(loader.file_of(args.method))
    log = f"; its log: {os.environ['LOG']}" if "LOG" in os.environ else ""
    tell(f"{args.method} failed on {args.run}: {told}{loader.place(error, files)}{log}")
    return [{"budget": b, "status": "failed", "reason": told} for b in budgets]


try:
    stay_alive(args.died, cfg["limits"]["minutes"])
    cls = loader.plugin(args.method)
    matched = [entry for grid in matrix.grids(cfg, cls, args.run) for entry in entries(*grid)]
except FAILURES as error:
    matched = failed(error, matrix.budgets(cfg, args.run, args.method))
atomic.write_json(args.out, [entry | {"made_with": made_with} for entry in matched])
