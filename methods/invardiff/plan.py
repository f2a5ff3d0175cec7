"""InvarDiff's plan: made of distances between evaluations, read from a released file, and run (arXiv:2512.05134)."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.schedule import Schedule

BOOKS = ("step_cache_book", "msa_cache_book", "mlp_cache_book")  # of a released file; true: reuse
KEPT = OrderedDict()  # of the last few calibrations


@dataclass(frozen=True, eq=False)
class Plan:
    """`skipped` [evaluations] take the last stream behind the blocks; `reused` [evaluations, blocks, branches] is what the
    others do not compute."""

    skipped: np.ndarray
    reused: np.ndarray

    @classmethod
    def full(cls, spec):
        return cls(np.zeros(spec.num_evaluations, bool), np.zeros(spec.mask_shape, bool))

    @classmethod
    def from_json(cls, text, spec, source):
        """ValueError names `source`, and both shapes where the plan is of another network or number of evaluations."""
        books = json.loads(text)
        if missing := [name for name in BOOKS if name not in books]:
            raise ValueError(f"{source}: it has no {missing[0]}; a plan has {', '.join(BOOKS)}")
        skipped, *branches = (np.asarray(books[name], bool) for name in BOOKS)
        shape = (len(skipped), *branches[0].shape[1:], len(branches))
        if shape != spec.mask_shape or branches[0].shape != branches[1].shape:
            raise ValueError(f"{source}: its shape (evaluations, blocks, branches) is {shape}, the run's {spec.mask_shape}")
        return cls(skipped, np.stack(branches, axis=-1))

    def to_json(self):
        return json.dumps(dict(zip(BOOKS, (self.skipped.tolist(), *np.moveaxis(self.reused, -1, 0).tolist()), strict=True)))

    @property
    def compute(self):
        return ~(self.reused | self.skipped[:, None, None])

    @property
    def entered(self):
        """Whether each block is entered: bool [evaluations, blocks]."""
        return np.broadcast_to(~self.skipped[:, None], self.reused.shape[:2])

    @property
    def branches(self):
        """The schedule of the branches' values: none is read at an evaluation that is skipped."""
        return Schedule(~self.reused | self.skipped[:, None, None])


class PlanSession(ScheduledSession):
    def __init__(self, plan):
        self.skipped = [*plan.skipped.tolist(), False]
        super().__init__(plan.branches)

    def reset(self):
        super().reset()
        self.hidden = None  # the stream behind the blocks [rows, tokens, width]

    def trunk(self, h, run):
        if not self.skipped[self.evaluation]:
            h = run(h)
            self.hidden = h if self.skipped[self.evaluation + 1] else None
            return h
        h = self.hidden
        if not self.skipped[self.evaluation + 1]:
            self.hidden = None
        return h


def rates(distances):
    """Mean rates of change of the evaluations 1 to T-2 [T - 2, units], of `distances` [samples, later, earlier, units]."""
    places = np.arange(1, distances.shape[1] - 1)
    return (distances[:, places + 1, places] / distances[:, places, places - 1]).mean(axis=0)


def resampled(distances, cached):
    """The same where the two features that a third is compared with move on as `cached` [T, units] lets them: with every
    feature that is computed, and with the first of those in a row that are not."""
    _, count, _, units = distances.shape
    before, last, inside, every = np.zeros(units, int), np.ones(units, int), np.zeros(units, bool), np.arange(units)
    change_rates = np.empty((count - 2, units))
    for now in range(2, count):
        change_rates[now - 2] = (distances[:, now, last, every] / distances[:, last, before, every]).mean(axis=0)
        reuse = cached[now - 1]
        moves = ~reuse | ~inside
        before, last, inside = np.where(moves, last, before), np.where(moves, now, last), reuse
    return change_rates


def below(change_rates, quantiles, first):
    """cached [T, units] of rates [T - 2, units]: what is below its quantile, of all evaluations, of all branches of a type in
    all of them; the first `first` evaluations and the last compute."""
    cached = np.zeros((len(change_rates) + 2, change_rates.shape[1]), bool)
    for quantile, units in zip(quantiles, (slice(0, 1), slice(1, None, 2), slice(2, None, 2)), strict=True):
        cached[1:-1, units] = change_rates[:, units] < np.quantile(change_rates[:, units], quantile)
    cached[:first] = cached[-1] = False
    return cached


def planned(distances, quantiles, first, resample=True, shift=0):
    """The Plan by the released rule; units are the stream behind the blocks, then attention and MLP of every block."""
    if distances.shape[1] < 3:  # no change can be compared with another
        cached = np.zeros(distances.shape[2:], bool)
    else:
        cached = below(rates(distances), quantiles, first)
        cached = below(resampled(distances, cached), quantiles, first) if resample else cached
    if shift:
        cached = np.roll(cached, shift, axis=0)
        cached[:first] = cached[-1] = False
    skipped, reused = cached[:, 0], cached[:, 1:].reshape(len(cached), -1, 2).copy()
    for evaluation in np.flatnonzero(skipped):
        reused[evaluation] = True
        reused[evaluation + 1] = False  # the last evaluation is never skipped
    return Plan(skipped, reused)


def cheapest(distances, spec, scales, scale, rule):
    """The cheapest Plan of all `scales` up to `scale`, and of that itself; of equals the one of the largest."""
    plans = every(distances, spec, tuple(scales), rule)
    known = [entry for entry in plans if entry[0] <= scale]
    if scale not in scales:
        known.append((scale, *priced(distances, spec, scale, rule)))
    least = min(macs for _, macs, _ in known)
    return next(plan for _, macs, plan in reversed(known) if macs == least)


def every(distances, spec, scales, rule):
    """[(scale, MACs, Plan)], ascending; kept for a while, since a search asks for it at every scale."""
    key = sha256(distances.tobytes()).digest(), spec, scales, rule
    if key not in KEPT:
        KEPT[key] = [(scale, *priced(distances, spec, scale, rule)) for scale in scales]
        while len(KEPT) > 4:
            KEPT.popitem(last=False)
    return KEPT[key]


def priced(distances, spec, scale, rule):
    quantiles, *rest = rule
    plan = planned(distances, [min(1.0, scale * q) for q in quantiles], *rest)
    return cost.image_macs(spec, cost.mask_rows(plan.compute, entered=plan.entered)), plan
