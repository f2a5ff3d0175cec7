"""Budget matching: for each budget the setting whose exact cost is closest. A budget is a share of the full run's MACs."""

from cachebench import cost
from cachebench.method import label, settings


def candidates(cls, spec, states, overrides=None, measure=None):
    """[(params, counts of one row)] over the method's grid. `states`: {label of the fit parameters: state}.

    `overrides` replaces values of the grid. `measure(method, state)` counts what a run-time method computes."""
    found = []
    for params in settings(cls.sweep(spec, overrides)):
        method = cls(**params)
        state = states.get(cls.fit_label(params))
        if cls.has_fit() and state is None:
            continue
        rows = method.rows(method.sampler(spec), state)
        found.append((params, measure(method, state) if rows is None else rows))
    return found


def share(spec, method, rows):
    """(MACs of an image, MACs / MACs of the full run on `spec`)."""
    macs = cost.image_macs(method.sampler(spec), rows)
    return macs, macs / cost.image_macs(spec, cost.full_rows(spec))


def match(cls, spec, budgets, tolerance, found):
    """One setting per budget: {"budget", "params", "rows", "macs", "achieved"} and "reason" where the nearest is off by more
    than `tolerance` (a share of the full run), with status "unreachable". Ties go to the earlier candidate."""
    if not found:
        raise ValueError("none of the fits that these settings need succeeded")
    priced = [(params, rows, *share(spec, cls(**params), rows)) for params, rows in found]
    chosen = []
    for budget in budgets:
        params, rows, macs, achieved = min(priced, key=lambda c: abs(c[3] - budget))
        entry = {"budget": budget, "params": params, "rows": rows, "macs": macs, "achieved": achieved}
        if abs(achieved - budget) > tolerance:
            entry |= {"status": "unreachable", "reason": f"The nearest cost is {achieved:.3f} ({label(params)})."}
        chosen.append(entry)
    return chosen
