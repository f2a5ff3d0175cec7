"""Budget matching: for each budget the setting whose exact cost is closest. A budget is a share of the full run's MACs."""

import math
import sys
from bisect import bisect_left
from functools import cache
from itertools import pairwise

from cachebench.engine import cost
from cachebench.plugin.loader import FAILURES, reason
from cachebench.plugin.method import label, listed, settings
from cachebench.run.opening import run_model
from cachebench.run.sample import parts, start

TRAJECTORIES = 32  # on which the cost of a run-time method is measured, unless the config says: noise of their own
REFINED = 8  # values of a knob that are tried between two of its grid


def swept(cls, spec, states, overrides=None):
    """[(params, method, fitted state)] over the method's grid, the knob innermost. `states`: {label of the fit parameters:
    state}; settings whose fit is not among them, or that the method refuses, are left out.

    `overrides` replaces values of the grid. A knob that has its own values also takes those at which a schedule changes,
    unless each value has a fit of its own."""
    grid, runnable = cls.sweep(spec, overrides), []
    knob = {cls.knob: grid.pop(cls.knob)} if cls.knob else {}
    values = listed(cls.knob, cls.grid(spec)[cls.knob]) if cls.knob else None
    refine = knob and cls.knob not in cls.fit_params and knob[cls.knob] == values

    def fit_of(params):
        """(whether they can be run, the fitted state)."""
        state = states.get(cls.fit_label(params)) if cls.has_fit() else None
        return state is not None or not cls.has_fit(), state

    for others in settings(grid):
        if refine:
            there, state = fit_of(others)
            points = cls(**others).breakpoints(spec, state) if there else []
            knob[cls.knob] = refined(values, points)
        for value in settings(knob):
            params = {name: (others | value)[name] for name in cls.params}
            there, state = fit_of(params)
            if there and not (chosen := cls(**params)).supports(spec):
                runnable.append((params, chosen, state))
    return runnable


def refined(values, breakpoints):
    """The ascending `values`, and from breakpoint to breakpoint a short decimal number where there is none among them."""
    added = []
    for low, high in pairwise([*sorted(set(breakpoints)), math.inf]):
        at = bisect_left(values, low)
        if at == len(values) or values[at] >= high:
            rounded = (math.ceil(low * 10**digits) / 10**digits for digits in range(1, 17))
            added.append(next((value for value in rounded if low <= value < high), low))
    return sorted([*values, *added]) if added else values


def candidates(cls, spec, states, overrides=None, budgets=(), measure=None):
    """[(params, counts of one row)] of `swept`. Of a run-time method those that a search for the `budgets` looks at, counted by
    `measure(method, state)`. A setting that fails is left out, and its reason goes to the log; the first one where all fail."""
    counted, decided, failed = [], {}, []
    for params, method, state in swept(cls, spec, states, overrides):
        try:
            rows = method.rows(method.sampler(spec), state)
        except FAILURES as error:
            failed.append(error)
            print(f"{label(params)}: {reason(error)}", file=sys.stderr)
            continue
        if rows is not None:
            counted.append((params, rows))
            continue
        decided.setdefault(without_knob(cls, params), []).append((params, state))
    for group in decided.values():
        counted += searched(cls, spec, group, budgets, measure)
    if failed and not counted:
        raise failed[0]
    return counted


def without_knob(cls, params):
    """Label of the other parameters."""
    return label({name: value for name, value in params.items() if name != cls.knob})


def searched(cls, spec, group, budgets, measure):
    """[(params, counts)] that a bisection for each budget looks at, of `group`, [(params, state)] along the knob from saving
    nothing to saving most. Cost falls along it on average. Between two neighbours that leave a budget between them, a knob of
    numbers is halved further, unless each value has a fit of its own."""
    first, of_all = group[0]
    of_value = {params.get(cls.knob): state for params, state in group}
    values, seen, fitted = list(of_value), {}, cls.knob in cls.fit_params

    def off(value):
        params = first | ({cls.knob: value} if cls.knob else {})
        if value not in seen:
            made, state = cls(**params), of_value[value] if fitted else of_all
            rows = measure(made, state)
            seen[value] = (params, rows), share(spec, made, rows)[1]
        return seen[value][1]

    for budget in budgets:
        low, high = 0, len(values) - 1
        off(values[low])
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if off(values[middle]) > budget else (low, middle)
        ends = [values[low], values[high]]
        off(ends[1])
        for _ in range(REFINED if not fitted and all(isinstance(end, float) for end in ends) else 0):
            between = float(f"{sum(ends) / 2:.4g}")  # as people can write it
            ends = [between, ends[1]] if off(between) > budget else [ends[0], between]
    return [candidate for candidate, _ in seen.values()]


