"""Where along a trajectory the error arises: x at every evaluation of a setting against the full run's, from the same seeds.
And how far a forecaster's stand-ins are off."""

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from cachebench.engine import doors, trajectory
from cachebench.engine.device import send
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.metrics.intervals import interval
from cachebench.plugin import forecast, loader
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.folder import Folder
from cachebench.run.opening import open_setting, state_files
from cachebench.run.sample import parts, start
from cachebench.setup import matrix

COLUMNS = ("method", "budget", "evaluation", "timestep", "latent_mse", "latent_mse_low", "latent_mse_high")
COLUMNS += ("computed", "computed_attn", "computed_mlp", "count", "reason")
STANDS_IN = ("stand_in", "reuse")  # errors of the network's output on the full run's trajectory
COLUMNS += tuple(f"{name}{end}" for name in STANDS_IN for end in ("", "_low", "_high"))


def rows(cfg, run, folder, device):
    """Rows over COLUMNS for every setting of a run below `folder`; one that fails has a single row with its reason.

    `evaluation` counts the full run's; the one after its last is the sample, whose timestep is left empty. `computed` is the
    share of all branches of all images that the evaluation computed; its hit rate is the rest. `stand_in` and `reuse` are of
    methods with a forecaster (see `stood_in`)."""
    plan, out = matrix.spec(cfg, run).plan, []
    try:
        uncached = open_named(cfg, run, folder, "full", 1.0, device)
        full, _ = states_of(cfg, uncached)
        outputs = cache(lambda: outputs_at(cfg, uncached, full))  # only where a method forecasts
    except FAILURES as error:
        return [{"method": "full", "budget": 1.0, "reason": reason(error)}]
    for name in matrix.method_ids(cfg, run)[1:]:
        for entry in atomic.read_json(Folder(folder).settings(run, name)):
            try:
                if why := not_scored(folder, run, name, entry["budget"]):
                    setting_rows = [{"reason": why}]
                elif entry.get("status"):
                    setting_rows = []
                else:
                    setting = open_named(cfg, run, folder, name, entry["budget"], device)
                    setting_rows = compared(*states_of(cfg, setting), setting.spec.plan, full, plan)
                    if setting.method.forecaster and setting.spec.plan == plan:
                        errors = stood_in(cfg, setting, full, outputs())
                        setting_rows = [row | error for row, error in zip(setting_rows, [*errors, {}], strict=True)]
            except FAILURES as error:
                setting_rows = [{"reason": reason(error)}]
            out += [{"method": name, "budget": entry["budget"]} | row for row in setting_rows]
    return out


def not_scored(folder, run, name, budget):
    """Why a setting that can run has no scores: what died while it was sampled would die again. "" where it has, or nobody has
    looked."""
    path = Path(Folder(folder).scores(run, name))
    row = atomic.read_json(path)[str(budget)] if path.exists() else {}
    return row["reason"] if row.get("status") == "failed" else ""


def compared(traced, computed, own_plan, full, plan):
    """A row for each place where both trajectories stand at the same noise level: all, for a method on the run's own steps;
    with fewer steps the start, the sample, and what the two grids share. States are [evaluations + 1, n, C, H, W], `computed`
    the shares [evaluations, blocks, branches]."""
    out = []
    for i, j in shared(places(own_plan), places(plan)):
        mean, low, high = interval(distance(traced[i], full[j]), ratio=True)
        columns = {"evaluation": j, "timestep": plan.timesteps[j] if j < len(plan.timesteps) else None, "count": full.shape[1]}
        if i < len(computed):
            columns |= {"computed": computed[i].mean().item()}
            columns |= {f"computed_{name}": computed[i, :, j].mean().item() for j, name in enumerate(BRANCHES)}
        out.append(columns | {"latent_mse": mean, "latent_mse_low": low, "latent_mse_high": high})
    return out


