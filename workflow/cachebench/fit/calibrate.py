"""Calibration: full trajectories over the shared calibration set, on which every branch value is compared with its past."""

from collections import deque
from functools import lru_cache, partial

import numpy as np
import torch

from cachebench.engine import seeds, trajectory
from cachebench.engine.doors import Session
from cachebench.engine.spec import BRANCHES

BATCH = 16  # samples that run together


def start(problem, rows, *key):
    """(latents, labels, draw) as `trajectory.run` takes them: the images `rows` of the calibration set under the noise of the
    first evaluation. The noise of a row depends on the row and on `key` alone."""
    draw = partial(seeds.noise, rows, problem.spec.arch.sample_shape, "calibration", *key)
    a, b = problem.spec.plan.signal[0], problem.spec.plan.noise[0]
    return a * problem.latents[rows] + b * draw(), problem.labels[rows], draw


def first(problem, samples):
    """Rows of the first samples of the calibration set. ValueError if it has fewer."""
    if not 1 <= samples <= len(problem.latents):
        raise ValueError(f"samples: {samples} is outside 1 to {len(problem.latents)}, the size of the calibration set")
    return list(range(samples))


def starts(problem, samples):
    """Yields `start` of the first samples, BATCH at a time."""
    rows = first(problem, samples)
    for k in range(0, samples, BATCH):
        yield start(problem, rows[k : k + BATCH])


def l1(problem, labels):
    """The sum of magnitudes."""
    return lambda values, *site: values.abs().sum((1, 2))


def gated_l2(problem, labels):
    """The sum of squares, each times its channel's gate: L2C's metric (arXiv:2406.01733, Eq. 7)."""
    y = trajectory.network_labels(problem.spec, labels.to(next(problem.model.parameters()).device))

    @lru_cache(maxsize=1)
    def gates(evaluation):
        time = torch.full((len(y),), problem.spec.plan.timesteps[evaluation], device=y.device)
        return problem.model.gates(time, y).abs()  # (blocks, branches, rows, 1, D)

    return lambda values, evaluation, i, j: (gates(evaluation)[i, j] * values.square()).sum((1, 2))


class Changes(Session):
    """Measures every branch value and its differences to the `lags` values before; holds no more than these.

    `measure(values [rows, tokens, width] float32, evaluation, block, branch)` -> [rows]; `sizes` as `changes` returns it."""

    def __init__(self, measure, sizes):
        self.measure, self.sizes, self.past = measure, sizes, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def branch(self, i, name, h, run):
        value, j = run(h), BRANCHES.index(name)
        past = self.past.setdefault((i, name), deque(maxlen=len(self.sizes) - 1))
        for lag, earlier in enumerate([0, *past]):
            site = (self.evaluation, i, j)
            self.sizes[lag, *site] = self.measure(value.float() - earlier, *site)
        past.appendleft(value.float())
        return value


def changes(problem, samples, lags=1, measure=l1):
    """What full trajectories of the first samples measure: float64 [1 + lags, evaluations, blocks, branches, network rows].

    The first entry is the measure of a value itself, entry k that of its difference to the value k evaluations before (zero
    where there is none). Both halves of a guided pair are rows."""
    device, sizes = next(problem.model.parameters()).device, []
    for noise, labels, draw in starts(problem, samples):
        sizes.append(torch.zeros(1 + lags, *problem.spec.mask_shape, problem.spec.rows * len(labels), device=device))
        session = Changes(measure(problem, labels), sizes[-1])
        trajectory.run(problem.model, problem.spec, session, noise, labels, draw)
    return torch.cat(sizes, dim=-1).double().cpu()


def share(moved, size):
    """moved / size, where a branch that gives nothing is not divided by zero."""
    return moved / size.clamp(min=torch.finfo(torch.float32).tiny)


def curve(name, values):
    """Rows to draw of values [evaluations, blocks, branches]; evaluation 0 has nothing before it."""
    return [
        {"evaluation": e, "block": i, "branch": BRANCHES[j], name: float(values[e, i, j])}
        for e, i, j in np.ndindex(*values.shape)
        if e > 0
    ]
