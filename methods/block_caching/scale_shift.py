"""Block Caching's scale-shift adjustment of reused values, trained by distillation (arXiv:2312.03209, section 3.3)."""

import torch

from cachebench.engine.doors import BARE, ScheduledSession
from cachebench.engine.seeds import generator
from cachebench.engine.spec import BRANCHES
from cachebench.engine.trajectory import denoiser
from cachebench.fit.calibrate import start
from cachebench.fit.loop import optimise


def stand_in(tables):
    """predict(history, site, evaluation) -> value * (1 + scale) + shift, of the last computed value, for a ScheduledSession.

    `tables[evaluation]`: [scale and shift, blocks, branches, width]; of zeros they change nothing, to the bit."""

    def predict(history, site, evaluation):
        scale, shift = tables[evaluation][:, site[0], BRANCHES.index(site[1])]
        return history[-1][1].detach() * (1 + scale) + shift  # detached: an evaluation's loss ends with it

    return predict


def distil(problem, session, noise, labels, draw):
    """One trajectory of the student `session` from `noise`: adds its gradient, and returns its loss [evaluations].

    The student follows its own trajectory; at each of its states the teacher, which reuses nothing, gives the target."""
    model, spec, losses = problem.model, problem.spec, []
    student, teacher = (denoiser(model, spec, each_session, labels) for each_session in (session, BARE))

    def denoise(x, evaluation):
        with torch.no_grad():
            target = teacher(x, evaluation)
        out = student(x, evaluation)
        losses.append((out - target).square().mean())
        if losses[-1].requires_grad:  # something was reused
            losses[-1].backward()
        return out.detach()

    spec.solver.sample(denoise, noise.to(next(model.parameters()).device), spec.plan, draw)
    return torch.stack(losses).detach()


def train_scale_shift(problem, schedules, iterations, lr=1e-4, batch_size=16, seed=0):
    """(tables [evaluations, scale and shift, blocks, branches, width], curve); each iteration draws one of `schedules`.

    AdamW without weight decay on the tables alone, mean squared error of the guided output; the paper says neither."""
    model, spec = problem.model.requires_grad_(False), problem.spec
    evaluations, *sites = spec.mask_shape
    device = next(model.parameters()).device
    tables = torch.nn.ParameterList(torch.zeros(2, *sites, spec.arch.width, device=device) for _ in range(evaluations))
    optimizer = torch.optim.AdamW(tables.parameters(), lr=lr, weight_decay=0.0)

    def step(i):
        g = generator("scale shift", seed, i)
        schedule = schedules[torch.randint(len(schedules), (), generator=g)]
        rows = torch.randint(len(problem.latents), (batch_size,), generator=g).tolist()
        session = ScheduledSession(schedule, stand_in(tables))
        optimizer.zero_grad()
        losses = distil(problem, session, *start(problem, rows, seed, i))
        optimizer.step()
        return {"mse": losses.mean(), "computed": schedule.compute.mean()}

    weights = sum(p.double().sum().item() for p in model.parameters())
    masks = sum(int(schedule.compute.sum()) for schedule in schedules)
    key = [repr(spec), iterations, lr, batch_size, seed, len(problem.latents), weights, masks]
    curve = optimise(step, iterations, {"tables": tables}, optimizer, problem.checkpoint, key, log_every=1, desc="scale-shift")
    return torch.stack(list(tables)).detach(), curve
