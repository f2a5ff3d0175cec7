"""Chooses, for each budget, the setting of one method whose exact cost is closest (json, one entry per budget)."""

from _cli import arguments

args = arguments(__doc__, "config", "run", "method", "budgets+", "states*", "out")

from cachebench import config, method, store  # noqa: E402
from cachebench.match import candidates, match  # noqa: E402
from cachebench.setting import measured_rows, read_states, reason  # noqa: E402

cfg = config.load(args.config)
spec = config.spec(cfg, args.run)
budgets = [float(b) for b in args.budgets]
try:
    cls = method.plugin(args.method)
    overrides = config.overrides(cfg, args.method, args.run)
    refusal = cls(**method.settings(cls.sweep(spec, overrides))[0]).supports(spec)
    if refusal:
        entries = [{"budget": b, "status": "unsupported", "reason": refusal} for b in budgets]
    else:
        states = read_states(args.states)
        found = candidates(cls, spec, states, overrides, measured_rows(cfg, args.run, spec))
        entries = match(cls, spec, budgets, cfg["tolerance"], found)
except Exception as error:
    entries = [{"budget": b, "status": "failed", "reason": reason(error)} for b in budgets]
store.write_json(args.out, entries)
