"""Chooses, for each budget, the setting of one method whose exact cost is closest (json, one entry per budget)."""

from _cli import arguments
from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.plugin.loader import reason
from cachebench.run.match import candidates, match, measured_rows
from cachebench.run.opening import read_states
from cachebench.setup import config, matrix

args = arguments(__doc__, "config?", "run", "method", "states*", "out")

cfg = config.load(args.config)
spec = matrix.spec(cfg, args.run)


def entries(grid, budgets, tolerance):
    try:
        refusals = [cls(**params).supports(spec) for params in method.settings(grid)]
        if all(refusals):
            return [{"budget": b, "status": "unsupported", "reason": refusals[0]} for b in budgets]
        found = candidates(cls, spec, read_states(args.states), grid, budgets, measured_rows(cfg, args.run, spec))
        return match(cls, spec, budgets, tolerance, found)
    except Exception as error:
        return [{"budget": b, "status": "failed", "reason": reason(error)} for b in budgets]


try:
    cls = loader.plugin(args.method)
    found = [entry for grid in matrix.grids(cfg, cls, args.run) for entry in entries(*grid)]
except Exception as error:
    found = [{"budget": b, "status": "failed", "reason": reason(error)} for b in matrix.budgets(cfg, args.run, args.method)]
atomic.write_json(args.out, found)
