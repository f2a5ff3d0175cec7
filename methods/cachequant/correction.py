"""CacheQuant's correction of what is reused: for every evaluation and channel a scale and a shift, by least squares on full
runs (arXiv:2503.01323, decoupled error correction)."""

from collections import deque

import numpy as np
import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate
from cachebench.plugin.forecaster import Forecaster

PLANNED = 8  # samples that the plan and the ranges are made from, as released


class Affine(Forecaster):
    """The last computed value, times a scale, plus a shift, [evaluations, width] each."""

    def __init__(self, scale, shift):
        self.scale, self.shift = scale, shift

    def held(self, computed):
        return np.minimum(computed, 1)

    def keep(self, kept, value, position):
        return value

    def stand_in(self, kept, position):
        return torch.addcmul(self.shift[position], kept, self.scale[position])


class Pairs:
    """Sums over rows and tokens of what pairs of evaluations give, up to `lags` apart: distances and second moments."""

    def __init__(self, evaluations, width, lags):
        self.costs = np.zeros((evaluations, evaluations))  # [earlier, later]: the L1 distance
        self.sums = torch.zeros(evaluations, width, dtype=torch.float64)
        self.products = torch.zeros(evaluations, lags + 1, width, dtype=torch.float64)  # with the value so many before
        self.lags, self.count = lags, 0
        self.reset()

    def reset(self):
        self.past = deque(maxlen=self.lags)

    def add(self, evaluation, value, planned=None):
        """A value [rows, tokens, width]; the rows `planned`, by default all, count for distances."""
        value = value.double()
        self.count += len(value) * value.shape[1] if evaluation == 0 else 0
        self.sums[evaluation] += value.sum((0, 1)).cpu()
        for lag, earlier in enumerate([value, *self.past]):
            self.products[evaluation, lag] += (value * earlier).sum((0, 1)).cpu()
            off = value - earlier
            self.costs[evaluation - lag, evaluation] += (off if planned is None else off[planned]).abs().sum().item()
        self.past.appendleft(value)

    def affine(self):
        """(scale, shift), float64 [evaluations, lags + 1, width]: the line of a value over the one so many evaluations before.
        At lag 0, and where there is none before, 1 and 0."""
        means = self.sums / self.count
        scale, shift = torch.ones_like(self.products), torch.zeros_like(self.products)
        for e in range(len(means)):
            for lag in range(1, min(e, self.lags) + 1):
                before = means[e - lag]
                variance = self.products[e - lag, 0] / self.count - before.square()
                scale[e, lag] = (self.products[e, lag] / self.count - before * means[e]) / variance
                shift[e, lag] = means[e] - scale[e, lag] * before
        return scale, shift


class Increments(Session):
    """Tells `see(evaluation, value)` what a span of blocks adds to the stream, [rows, tokens, width]."""

    def __init__(self, span, see):
        self.span, self.see = span, see

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        if i == self.span[0]:
            self.entered = h
        h = run(h)
        if i == self.span[-1]:
            self.see(self.evaluation, h - self.entered)
        return h


def measure(problem, span, samples, lags):
    """(distances float64 [evaluations, evaluations], scale and shift float32 [evaluations, lags + 1, width]) of full runs."""
    spec, done = problem.spec, 0
    pairs = Pairs(spec.num_evaluations, spec.arch.width, lags)
    for noise, labels, draw in calibrate.starts(problem, samples):
        planned = torch.arange(spec.rows * len(labels)) % len(labels) + done < PLANNED
        pairs.reset()

        def see(evaluation, value, planned=planned):
            pairs.add(evaluation, value, planned)

        trajectory.run(problem.model, spec, Increments(span, see), noise, labels, draw)
        done += len(labels)
    scale, shift = pairs.affine()
    finite(scale + shift, f"the correction of blocks {span[0]} to {span[-1]}")
    return pairs.costs, scale.float(), shift.float()


def finite(values, what):
    """ValueError where `values` [evaluations, lags + 1, channels] are not finite: a channel does not vary."""
    if len(wrong := (~values.isfinite()).nonzero().tolist()):
        e, lag, channel = wrong[0]
        raise ValueError(f"{what} at evaluation {e} from evaluation {e - lag} is not finite in channel {channel}")


def reused(plan, *tables):
    """Of tables [evaluations, lags + 1, width] the rows [evaluations, width] of the evaluation that each reuses by a plan."""
    now = np.arange(len(plan))
    lags = now - np.maximum.accumulate(np.where(plan, now, 0))
    return [np.asarray(table)[now, lags] for table in tables]
