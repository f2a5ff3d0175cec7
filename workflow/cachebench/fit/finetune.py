"""Fine-tuning of a network together with what a method adds to it: batches of training images, AdamW, a weight average."""

import copy
from dataclasses import dataclass

import torch

from cachebench.engine.backbones import checkpoints
from cachebench.engine.device import fast_dtype, mixed, send
from cachebench.engine.noise import TRAIN_STEPS
from cachebench.engine.seeds import generator
from cachebench.files.weights import digest
from cachebench.fit import objective, parallel
from cachebench.fit.loop import optimise
from cachebench.fit.sampled import sample_rows


@dataclass(frozen=True)
class Batch:
    """Training images under noise: x0, eps, x [B, C, H, W], labels y [B] without drops, nodes n [B], network times t [B]."""

    x0: torch.Tensor
    y: torch.Tensor
    n: torch.Tensor
    t: torch.Tensor
    eps: torch.Tensor
    x: torch.Tensor
    noise: object

    def losses(self, out):
        """(squared error [B], bound [B]) of the network's output."""
        return objective.losses(out, self.noise, self.x0, self.x, self.n, self.eps)


@dataclass(frozen=True)
class Recipe:
    iterations: int
    batch_size: int
    ema: float
    clip: float = float("inf")  # an iteration whose gradient has at least this norm is left out
    sampled_rows: float = 1.0  # of the rows that a weight's gradient is a sum over, the share that is kept (see `fit.sampled`)
    label_dropout: float = 0.1
    seed: int = 0


def trainable(model):
    """A copy of a frozen network in float32, whose weights learn as those of a fresh one do."""
    twin = copy.deepcopy(model).float()
    with torch.device("meta"):
        fresh = dict(checkpoints.build(model.arch).named_parameters())
    for name, parameter in twin.named_parameters():
        parameter.requires_grad_(fresh[name].requires_grad)
    return twin


def batch(spec, latents, labels, size, g, device):
    """A `Batch` of random images. Image j has a random time of quarter j mod 4."""
    rows = torch.randint(len(latents), (size,), generator=g)
    quarter = TRAIN_STEPS // 4
    n = torch.randint(quarter, (size,), generator=g) + quarter * (torch.arange(size) % 4)
    x0 = latents[rows]
    eps = torch.randn(x0.shape, generator=g)
    x0, y, n, eps = (send(values, device) for values in (x0, labels[rows], n, eps))
    return Batch(x0, y, n, spec.noise.at(n)[0], eps, objective.noised(spec.noise, x0, n, eps), spec.noise)


def dropped(y, share, null, g):
    """The labels [B], of which a share is replaced by the null class."""
    return torch.where(send(torch.rand(len(y), generator=g) < share, y.device), null, y)


def finetune(problem, trainee, rates, recipe, key, desc):
    """Trains the module `trainee`, and returns (its weight average, the curve).

    `trainee(i, batch, g)` -> {"loss": what is descended, and what else the curve shows}; its randomness is from g alone, a
    generator of iteration i. `rates` {attribute of the trainee: learning rate}. `key` says what the training depends on besides
    the recipe and the network. AdamW without weight decay at constant rates; products are in bfloat16 where the device computes
    in it. Of n processes each draws batch_size / n images of its own."""
    spec, (latents, labels) = problem.spec, problem.training()
    device, (rank, processes) = next(trainee.parameters()).device, parallel.place()
    if recipe.batch_size % processes:
        raise ValueError(f"batch_size: {recipe.batch_size} does not divide by the {processes} processes (gpu of rule fit)")
    average = copy.deepcopy(trainee).requires_grad_(False)
    draws = sample_rows(trainee, recipe.sampled_rows, recipe.seed)
    groups = [{"params": learners(getattr(trainee, name)), "lr": rate} for name, rate in rates.items()]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)
    shared, everything = parallel.share(trainee), learners(trainee)
    dtype = fast_dtype(device.type)

    def step(i):
        g = generator("finetune", recipe.seed, i, *[rank] * (rank > 0))
        draws.begin(i, rank)
        images = batch(spec, latents, labels, recipe.batch_size // processes, g, device)
        with mixed(device.type, dtype):
            row = shared(i, images, g)
        optimizer.zero_grad()
        row["loss"].backward()
        norm = torch.nn.utils.clip_grad_norm_(everything, recipe.clip) if recipe.clip < float("inf") else 0.0
        if norm < recipe.clip:  # the one wait for the device, where there is a bound
            optimizer.step()
        with torch.no_grad():  # a short memory at first, as the backbones' training has it
            keep = min(recipe.ema, (1 + i) / (10 + i))
            torch._foreach_lerp_(list(average.parameters()), list(trainee.parameters()), 1 - keep)
        return {name: value.detach() for name, value in row.items()}

    key = [repr(spec), repr(recipe), rates, key, len(latents), digest(problem.model), processes, str(dtype)]
    modules = {"trainee": trainee, "average": average}
    curve = optimise(step, recipe.iterations, modules, optimizer, problem.checkpoint, key, log_every=10, desc=desc)
    return average, curve


def learners(module):
    return [p for p in module.parameters() if p.requires_grad]
