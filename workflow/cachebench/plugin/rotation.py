"""What TCC does on any host: a reused branch value is turned towards the computed one (arXiv:2605.24870).

Where it is first reused, a value B becomes B + a (m_A + s (B - m_B) R - B), with a rotation R [width, width], a scale
s and means m, and stays so in the cache. They are fitted on the class means of full runs and of the host's, one evaluation
after the other: in its run the host has all corrections that were found before."""

from contextlib import suppress

import numpy as np
import torch
from torch.nn import functional as F

from cachebench.engine import trajectory
from cachebench.engine.doors import ScheduledSession, Session
from cachebench.engine.spec import BRANCHES
from cachebench.fit import calibrate

UNDETERMINED = 1e-6  # of the largest singular value: directions with less stay as they are


class RotatedSession(ScheduledSession):
    """Corrects what is reused at `evaluations`, of which the tables [evaluations, blocks, branches, ...] have a row each."""

    def __init__(self, schedule, evaluations, weight, shift, first):
        self.places, self.weight, self.shift = {e: n for n, e in enumerate(evaluations)}, weight, shift
        self.first = first  # of the tokens that are patches
        super().__init__(schedule, self.stand_in, remember="all")

    def stand_in(self, history, site, evaluation):
        value = history[-1][1]  # (rows, tokens, width)
        if evaluation not in self.places:
            return value
        place = self.places[evaluation], site[0], BRANCHES.index(site[1])
        if self.weight.dim() == 5:
            self.spend(len(value) * (value.shape[1] - self.first) * value.shape[2] ** 2)
        return corrected(value, self.weight[place], self.shift[place], self.first)


def corrected(value, weight, shift, first):
    """Of value [rows, tokens, width] the tokens from `first` on, under what `folded` gives."""
    patches = value[:, first:]
    patches = F.linear(patches, weight, shift) if weight.dim() else torch.addcmul(shift, patches, weight)
    return torch.cat([value[:, :first], patches], dim=1) if first else patches


def solve(A, B, form):
    """(R [width, width] or None, s, m_A, m_B) that take class means B [classes, width] to A. R is the orthogonal matrix nearest
    to the means' product; where these say nothing, as with fewer classes than channels, it is the nearest to no rotation."""
    m_A, m_B = A.mean(0), B.mean(0)
    if form == "shift":
        return None, A.new_ones(()), m_A, m_B
    A, B, R = A - m_A, B - m_B, None
    if form == "rotation":
        product = B.mT @ A
        U, S, Vh = torch.linalg.svd(product + UNDETERMINED * torch.linalg.matrix_norm(product, 2) * torch.eye(len(product)))
        R = U @ Vh
        B = B @ R
    return R, (A * B).sum() / B.square().sum(), m_A, m_B


def folded(R, s, m_A, m_B, strength):
    """(weight, shift) of the whole correction: the weight [width, width] as of a linear layer, or one number without R."""
    turned = m_B if R is None else m_B @ R
    weight = 1 - strength + strength * s if R is None else strength * s * R.mT + (1 - strength) * torch.eye(len(R))
    return weight, strength * (m_A - s * turned)


class Enough(Exception):
    """A run has come as far as it is needed."""


class Means:
    """Sums by class of branch values, over the patches of the conditional rows: `sums` {site: [classes, width]}."""

    def __init__(self, labels, first):
        self.classes, self.counts = labels.unique(return_counts=True)
        self.first, self.sums = first, {}

    def start(self, labels):
        self.index = torch.searchsorted(self.classes, labels)

    def add(self, site, value):
        mean = value[: len(self.index), self.first :].double().mean(1).cpu()
        if site not in self.sums:
            self.sums[site] = torch.zeros(len(self.classes), value.shape[2], dtype=torch.float64)
        self.sums[site].index_add_(0, self.index, mean)

    def of(self, site):
        return self.sums[site] / self.counts[:, None]


class Computed(Session):
    """Adds up what the full run computes at some evaluations."""

    def __init__(self, window, means):
        self.window, self.means = window, means

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation
        if evaluation > max(self.window):
            raise Enough

    def branch(self, i, name, h, run):
        value = run(h)
        if self.evaluation in self.window:
            self.means.add((self.evaluation, i, BRANCHES.index(name)), value)
        return value


class Reused(Session):
    """Adds up what the host would reuse at evaluation `last`, with the corrections {(evaluation, block, branch): tables}."""

    def __init__(self, compute, last, corrections, means):
        self.compute, self.last, self.corrections, self.means = compute, last, corrections, means
        self.reset()

    def reset(self):
        self.values = {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation
        if evaluation == self.last:
            for (i, j), value in self.values.items():
                self.means.add((evaluation, i, j), value)
            raise Enough

    def branch(self, i, name, h, run):
        j = BRANCHES.index(name)
        site = self.evaluation, i, j
        if self.compute[site]:
            self.values[i, j] = run(h)
        elif site in self.corrections:
            value = self.values[i, j]
            tables = (table.to(value) for table in self.corrections[site])
            self.values[i, j] = corrected(value, *tables, self.means.first)
        return self.values[i, j]


def follow(problem, samples, session, means):
    """Runs the first samples of the calibration set as far as the session goes."""
    for noise, labels, draw in calibrate.starts(problem, samples):
        means.start(labels)
        with suppress(Enough):
            trajectory.run(problem.model, problem.spec, session, noise, labels, draw)


def fit(problem, hosts, form, strength, samples, consistent):
    """(state, curve): corrections of every branch, of each of `hosts`: (its schedule, the evaluations that are corrected)."""
    spec, first = problem.spec, problem.spec.arch.facts.EXTRA_TOKENS
    labels = problem.labels[calibrate.first(problem, samples)]
    shape = (len(hosts), max(len(window) for _, window in hosts), *spec.mask_shape[1:])
    weight = torch.ones(*shape, *([spec.arch.width] * 2 if form == "rotation" else []))
    shift, curve, computed = torch.zeros(*shape, spec.arch.width), [], Means(labels, first)
    if union := {e for _, window in hosts for e in window}:
        follow(problem, samples, Computed(union, computed), computed)
    for n, (host, window) in enumerate(hosts):
        corrections = {}
        for place, e in enumerate(window):
            reused = Means(labels, first)
            follow(problem, samples, Reused(host.compute, e, corrections if consistent else {}, reused), reused)
            for i, j in np.ndindex(spec.mask_shape[1:]):
                A, B = computed.of((e, i, j)), reused.of((e, i, j))
                corrections[e, i, j] = tables = folded(*solve(A, B, form), strength)
                if not all(table.isfinite().all() for table in tables):
                    raise ValueError(f"the correction of {BRANCHES[j]} of block {i} at evaluation {e} is not finite")
                weight[n, place, i, j], shift[n, place, i, j] = tables
                apart = ((A - B).norm() / A.norm()).item()
                curve.append({"evaluation": e, "block": i, "branch": BRANCHES[j], "host": n, "apart": apart})
    nothing = [{"evaluation": 0, "block": 0, "branch": BRANCHES[0], "host": 0, "apart": 0.0}]
    return {"weight": weight, "shift": shift}, curve or nothing
