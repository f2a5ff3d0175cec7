"""Learning-to-Cache's router training for DDIM pairs (Ma et al., arXiv:2406.01733, Eqs. 6, 8, 9 and the released trainer)."""

import torch

from cachebench.cache import Session
from cachebench.samplers import ddim
from cachebench.schedule import router_keys
from cachebench.seeds import generator
from cachebench.spec import BRANCHES
from cachebench.train.loop import optimise


class Recorder(Session):
    """Keeps every branch value of a full pass."""

    def __init__(self):
        self.values = {}

    def branch(self, i, name, h, run):
        self.values[i, name] = run(h)
        return self.values[i, name]


class SoftGates(Session):
    """score * fresh + (1 - score) * cached at every branch; scores [2 * blocks], cached as recorded."""

    def __init__(self, scores, cached):
        self.scores, self.cached = scores, cached

    def branch(self, i, name, h, run):
        score = self.scores[2 * i + BRANCHES.index(name)]
        return score * run(h) + (1 - score) * self.cached[i, name]


def pair_loss(model, plan, evaluation, logits, x0, y, eps):
    """(mean squared error of the mixed pass to the full one over all output channels, sum of the scores).

    x0, eps [B, C, H, W], y [B]; `evaluation` is the cached one, the full one precedes it; logits [2 * blocks]."""
    C = x0.shape[1]
    s, m = evaluation - 1, evaluation
    a_s, a_m = plan.alphas[s], plan.alphas[m]
    t_s, t_m = (torch.full((len(x0),), plan.timesteps[e], device=x0.device) for e in (s, m))
    recorder, scores = Recorder(), logits.sigmoid()
    with torch.no_grad():
        x_s = a_s**0.5 * x0 + (1 - a_s) ** 0.5 * eps
        x_m = ddim.step(x_s, model(x_s, t_s, y, recorder)[:, :C], a_s, a_m)
        teacher = model(x_m, t_m, y)
    student = model(x_m, t_m, y, SoftGates(scores, recorder.values))
    return (student - teacher).square().mean(), scores.sum()


def train_routers(problem, lambda_, iterations, lr=1e-3, batch_size=64, label_dropout=0.1, seed=0):
    """Routers of a run: ({"routers": [num_steps, 2 * blocks] logits, row = router key}, curve).

    AdamW without weight decay, N(0, 1) start, logits clamped to [-5, 5]; one pair per iteration for the whole batch and one
    label-dropout mask for its three passes. The backbone is frozen. Rows that are never cached keep their start."""
    model, spec = problem.model, problem.spec
    plan = spec.plan
    device = next(model.parameters()).device
    keys = router_keys(plan.roles)
    model.requires_grad_(False)
    start = torch.randn(len(plan.roles), 2 * spec.arch.depth, generator=generator("routers", seed))
    routers = torch.nn.ParameterList(row.clone().to(device) for row in start)
    optimizer = torch.optim.AdamW(routers.parameters(), lr=lr, weight_decay=0.0)
    pairs = list(keys.items())

    def step(i):
        g = generator("router batch", seed, i)
        evaluation, key = pairs[torch.randint(len(pairs), (), generator=g)]
        rows = torch.randint(len(problem.latents), (batch_size,), generator=g)
        x0, y = problem.latents[rows], problem.labels[rows]
        y = torch.where(torch.rand(batch_size, generator=g) < label_dropout, spec.arch.num_classes, y)
        eps = torch.randn(x0.shape, generator=g)
        mse, l1 = pair_loss(model, plan, evaluation, routers[key], x0.to(device), y.to(device), eps.to(device))
        optimizer.zero_grad()
        (mse + lambda_ * l1).backward()
        optimizer.step()
        with torch.no_grad():
            routers[key].clamp_(-5, 5)
        return {"evaluation": evaluation, "mse": mse.detach(), "scores_sum": l1.detach()}

    weights = sum(p.double().sum().item() for p in model.parameters())
    key = [lambda_, iterations, lr, batch_size, label_dropout, seed, len(problem.latents), weights]
    curve = optimise(step, iterations, {"routers": routers}, optimizer, problem.checkpoint, key, log_every=1, desc="routers")
    return {"routers": torch.stack(list(routers)).detach()}, curve
