"""Where along a trajectory the error arises: x at every evaluation of a setting against the full run's, from the same seeds."""

import math
from pathlib import Path

import torch

from cachebench.engine import doors, trajectory
from cachebench.engine.spec import BRANCHES
from cachebench.files import atomic
from cachebench.metrics.intervals import interval
from cachebench.plugin.loader import FAILURES, reason
from cachebench.run.folder import Folder
from cachebench.run.opening import open_setting, state_files
from cachebench.run.sample import start
from cachebench.setup import matrix

COLUMNS = ("method", "budget", "evaluation", "timestep", "latent_mse", "latent_mse_low", "latent_mse_high")
COLUMNS += ("computed", "computed_attn", "computed_mlp", "count", "reason")


def rows(cfg, run, folder, device):
    """Rows over COLUMNS for every setting of a run below `folder`; one that fails has a single row with its reason.

    `evaluation` counts the full run's; the one after its last is the sample, whose timestep is left empty. `computed` is the
    share of all branches of all images that the evaluation computed; its hit rate is the rest."""
    plan, out = matrix.spec(cfg, run).plan, []
    try:
        full, _ = states_of(cfg, open_named(cfg, run, folder, "full", 1.0, device))
    except FAILURES as error:
        return [{"method": "full", "budget": 1.0, "reason": reason(error)}]
    for name in matrix.method_ids(cfg, run)[1:]:
        for entry in atomic.read_json(Folder(folder).settings(run, name)):
            try:
                if why := not_scored(folder, run, name, entry["budget"]):
                    found = [{"reason": why}]
                elif entry.get("status"):
                    found = []
                else:
                    setting = open_named(cfg, run, folder, name, entry["budget"], device)
                    found = compared(*states_of(cfg, setting), setting.spec.plan, full, plan)
            except FAILURES as error:
                found = [{"reason": reason(error)}]
            out += [{"method": name, "budget": entry["budget"]} | row for row in found]
    return out


def not_scored(folder, run, name, budget):
    """Why a setting that can run has no scores: what died while it was sampled would die again. "" where it has, or nobody has
    looked."""
    path = Path(Folder(folder).scores(run, name))
    row = atomic.read_json(path)[str(budget)] if path.exists() else {}
    return row["reason"] if row.get("status") == "failed" else ""


def compared(own, computed, own_plan, full, plan):
    """A row for each place where both trajectories stand at the same noise level: all, for a method on the run's own steps;
    with fewer steps the start, the sample, and what the two grids share. States are [evaluations + 1, n, C, H, W], `computed`
    the shares [evaluations, blocks, branches]."""
    out = []
    for i, j in shared(places(own_plan), places(plan)):
        mean, low, high = interval(distance(own[i], full[j]), ratio=True)
        about = {"evaluation": j, "timestep": plan.timesteps[j] if j < len(plan.timesteps) else None, "count": full.shape[1]}
        if i < len(computed):
            about |= {"computed": computed[i].mean().item()}
            about |= {f"computed_{name}": computed[i, :, j].mean().item() for j, name in enumerate(BRANCHES)}
        out.append(about | {"latent_mse": mean, "latent_mse_low": low, "latent_mse_high": high})
    return out


def places(plan):
    """[(signal, role)] of every evaluation, then of the sample, which has none."""
    return list(zip(plan.signal, (*plan.roles, None), strict=True))


def shared(own, full):
    """[(index, index)] of equal places."""
    return [
        (i, j)
        for i, (a, role) in enumerate(own)
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
    samples, count = cfg["samples"], min(cfg["trace"]["count"], matrix.total(cfg["samples"]))
    session, batch = doors.Counted(setting.session()), samples["batch_size"]
    parts = [range(first, min(first + batch, count)) for first in range(0, count, batch)]
    spec = setting.spec
    found = [states(setting.model, spec, session, *start(samples, spec.arch, part)) for part in parts]
    return torch.cat(found, dim=1), session.shares(spec.mask_shape, count * spec.rows)


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
