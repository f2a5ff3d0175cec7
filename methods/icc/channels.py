"""ICC's calibration: how much every channel of a layer's input and output carries, or changes in a step (arXiv:2505.05829)."""

from functools import partial

import torch

from cachebench.engine.doors import Session
from cachebench.engine.seeds import generator
from cachebench.fit import calibrate

from .layers import PARTS

DROPPED = 0.1  # share of the labels that are replaced by the null class
POWER, SPREAD, SMALL = 0.5, 1000, 1e-6  # of the weights; the largest is at most so many times the smallest


class Activations(Session):
    """Mean magnitudes [rows, channels] of what enters and leaves every layer: `means` {(block, layer): (in, out)}; with
    `before` those of the differences to it. `kept` holds the activations themselves where they are asked for."""

    def __init__(self, before=None, keep=False):
        self.before, self.means, self.kept, self.keep = before, {}, {}, keep

    def branch(self, i, name, h, run):
        return run.values(run.input(h), layer=partial(self.note, i))

    def note(self, i, name, linear, x):
        y = linear(x)
        if self.keep:
            self.kept[i, name] = x, y
        past = self.before[i, name] if self.before else (0.0, 0.0)
        self.means[i, name] = tuple((value - other).abs().float().mean(1) for value, other in zip((x, y), past, strict=True))
        return y


def one_batch(model, spec, x0, labels, noise, evaluations, differences=False):
    """{(block, layer): (in, out)} as `Activations.means`, of x0 [B, C, H, W] under `noise` at one evaluation for each image;
    with `differences` of what a step from there changes, of DDIM or, along a flow, of Euler."""
    plan, device = spec.plan, next(model.parameters())
    x0, noise, labels = x0.to(device), noise.to(device), labels.to(device.device)

    def at(values, later=0):
        return torch.tensor([values[e + later] for e in evaluations]).to(device)

    def call(x, later, session):
        return model(x, at(plan.timesteps, later), labels, session)

    def levels(later):
        return (at(of, later).view(-1, 1, 1, 1) for of in (plan.signal, plan.noise))

    a, b = levels(0)
    x = a * x0 + b * noise
    first = Activations(keep=differences)
    out = call(x, 0, first)
    if not differences:
        return first.means
    data, eps = (p * x + q * out[:, : x.shape[1]] for p, q in (spec.noise.data(a, b), spec.noise.eps(a, b)))
    a, b = levels(1)
    x = a * data + b * eps
    second = Activations(before=first.kept)
    call(x, 1, second)
    return second.means


def spread(magnitudes):
    """[rows, channels] from 0 to 1 within every row."""
    low, high = magnitudes.amin(1, keepdim=True), magnitudes.amax(1, keepdim=True)
    return (magnitudes - low + SMALL) / (high - low + SMALL)


def weights(batches):
    """{layer/in, layer/out: [blocks, channels]} of the batches' `one_batch`. ValueError names a block whose weights are not
    finite."""
    by_layer = {}
    for name, parts in PARTS.items():
        for side, pieces in (("in", 1), ("out", parts)):
            at = ("in", "out").index(side)
            blocks = [i for i, layer in batches[0] if layer == name]
            means = [torch.stack([spread(batch[i, name][at]).mean(0) for batch in batches]).mean(0) for i in blocks]
            powers = torch.stack(means) ** POWER  # (blocks, channels)
            if wrong := (~powers.isfinite()).any(1).nonzero().flatten().tolist():
                raise ValueError(f"the channel weights of {name} of block {wrong[0]} are not finite")
            clamped = [piece.clamp(min=piece.amax(1, keepdim=True) / SPREAD) for piece in powers.chunk(pieces, dim=1)]
            by_layer[f"{name}/{side}"] = torch.cat(clamped, dim=1)
    return by_layer


@torch.inference_mode()
def channel_weights(problem, samples, differences=False):
    """({layer/in, layer/out: [blocks, channels]}, curve), from the first samples, without guidance, at an evaluation that is
    drawn for each."""
    spec, rows, batches = problem.spec, calibrate.first(problem, samples), []
    for k in range(0, samples, calibrate.BATCH):
        part = rows[k : k + calibrate.BATCH]
        drawn = [generator("icc", row) for row in part]
        noise = torch.stack([torch.randn(spec.arch.sample_shape, generator=g) for g in drawn])
        last = max(1, spec.num_evaluations - int(differences))
        evaluations = [int(torch.randint(last, (), generator=g)) for g in drawn]
        dropped = torch.tensor([float(torch.rand((), generator=g)) < DROPPED for g in drawn])
        labels = problem.labels[part].where(~dropped, torch.tensor(spec.arch.num_classes))
        batches.append(one_batch(problem.model, spec, problem.latents[part], labels, noise, evaluations, differences))
    by_layer = weights(batches)
    curve = [
        {"layer": name, "block": i, "mean": row.mean().item()}
        for name, values in by_layer.items()
        for i, row in enumerate(values)
    ]
    return {name: values + SMALL for name, values in by_layer.items()}, curve
