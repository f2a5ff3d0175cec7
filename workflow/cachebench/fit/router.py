"""Learning-to-Cache's router training (Ma et al., arXiv:2406.01733, Eqs. 6, 8, 9, and the two released trainers)."""

import copy
from dataclasses import dataclass

import torch

from cachebench.engine.device import fast_dtype, mixed, send
from cachebench.engine.doors import Session
from cachebench.engine.samplers import Plan
from cachebench.engine.schedule import PAIRINGS, router_keys
from cachebench.engine.seeds import generator
from cachebench.engine.spec import BRANCHES
from cachebench.fit import parallel
from cachebench.fit.loop import optimise


class Recorder(Session):
    """Keeps the branch values of the last evaluation, which computes everything."""

    def __init__(self):
        self.values = {}

    def branch(self, i, name, h, run):
        self.values[i, name] = run(h)
        return self.values[i, name]


class SoftGates(Session):
    """score * fresh + (1 - score) * cached at every branch; scores [2 * blocks], cached {(block, branch): value}, 0 where there
    is none. Written so that the gradient needs the difference alone; a cached value goes once it has been used."""

    def __init__(self, scores, cached):
        self.scores, self.cached = scores, cached

    def branch(self, i, name, h, run):
        cached = self.cached.pop((i, name), 0.0)
        return cached + self.scores[2 * i + BRANCHES.index(name)] * (run(h) - cached)


@dataclass(frozen=True)
class Pair:
    """What is trained for one cached evaluation."""

    evaluation: int  # the cached one; the full one precedes it
    key: int  # its router
    segment: Plan  # the solver's step, or the part of it, that ends where the cached evaluation begins
    level: tuple  # signal and noise of the images that the segment starts from
    time: float  # model time of the cached evaluation


def pairs(spec, pairing=PAIRINGS[0]):
    """[Pair, ...] in sampling order. Images are noised, and the cached evaluation is trained, at training times."""
    plan, found = spec.plan, []
    for evaluation, key in router_keys(plan.roles, pairing).items():
        first = evaluation - (2 if plan.roles[evaluation - 1] == "mid" else 1)
        (_, *level), (time, *_) = (spec.noise.trained(plan.timesteps[e]) for e in (first, evaluation))
        found.append(Pair(evaluation, key, plan.segment(first, evaluation), tuple(level), time))
    return found


def arrive(model, spec, pair, x0, y, eps, session):
    """x at the cached evaluation [B, C, H, W]: x0 noised by eps, then carried there by the run's own solver, unguided."""

    def denoise(x, evaluation):
        return model(x, torch.full((len(y),), pair.segment.timesteps[evaluation], device=x.device), y, session)

    a, b = pair.level
    x_s = a * x0 + b * eps
    return spec.solver.sample(denoise, x_s, pair.segment)


def pair_loss(model, spec, pair, logits, x0, y, eps, drop=False):
    """(squared error [B] of the mixed pass to the full one over all output channels, sum of the scores).

    x0, eps [B, C, H, W], y [B], logits [2 * blocks]. With `drop` nothing stands in for what a score leaves out."""
    recorder, scores = Recorder(), logits.sigmoid()
    t = torch.full((len(y),), pair.time, device=x0.device)
    with torch.no_grad():
        x_m = arrive(model, spec, pair, x0, y, eps, recorder)
        teacher = model(x_m, t, y).float()
    student = model(x_m, t, y, SoftGates(scores, {} if drop else recorder.values)).float()
    return of_sample((student - teacher).square(), spec.arch), scores.sum()


def of_sample(errors, arch):
    """The squared errors [B, C, H, W] of a sample as one number, [B], as the backbone's trainer was released."""
    return getattr(torch, arch.facts.ROUTERS["reduce"])(errors, dim=(1, 2, 3))


def batch(problem, size, label_dropout, g):
    """(x0, y, eps) of random calibration images, on the model's device; dropped labels are the null class."""
    device = next(problem.model.parameters()).device
    rows = torch.randint(len(problem.latents), (size,), generator=g)
    x0, y = problem.latents[rows], problem.labels[rows]
    y = torch.where(torch.rand(size, generator=g) < label_dropout, problem.spec.arch.num_classes, y)
    eps = torch.randn(x0.shape, generator=g)
    return tuple(send(values, device) for values in (x0, y, eps))


class Routers(torch.nn.Module):
    """A router for each row of `start` [evaluations, 2 * blocks]; routers(key) are the logits of one."""

    def __init__(self, start):
        super().__init__()
        self.rows = torch.nn.ParameterList(row.clone() for row in start)

    def forward(self, key):
        return self.rows[key].clone()  # DistributedDataParallel looks for the parameters that an output was computed from


def train_routers(
    problem,
    lambda_,
    iterations,
    lr=1e-3,
    batch_size=64,
    pairing=PAIRINGS[0],
    drop=False,
    label_dropout=0.1,
    seed=0,
    dtype=None,
    loss=None,
):
    """Routers of a run: ({"routers": [evaluations, 2 * blocks] logits, row = router key}, curve).

    AdamW without weight decay, N(0, 1) start, logits clamped to the backbone's `limit`; one pair per iteration for the batch
    and one label-dropout mask for all its passes. Rows that are never cached keep their start. The backbone is frozen. Its
    weights, the residual stream, logits and loss are float32 whatever the run's precision; products are in `dtype` (None:
    bfloat16 where the device computes in it), and so are the branches' values. Of n processes each draws a pair and
    batch_size / n images of its own; the curve is that of the first. `loss`: another way to compute `pair_loss`."""
    spec, limit = problem.spec, problem.spec.arch.facts.ROUTERS["limit"]
    rank, processes = parallel.place()
    if batch_size % processes:
        raise ValueError(f"batch_size: {batch_size} does not divide by the {processes} processes (gpu of rule fit)")
    chosen = pairs(spec, pairing)
    model = copy.deepcopy(problem.model).float().requires_grad_(False)
    device = next(model.parameters()).device
    dtype = dtype or fast_dtype(device.type)
    start = torch.randn(spec.num_evaluations, 2 * spec.arch.blocks, generator=generator("routers", seed))
    routers = Routers(start.to(device))
    shared = parallel.share(routers)
    optimizer = torch.optim.AdamW(routers.parameters(), lr=lr, weight_decay=0.0)

    def step(i):
        g = generator("router batch", seed, i, *[rank] * (rank > 0))
        pair = chosen[torch.randint(len(chosen), (), generator=g)]
        images = batch(problem, batch_size // processes, label_dropout, g)
        with mixed(device.type, dtype):
            errors, l1 = (loss or pair_loss)(model, spec, pair, shared(pair.key), *images, drop)
        optimizer.zero_grad()
        (errors.mean() + lambda_ * l1).backward()
        optimizer.step()
        with torch.no_grad():
            for row in routers.rows:
                if row.grad is not None:
                    row.clamp_(-limit, limit)
        return {"evaluation": pair.evaluation, "squared_error": errors.detach().mean(), "scores_sum": l1.detach()}

    weights = sum(p.double().sum().item() for p in model.parameters())
    key = [repr(spec), lambda_, iterations, lr, batch_size, pairing, drop, label_dropout, seed, len(problem.latents), weights]
    key += [processes, str(dtype)]
    curve = optimise(step, iterations, {"routers": routers}, optimizer, problem.checkpoint, key, log_every=1, desc="routers")
    return {"routers": torch.stack(list(routers.rows)).detach()}, curve