def share(spec, method, rows):
    """(MACs of an image, MACs / MACs of the full run on `spec`)."""
    macs = cost.image_macs(method.sampler(spec), rows)
    return macs, macs / cost.image_macs(spec, cost.full_rows(spec))


def priced(cls, spec, counted):
    """[(params, share of the full run, MACs, counts)] of `counted`, as `candidates` gives it."""
    return [(params, *share(spec, cls(**params), rows)[::-1], rows) for params, rows in counted]


def pick(cls, priced, budget, tolerance):
    """Of `priced`, [(params, share of the full run, ...)], the nearest to `budget`, ties to the earlier one.

    The knob is turned first: the other parameters leave their first values only where no value of it comes within
    `tolerance`, and then for the first ones with which one does."""

    def off(setting):
        return abs(setting[1] - budget)

    groups = {}
    for setting in priced:
        groups.setdefault(without_knob(cls, setting[0]), []).append(setting)
    nearest = [min(group, key=off) for group in groups.values()]
    return next((setting for setting in nearest if off(setting) <= tolerance), min(nearest, key=off))


def match(cls, spec, budgets, tolerance, counted):
    """One setting per budget: {"budget", "params", "rows", "macs", "achieved"} and "reason" where the nearest is off by more
    than `tolerance` (a share of the full run), with status "unreachable"; of `counted`, as `candidates` gives it, by `pick`."""
    if not counted:
        raise ValueError("none of the fits that these settings need succeeded")
    settings, chosen = priced(cls, spec, counted), []
    for budget in budgets:
        params, achieved, macs, rows = pick(cls, settings, budget, tolerance)
        entry = {"budget": budget, "params": params, "rows": rows, "macs": macs, "achieved": achieved}
        if abs(achieved - budget) > tolerance:
            entry |= {"status": "unreachable", "reason": f"The nearest cost is {achieved:.3f} ({label(params)})."}
        chosen.append(entry)
    return chosen


def measured_rows(cfg, run, spec, trajectories=None):
    """measure(method, state) -> counts of one row, for methods that decide at run time: averages over so many trajectories
    (None: as the config says), on the run's device. The network is loaded once, when it is first needed. `measure.errors`
    {label of the parameters: latent MSE to the full run's trajectories of the same noise}."""
    trajectories = trajectories or cfg.get("trajectories", TRAJECTORIES)

    @cache
    def network():
        from cachebench.engine import device

        return run_model(cfg, run, device.pick())

    @cache
    def full(part):
        from cachebench.engine import doors, trajectory

        return trajectory.run(network(), spec, doors.BARE, *start(cfg["samples"], spec.arch, part, "match"))

    def measure(chosen, state):
        from cachebench.engine import doors, trajectory

        method_spec, squared = chosen.sampler(spec), 0.0
        model = chosen.prepare(network(), state)
        session = doors.Counted(chosen.session(model, method_spec, state))
        for part in parts(trajectories, cfg["samples"]["batch_size"]):
            x = trajectory.run(model, method_spec, session, *start(cfg["samples"], method_spec.arch, part, "match"))
            squared += float((x - full(part)).double().square().flatten(1).mean(1).sum())
        measure.errors[label({name: getattr(chosen, name) for name in chosen.params})] = squared / trajectories
        return {site: count / (trajectories * method_spec.rows) for site, count in session.rows.items()}

    measure.errors = {}
    return measure


def knob_curve(cls, spec, params, counted, errors):
    """What the knob of a method that decides at run time does on a run, its other parameters as in `params`: [{"value",
    "achieved", "latent_mse"}] by ascending cost saved, of the values that were tried. `counted` as `candidates` gives it."""
    told = []
    for tried, rows in counted:
        if cls.knob and without_knob(cls, tried) == without_knob(cls, params) and label(tried) in errors:
            share_of_full = share(spec, cls(**tried), rows)[1]
            told.append({"value": tried[cls.knob], "achieved": share_of_full, "latent_mse": errors[label(tried)]})
    return sorted(told, key=lambda point: -point["achieved"])


def useful(curve, tolerance):
    """The ends of the knob's useful range in its curve: the last value that saves nothing, and the first that saves all that it
    can, both within `tolerance`."""
    dearest, cheapest = curve[0]["achieved"], curve[-1]["achieved"]
    idle = [point["value"] for point in curve if point["achieved"] >= dearest - tolerance]
    spent = [point["value"] for point in curve if point["achieved"] <= cheapest + tolerance]
    return idle[-1], spent[0]
