"""Transfer: a schedule that was fitted on one run, used on another of the same backbone and sampler, at the same budget.

Evaluation 2p + r of the one run takes the mask row of evaluation 2p' + r of the other, p' being the pair at the same relative
position. In pairs, since L2C pairs evaluations, DPM-Solver-2 has two a step, and what alternates would else be lost. No torch
before anything runs, since the rules read this file.
"""

import numpy as np

from cachebench import config, cost, method
from cachebench.cache import ScheduledSession, Session
from cachebench.match import pick, swept
from cachebench.metrics.intervals import interval
from cachebench.schedule import Schedule
from cachebench.setting import read_states, reason, run_model, start, state_files

ENDS = ("", "_low", "_high")
COLUMNS = ("method", "name", "budget", "fitted_at", "used_at", "setting", "achieved", "count")
COLUMNS += (*(f"{key}{end}" for key in ("latent_mse", "minus_home") for end in ENDS), "reason")


def partners(cfg, run):
    """The runs whose schedules can be used on `run`: those of its backbone and sampler, itself too."""
    same = [{key: entry[key] for key in ("backbone", "sampler")} for entry in cfg["runs"].values()]
    own = {key: cfg["runs"][run][key] for key in ("backbone", "sampler")}
    return [name for name, entry in zip(cfg["runs"], same, strict=True) if entry == own]


def methods(cfg, run):
    """{id: class} of the methods whose static schedule comes from a fit, on every partner of `run`."""
    common = [
        name for name in config.method_ids(cfg, run) if all(name in config.method_ids(cfg, p) for p in partners(cfg, run))
    ]
    loaded = {name: cls for name in common if (cls := attempt(name))}
    return {name: cls for name, cls in loaded.items() if cls.has_fit() and cls.by_mask()}


def attempt(name):
    """The plug-in class, or None where its file does not load: its rows say why."""
    try:
        return method.plugin(name)
    except Exception:
        return None


def column(cfg, run, folder, device):
    """Rows over COLUMNS: every method at every budget of `run`, with the schedules that were fitted on each of its partners.

    `latent_mse` is to the full run; `minus_home` is what an image's exceeds that with the run's own schedule by, paired."""
    from cachebench.trace import distance

    spec, model, out = config.spec(cfg, run), run_model(cfg, run, device), []
    full, others = sampled(cfg, model, spec, Session()), [other for other in partners(cfg, run) if other != run]

    def measure(schedule):
        return distance(sampled(cfg, model, spec, ScheduledSession(schedule)), full)

    for name, cls in methods(cfg, run).items():
        for budget in config.budgets(cfg, run):
            cells, home = {}, None
            for source in [run, *others]:
                found, errors = cell(cfg, cls, source, run, folder, budget, measure, home)
                home = errors if source == run else home
                about = {"method": name, "name": cls.name, "budget": budget, "fitted_at": source, "used_at": run}
                cells[source] = about | found
            out += [cells[source] for source in partners(cfg, run)]
    return out


def cell(cfg, cls, source, run, folder, budget, measure, home):
    """(columns of a cell, errors [n] of its images), the latter None where there is only a reason; `home` are the errors with
    the run's own schedule."""
    try:
        setting, schedule, achieved = choose(cfg, cls, source, run, folder, budget)
        found = {"setting": setting, "achieved": achieved}
        if abs(achieved - budget) > cfg["tolerance"]:
            return found | {"reason": f"The nearest cost is {achieved:.3f}."}, None
        errors = measure(schedule)
    except Exception as error:
        return {"reason": reason(error)}, None
    found |= {"count": len(errors)} | labelled("latent_mse", errors)
    return found | (labelled("minus_home", errors - home) if home is not None else {}), errors


def labelled(key, values):
    return dict(zip((f"{key}{end}" for end in ENDS), interval(values), strict=True))


def choose(cfg, cls, source, run, folder, budget):
    """(label of its parameters, Schedule for `run`, its share of that run's MACs): of the settings that the fits on `source`
    give, the one whose schedule costs nearest to `budget` on `run`."""
    here, there = config.spec(cfg, run), config.spec(cfg, source)
    states, found = read_states(state_files(cfg, folder, source, cls.id())), []
    for params, chosen, state in swept(cls, there, states, config.overrides(cfg, cls.id(), source)):
        if refusal := chosen.supports(there) or chosen.supports(here):
            raise ValueError(refusal)
        mask = reindexed(chosen.schedule(there, state).compute, here.num_evaluations)
        share = cost.image_macs(here, cost.mask_rows(mask)) / cost.image_macs(here, cost.full_rows(here))
        found.append((params, share, Schedule(mask)))
    params, share, schedule = pick(cls, found, budget, cfg["tolerance"])
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

    from cachebench import trajectory

    samples = cfg["samples"]
    count, batch = min(samples["paired"], config.total(samples)), samples["batch_size"]
    parts = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    return torch.cat([trajectory.run(model, spec, session, *start(samples, spec.arch, part)).cpu() for part in parts])
