"""Chooses, for each budget, the setting of one method whose exact cost is closest (json, one entry per budget)."""

from _cli import arguments

args = arguments(__doc__, "config", "run", "method", "states*", "out")

from cachebench import config, method, store  # noqa: E402
from cachebench.match import candidates, match  # noqa: E402
from cachebench.setting import measured_rows, read_states, reason  # noqa: E402

cfg = config.load(args.config)
spec = config.spec(cfg, args.run)


def entries(grid, budgets, tolerance):
    try:
        if refusal := cls(**method.settings(grid)[0]).supports(spec):
            return [{"budget": b, "status": "unsupported", "reason": refusal} for b in budgets]
        found = candidates(cls, spec, read_states(args.states), grid, measured_rows(cfg, args.run, spec))
        return match(cls, spec, budgets, tolerance, found)
    except Exception as error:
        return [{"budget": b, "status": "failed", "reason": reason(error)} for b in budgets]


try:
    cls = method.plugin(args.method)
    found = [entry for grid in config.grids(cfg, cls, args.run) for entry in entries(*grid)]
except Exception as error:
    found = [{"budget": b, "status": "failed", "reason": reason(error)} for b in config.budgets(cfg, args.run, args.method)]
store.write_json(args.out, found)
