"""Depth on demand's training, intermediate losses and stochastic depth, and the choice of what goes first."""

import torch

from cachebench.engine.device import send
from cachebench.engine.doors import Session
from cachebench.engine.seeds import generator
from cachebench.fit import calibrate, objective
from cachebench.fit.finetune import Batch, Recipe, dropped, finetune, trainable
from cachebench.plugin.tuned import state_of

from .units import droppable, units

PARTS = 4  # the network is left behind each quarter of its layers
BATCH = 64  # samples of the choice that pass at once


class Trained(Session):
    """The network at stochastic depth. `keep` [B or 1, units]: 0 where a unit is skipped, else the factor of what it adds;
    None: all is computed. `after` holds what leaves the blocks `exits`, counted from 1."""

    def __init__(self, arch, keep, exits=()):
        self.unit = {block: n for n, unit in enumerate(units(arch)) for block in unit}
        self.keep, self.exits, self.after = keep, exits, {}

    def block(self, i, h, run):
        out = run(h)
        if self.keep is not None and i in self.unit:
            out = h + self.keep[:, self.unit[i], None, None].to(h.dtype) * (out - h)
        if i + 1 in self.exits:
            self.after[i + 1] = out
        return out


class Exit(Session):
    """Takes h for what leaves the blocks: the network's ends around it."""

    def __init__(self, h):
        self.h = h

    def trunk(self, h, run):
        return self.h


class Without(Session):
    """Leaves out some blocks."""

    def __init__(self, blocks):
        self.blocks = set(blocks)

    def block(self, i, h, run):
        return h if i in self.blocks else run(h)


def exits(arch):
    """How many units, from the first, the intermediate losses are of."""
    count = len(units(arch))
    return [n for n in dict.fromkeys(round(count * part / PARTS) for part in range(1, PARTS)) if 0 < n < count]


def kept(arch, drop, rows, g):
    """[rows, units]: 0 where a unit is skipped, else the inverse of the probability that it is not; None where none is. The
    probability rises to `drop` at the last unit."""
    if not drop:
        return None
    count = len(units(arch))
    p = drop * torch.arange(1, count + 1) / count
    return (torch.rand(rows, count, generator=g) >= p) / (1 - p)


class Trainee(torch.nn.Module):
    """The network; an iteration as `finetune` calls it."""

    def __init__(self, network, method):
        super().__init__()
        self.network, self.method = network, method

    def forward(self, i, batch, g):
        arch, method = self.network.arch, self.method
        y = dropped(batch.y, Recipe.label_dropout, arch.num_classes, g)
        keep = kept(arch, method.drop, len(y) if method.draw == "sample" else 1, g)
        keep = None if keep is None else send(keep, y.device)
        chosen = exits(arch)
        if arch.kind == "uvit" and chosen:  # one of them, since each is a pass of its own
            chosen = [chosen[torch.randint(len(chosen), (), generator=g)]]
        return iteration(self.network, batch, y, keep, method.weight, chosen)


def iteration(network, batch, y, keep, weight, chosen):
    """{"loss", "final": the denoising loss of the whole network, "between": the mean of those behind `chosen` units}. U-ViT is
    not left behind a unit: the inner pairs are skipped."""
    session = Trained(network.arch, keep, () if network.arch.kind == "uvit" or not weight else chosen)
    final = sum(batch.losses(network(batch.x, batch.t, y, session))).mean()
    if not weight or not chosen:
        return {"loss": final, "final": final}
    if network.arch.kind == "uvit":
        inner = [[block for unit in units(network.arch)[n:] for block in unit] for n in chosen]
        passes = [Without(blocks) for blocks in inner]
    else:
        passes = [Exit(session.after[n]) for n in chosen]
    between = torch.stack([sum(batch.losses(network(batch.x, batch.t, y, skipping))).mean() for skipping in passes]).mean()
    return {"loss": (1 - weight) * final + weight * between, "final": final, "between": between}


def fitted(method, problem):
    """(state, curve) of a `DepthOnDemand`: the averaged network, and the orders in which its units go."""
    recipe = Recipe(method.iterations, method.batch_size, method.ema, sampled_rows=method.sampled_rows)
    trainee = Trainee(trainable(problem.model), method)
    key = [method.weight, method.drop, method.draw]
    average, curve = finetune(problem, trainee, {"network": method.network_lr}, recipe, key, desc="depth_on_demand")
    network = average.network.eval()
    greedy, losses = by_loss(problem, network, method.samples)
    orders = {"order/greedy": greedy, "order/similarity": by_similarity(problem, network, method.samples)}
    state = state_of(problem.model, network if method.iterations else None)
    state |= {name: torch.tensor(order, dtype=torch.long) for name, order in orders.items()}
    return state, curve or [{"removed": n, "loss": loss} for n, loss in enumerate(losses)]


def batches(problem, samples):
    """`Batch`es of the first samples of the calibration set, without dropped labels, under noise and at times of their own; the
    times are spread evenly."""
    noise, rows = problem.spec.noise, calibrate.first(problem, samples)
    device = next(problem.model.parameters()).device
    for part in (rows[k : k + BATCH] for k in range(0, samples, BATCH)):
        n = torch.tensor([(row * 1000 + 500) // samples for row in part]).to(device)
        eps = torch.stack([torch.randn(problem.spec.arch.sample_shape, generator=generator("depth", row)) for row in part])
        x0, y, eps = problem.latents[part].to(device), problem.labels[part].to(device), eps.to(device)
        yield Batch(x0, y, n, noise.at(n)[0], eps, objective.noised(noise, x0, n, eps), noise)


@torch.no_grad()
def loss_without(problem, network, samples, blocks):
    """The mean squared error of the noise without some blocks."""
    session, errors = Without(blocks), []
    for batch in batches(problem, samples):
        errors.append(batch.losses(network(batch.x, batch.t, batch.y, session))[0])
    return torch.cat(errors).mean().item()


def by_loss(problem, network, samples):
    """(the units in the order in which each raises the loss least, the losses with 0, 1, ... of them gone)."""
    arch, order, left = problem.spec.arch, [], droppable(problem.spec.arch)
    losses = [loss_without(problem, network, samples, [])]
    while left:
        gone = [block for unit in order for block in units(arch)[unit]]
        tried = {unit: loss_without(problem, network, samples, [*gone, *units(arch)[unit]]) for unit in left}
        order.append(min(tried, key=tried.get))
        losses.append(tried[order[-1]])
        left.remove(order[-1])
    return order, losses


class Similarities(Session):
    """Sums of the cosine between what enters and what leaves a block, [blocks], over tokens and samples."""

    def __init__(self, blocks):
        self.sums = torch.zeros(blocks, dtype=torch.float64)

    def block(self, i, h, run):
        out = run(h)
        self.sums[i] += torch.cosine_similarity(h.float(), out.float(), dim=-1).double().sum().cpu()
        return out


@torch.no_grad()
def by_similarity(problem, network, samples):
    """The units in the order of the cosine between what enters and what leaves them, the largest first."""
    arch, session = problem.spec.arch, Similarities(problem.spec.arch.blocks)
    for batch in batches(problem, samples):
        network(batch.x, batch.t, batch.y, session)
    return sorted(droppable(arch), key=lambda unit: -session.sums[list(units(arch)[unit])].mean().item())