def stood_in(cfg, setting, full, outputs):
    """For each evaluation, how far a setting's output is from the full run's where it stands at the full run's states: the
    squared difference over the output's square, a mean over images with its interval. {"stand_in"}: with the method's
    forecaster, {"reuse"}: with the last computed value in its place. Nothing where the output is computed."""
    plain = loader.derived(type(setting.method), {"forecaster": forecast.Taylor(0)})(**setting.entry["params"])
    methods, errors = dict(zip(STANDS_IN, (setting.method, plain), strict=True)), [{} for _ in outputs]
    for name, method in methods.items():
        setting_outputs = outputs_at(cfg, replace(setting, method=method), full)
        for told, output, true in zip(errors, setting_outputs, outputs, strict=True):
            relative = distance(output, true) / distance(true, torch.zeros_like(true))
            if relative.any():
                ends = (name, f"{name}_low", f"{name}_high")
                told |= dict(zip(ends, interval(relative, ratio=True), strict=True))
    return errors


@torch.inference_mode()
def outputs_at(cfg, setting, states):
    """The network's output after guidance at every evaluation of a setting, at states [evaluations + 1, n, C, H, W] that may be
    another's: float32 [evaluations, n, C', H, W] on the CPU."""
    session, spec, device = setting.session(), setting.spec, next(setting.model.parameters()).device
    of_parts = []
    for part in batches(cfg):
        session.reset()
        denoise = trajectory.denoiser(setting.model, spec, session, start(cfg["samples"], spec.arch, part)[1])
        given = [send(x[part.start : part.stop], device) for x in states[: spec.num_evaluations]]
        of_parts.append(torch.stack([denoise(x, evaluation).cpu() for evaluation, x in enumerate(given)]))
        session.reset()
    return torch.cat(of_parts, dim=1)


def places(plan):
    """[(signal, role)] of every evaluation, then of the sample, which has none."""
    return list(zip(plan.signal, (*plan.roles, None), strict=True))


def shared(setting_places, full):
    """[(index, index)] of equal places."""
    return [
        (i, j)
        for i, (a, role) in enumerate(setting_places)
        for j, (b, other) in enumerate(full)
        if role == other and math.isclose(a, b, rel_tol=1e-6)
    ]


def distance(x, full):
    """Mean squared difference of each image: [n, C, H, W] twice -> float64 [n]."""
    return (x.double() - full.double()).square().flatten(1).mean(1).numpy()


def open_named(cfg, run, folder, name, budget, device):
    """The Setting of a method at a budget, from the results below `folder`."""
    chosen = Folder(folder).settings(run, name)
    return open_setting(cfg, run, name, budget, chosen, state_files(cfg, folder, run, name), device)


def states_of(cfg, setting):
    """(states of the first `trace.count` samples of a setting, float32 [evaluations + 1, n, C, H, W] on the CPU; shares that
    they computed, [evaluations, blocks, branches])."""
    session, spec = doors.Counted(setting.session()), setting.spec
    of_parts = [states(setting.model, spec, session, *start(cfg["samples"], spec.arch, part)) for part in batches(cfg)]
    traced = torch.cat(of_parts, dim=1)
    return traced, session.shares(spec.mask_shape, traced.shape[1] * spec.rows)


def batches(cfg):
    """The samples that are traced, as ranges."""
    return parts(min(cfg["trace"]["count"], matrix.total(cfg["samples"])), cfg["samples"]["batch_size"])


@torch.inference_mode()
def states(model, spec, session, noise, labels, draw):
    """What the network is given at each evaluation, and the sample: [evaluations + 1, B, C, H, W] on the CPU."""
    seen, denoise = [], trajectory.denoiser(model, spec, session, labels)

    def noted(x, evaluation):
        seen.append(x)
        return denoise(x, evaluation)

    session.reset()
    sample = spec.solver.sample(noted, noise.to(next(model.parameters()).device), spec.plan, draw)
    return torch.stack([*seen, sample]).cpu()
