"""Small networks on which a method is tried in seconds, and what is seen of a run on them."""

import random
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from cachebench.engine import backbones, doors, seeds, trajectory
from cachebench.engine.backbones import checkpoints
from cachebench.engine.spec import Arch, Spec, noise_of
from cachebench.files import atomic, closure
from cachebench.setup import stamps

DIT = Arch("dit", input_size=4, patch_size=2, channels=2, width=32, depth=2, heads=2, num_classes=3)
UVIT = replace(DIT, kind="uvit", learn_sigma=False)
SIT = replace(DIT, kind="sit")
SPECS = {  # guided trajectories of each backbone and kind of solver
    "dit": Spec(DIT, "ddim", num_steps=6, cfg_scale=1.5),
    "uvit": Spec(UVIT, "dpm_solver2", num_steps=4, cfg_scale=1.5),
    "uvit-2m": Spec(UVIT, "dpm_solver_2m", num_steps=8, cfg_scale=1.5),
    "sit": Spec(SIT, "euler", num_steps=6, cfg_scale=1.5),
}


@cache
def trained(arch):
    """A network of this Arch, trained briefly from open gates, so that its samples stay of order one and every reuse shows.

    With random weights samples grow to hundreds, and a reuse after the first evaluations is lost in the rounding. The weights
    are kept in results/try: to train them takes longer than what they are for."""
    code = closure.digest([Path(__file__), Path(backbones.__file__).parent / arch.kind])
    path = Path(f"results/try/{arch.kind}-{stamps.digest(repr(arch), code, torch.__version__)}.safetensors")
    if not path.exists():
        atomic.write_tensors(path, train(checkpoints.build(arch)).state_dict())
    network = checkpoints.build(arch)
    network.load_state_dict(atomic.read_tensors(path)[0])
    return network.eval().requires_grad_(False)


def train(network):
    arch, g = network.arch, torch.Generator().manual_seed(0)
    noise = noise_of(arch.kind)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if p.requires_grad and not re.search(r"norm\d?\.weight", name):
                p.normal_(std=p[0].numel() ** -0.5 if p.dim() > 1 and "table" not in name else 0.3, generator=g)
    centres = torch.randn(arch.num_classes, *arch.sample_shape, generator=g)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(300):
        y, (t, *level) = torch.randint(arch.num_classes, (64,), generator=g), noise.drawn(64, g)
        x0 = centres[y] + 0.5 * torch.randn(64, *arch.sample_shape, generator=g)
        eps, (a, b) = torch.randn(x0.shape, generator=g), (of.view(-1, 1, 1, 1) for of in level)
        y = torch.where(torch.rand(64, generator=g) < 0.1, arch.num_classes, y)
        predicted = network(a * x0 + b * eps, t, y)[:, : arch.channels]
        optimizer.zero_grad()
        (predicted - noise.target(x0, eps, t)).square().mean().backward()
        optimizer.step()
    return network


def inputs(spec, n=2, first_seed=0):
    """(noise, labels) of samples first_seed, first_seed + 1, ..."""
    chosen = range(first_seed, first_seed + n)
    return seeds.noise(chosen, spec.arch.sample_shape), seeds.labels(chosen, spec.arch.num_classes)


def sample(model, spec, session=None, n=2, first_seed=0):
    return trajectory.run(model, spec, session or doors.Session(), *inputs(spec, n, first_seed))


def relative(values, expected):
    """Largest difference as a share of the largest expected value."""
    return ((values - expected).abs().max() / expected.abs().max()).item()


def random_state():
    """The global random states of torch, numpy and Python, as comparable values."""
    _, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()
