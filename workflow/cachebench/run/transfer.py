"""Transfer: a schedule that was fitted on one run, used on another of the same backbone and sampler, at the same budget.

Evaluation 2p + r of the one run takes the mask row of evaluation 2p' + r of the other, p' being the pair at the same relative
position. In pairs, since L2C pairs evaluations, DPM-Solver-2 has two a step, and what alternates would else be lost. No torch
before anything runs, since the rules read this file.
"""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.schedule import Schedule
from cachebench.metrics.catalog import ENDS
from cachebench.metrics.intervals import interval
from cachebench.plugin import method
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.match import pick, swept
from cachebench.run.opening import read_states, run_model, state_files
from cachebench.run.sample import parts, start
from cachebench.setup import matrix

COLUMNS = ("method", "name", "budget", "fitted_at", "used_at", "setting", "achieved", "count")
COLUMNS += (*(f"{key}{end}" for key in ("latent_mse", "minus_home") for end in ENDS), "reason")


def column(cfg, run, folder, device):
    """Rows over COLUMNS: every method at every budget of `run`, with the schedules that were fitted on each of its partners.

    `latent_mse` is to the full run; `minus_home` is what an image's exceeds that with the run's own schedule by, paired."""
    from cachebench.run.trace import distance

    spec, model, out = matrix.spec(cfg, run), run_model(cfg, run, device), []
    full, others = sampled(cfg, model, spec, Session()), [other for other in matrix.partners(cfg, run) if other != run]

    def measure(schedule):
        return distance(sampled(cfg, model, spec, ScheduledSession(schedule)), full)

    for name, cls in matrix.fitted(cfg, run).items():
        for budget in matrix.budgets(cfg, run):
            cells, home = {}, None
            for source in [run, *others]:
                measured, errors = cell(cfg, cls, source, run, folder, budget, measure, home)
                home = errors if source == run else home
                identity = {"method": name, "name": cls.name, "budget": budget, "fitted_at": source, "used_at": run}
                cells[source] = identity | measured
            out += [cells[source] for source in matrix.partners(cfg, run)]
    return out


def cell(cfg, cls, source, run, folder, budget, measure, home):
    """(columns of a cell, errors [n] of its images), the latter None where there is only a reason; `home` are the errors with
    the run's own schedule."""
    try:
        setting, schedule, achieved = choose(cfg, cls, source, run, folder, budget)
        columns = {"setting": setting, "achieved": achieved}
        if abs(achieved - budget) > cfg["tolerance"]:
            return columns | {"reason": f"The nearest cost is {achieved:.3f}."}, None
        errors = measure(schedule)
    except FAILURES as error:
        return {"reason": reason(error)}, None
    columns |= {"count": len(errors)} | labelled("latent_mse", errors)
    return columns | (labelled("minus_home", errors - home) if home is not None else {}), errors


def labelled(key, values):
    return dict(zip((f"{key}{end}" for end in ENDS), interval(values), strict=True))


def choose(cfg, cls, source, run, folder, budget):
    """(label of its parameters, Schedule for `run`, its share of that run's MACs): of the settings that the fits on `source`
    give, the one whose schedule costs nearest to `budget` on `run`."""
    here, there = matrix.spec(cfg, run), matrix.spec(cfg, source)
    states, priced = read_states(state_files(cfg, folder, source, cls.id())), []
    for params, chosen, state in swept(cls, there, states, matrix.overrides(cfg, cls.id(), source)):
        if refusal := chosen.supports(here):
            raise ValueError(refusal)
        mask = reindexed(chosen.schedule(there, state).compute, here.num_evaluations)
        share = cost.image_macs(here, cost.mask_rows(mask)) / cost.image_macs(here, cost.full_rows(here))
        priced.append((params, share, Schedule(mask)))
    params, share, schedule = pick(cls, priced, budget, cfg["tolerance"])
    return method.label(params), schedule, share


def reindexed(compute, evaluations):
    """A compute mask [n, blocks, branches] for another number of evaluations; both are even."""
    if len(compute) % 2 or evaluations % 2:
        raise ValueError(f"schedules transfer in pairs of evaluations; {len(compute)} to {evaluations} has an odd number")
    pairs = np.rint(np.linspace(0, len(compute) // 2 - 1, evaluations // 2)).astype(int)
    return compute[(2 * pairs[:, None] + [0, 1]).ravel()]


def sampled(cfg, model, spec, session):
    """Samples [n, C, H, W] of the first `samples.paired` seeds, on the CPU."""
    import torch

    from cachebench.engine import trajectory

    samples = cfg["samples"]
    cut = parts(min(samples["paired"], matrix.total(samples)), samples["batch_size"])
    return torch.cat([trajectory.run(model, spec, session, *start(samples, spec.arch, part)).cpu() for part in cut])
