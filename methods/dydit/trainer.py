"""DyDiT's training: the denoising loss under sampled masks, and how far the MACs that these leave are from the wanted share."""

import numpy as np
import torch

from cachebench.engine import cost, trajectory
from cachebench.engine.device import send
from cachebench.engine.doors import Counted
from cachebench.engine.seeds import generator
from cachebench.fit import calibrate
from cachebench.fit.finetune import Recipe, dropped, finetune, trainable
from cachebench.plugin.tuned import state_of

from .routers import Routers, Sampled, largest, time_embedding
from .switched import Recorded

WEIGHT = 2.0  # of the share's loss, as released; the paper writes 1
HELD = 100  # iterations at most in which the wanted share stays 1
ROUNDS = 6  # of the search for the shift
NEAR = 0.002  # of the wanted share: no further search


class Trainee(torch.nn.Module):
    """The network and its routers; an iteration as `finetune` calls it."""

    def __init__(self, network, routers, method):
        super().__init__()
        self.network, self.routers, self.method = network, routers, method

    def forward(self, i, batch, g):
        arch, method = self.network.arch, self.method
        y = dropped(batch.y, Recipe.label_dropout, arch.num_classes, g)
        noise = {name: send(values, y.device) for name, values in gumbel(arch, len(y), g).items()}
        again = dropped(batch.y, Recipe.label_dropout, arch.num_classes, g) if i < method.complete else None
        return iteration(self.network, self.routers, batch, y, again, noise, wanted(i, method.share, method.warmup))


def iteration(network, routers, batch, y, complete, noise, share):
    """{"loss": of an iteration, "denoising": of its masked pass, "rate": the share of the MACs that the masks leave}. y [B]:
    the labels of the masked pass; `complete`: those of a pass with everything on, or None."""
    session = Sampled(network, routers, noise, batch.t)
    denoising = sum(batch.losses(network(batch.x, batch.t, y, session))).mean()
    rate = session.rate()
    loss = denoising + WEIGHT * (rate - share).square()
    if complete is not None:
        loss = loss + sum(batch.losses(network(batch.x, batch.t, complete))).mean()
    return {"loss": loss, "denoising": denoising, "rate": rate}


def wanted(i, share, warmup):
    """The share that iteration i is held against."""
    return 1.0 if i < min(HELD, warmup / 10) else 1 - (1 - share) * min(1.0, i / max(warmup, 1))


def gumbel(arch, size, g):
    """Differences of two Gumbel draws, which are logistic: {"head", "channel": [B, blocks, H - 1], "token": [B, blocks, T]}."""
    counts = {"head": arch.heads - 1, "token": arch.tokens, "channel": arch.heads - 1}
    shapes = {name: (size, arch.blocks, count) for name, count in counts.items()}
    return {name: torch.rand(shape, generator=g).clamp(1e-6, 1 - 1e-6).logit() for name, shape in shapes.items()}


def fitted(method, problem):
    """(state, curve) of a `DyDiT`: the averaged network and routers, the table of the time's routers, and the shift."""
    arch, device = problem.spec.arch, next(problem.model.parameters()).device
    routers = Routers(arch, method.part, generator("dydit")).to(device)
    if method.always == "largest":
        routers.always.copy_(largest(problem.model, arch))
    recipe = Recipe(method.iterations, method.batch_size, method.ema, method.clip, method.sampled_rows)
    trainee = Trainee(trainable(problem.model), routers, method)
    rates = {"network": method.network_lr, "routers": method.router_lr}
    key = [method.share, method.part, method.always, method.complete, method.warmup]
    average, curve = finetune(problem, trainee, rates, recipe, key, desc="dydit")
    state = state_of(problem.model, average.network) | table(average.network, average.routers, problem.spec)
    state["shift"] = torch.tensor(matched_shift(problem, average.network, state, method.share, method.samples))
    return state, curve or [{"step": 0, "rate": 1.0}]


@torch.no_grad()
def table(network, routers, spec):
    """The part of a state that decides: logits of the time's routers at the run's evaluations, `heads` and `groups`
    [evaluations, blocks, H - 1], the tokens' routers, and what is `always` on; without those that switch nothing."""
    deciding = {"always": routers.always}
    if routers.heads:
        weight = next(network.parameters())
        times = torch.tensor(spec.plan.timesteps, device=weight.device, dtype=torch.float32)
        embedding = time_embedding(network, times)
        for name in ("heads", "groups"):
            deciding[name] = torch.stack([layer(embedding) for layer in getattr(routers, name)], dim=1)
    for at, layer in ((0, "first"), (2, "last")) if routers.tokens else ():
        for kind in ("weight", "bias"):
            deciding[f"{layer}/{kind}"] = torch.stack([getattr(router[at], kind) for router in routers.tokens])
    return deciding


def matched_shift(problem, network, state, share, samples):
    """What to add to the logits of the tokens' routers, or without these of the time's, so that the first samples' trajectories
    cost the share of the full run, as near as ROUNDS trials come."""
    network = network.to(next(problem.model.parameters()).dtype).eval()
    state = {name: value.cpu().numpy() for name, value in state.items()}

    def tried(shift):
        """(counted share, the logits that are shifted)."""
        session = Counted(inner := Recorded(network, problem.spec, state, shift))
        for start in calibrate.starts(problem, samples):
            trajectory.run(network, problem.spec, session, *start)
        rows = {site: count / (samples * problem.spec.rows) for site, count in session.rows.items()}
        full = cost.image_macs(problem.spec, cost.full_rows(problem.spec))
        return cost.image_macs(problem.spec, rows) / full, inner.logits()

    counted, logits = tried(0.0)
    logits, best, ends = np.sort(logits), (abs(counted - share), 0.0), [(0, 1.0), (len(logits), 0.0)]
    for turn in range(ROUNDS):  # over how many are off, between `ends` whose shares lie on either side
        (low, above), (high, below) = ends
        if best[0] < NEAR or high - low < 2:
            break
        part = (above - share) / (above - below) if turn % 2 == 0 else 0.5
        middle = min(max(low + round(part * (high - low)), low + 1), high - 1)
        shift = -float(logits[middle - 1 : middle + 1].mean())
        counted, _ = tried(shift)
        best = min(best, (abs(counted - share), shift))
        ends = [(middle, counted), ends[1]] if counted > share else [ends[0], (middle, counted)]
    return best[1]
