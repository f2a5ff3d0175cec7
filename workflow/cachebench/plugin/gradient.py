"""What Gradient-Optimized Cache does on any host: a reused value is continued along its last change (arXiv:2503.05156).

The last two values count whether they were computed or corrected. What is continued: a block whose branches are both reused,
where they were computed just before, at evaluations that are not excluded."""

import re

import torch

from cachebench.engine import trajectory
from cachebench.engine.doors import Session
from cachebench.fit import calibrate

RELEASED = {20: [17]}  # {steps: evaluations} that the released lists leave out, of one evaluation a step


def excluded(text, spec, state):
    """Evaluations that are not corrected, by what a method's parameter `excluded` says. ValueError for another text."""
    named = RELEASED.get(spec.num_evaluations) if set(spec.plan.roles) == {"step"} else None
    if text == "trend" or (text == "released" and named is None):
        return [] if state is None else (state["trend"].mean(axis=1) < 0).nonzero()[0].tolist()
    if text == "released":
        return named
    if not re.fullmatch(r"none|\d+( \d+)*", text):
        raise ValueError(f"excluded: unknown {text!r}; allowed: released, trend, none, or evaluations with spaces between them")
    return [] if text == "none" else [int(number) for number in text.split()]


def corrected(compute, left_out):
    """Whether each evaluation corrects a block, of a mask [evaluations, blocks, branches]: bool [evaluations, blocks]."""
    reused, before = ~compute.any(axis=2), compute.all(axis=2)
    corrects = reused.copy()
    corrects[1:] &= before[:-1]
    corrects[:2] = False  # there are no two values yet
    corrects[[e for e in left_out if e < len(corrects)]] = False
    return corrects


def predictor(weight, where):
    """A `predict` of the newest two values, of `where` [evaluations, blocks] the correction is on."""
    where = where.tolist()

    def predict(history, site, evaluation):
        newest = history[-1][1]
        if not where[evaluation][site[0]]:
            return newest
        return history[-2][1].lerp(newest, 1 + weight)  # newest + weight * (newest - the one before)

    return predict


class Sums(Session):
    """Adds up every block's output [rows, tokens, width] over the images, the halves of a guided pair apart."""

    def __init__(self, halves, sums):
        self.halves, self.sums = halves, sums

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        h = run(h)
        total = h.float().unflatten(0, (self.halves, -1)).sum(1)
        site = self.evaluation, i
        self.sums[site] = self.sums[site] + total if site in self.sums else total
        return h


def trend(problem, samples):
    """Whether the mean output of a block goes on as it went: cosine of its change to the change before, float32 [evaluations,
    blocks], 1 where there is none. A reconstruction: the released program holds finished lists."""
    sums = {}
    for noise, labels, draw in calibrate.starts(problem, samples):
        trajectory.run(problem.model, problem.spec, Sums(problem.spec.rows, sums), noise, labels, draw)
    evaluations, blocks = problem.spec.mask_shape[:2]
    cosines = torch.ones(evaluations, blocks)
    for i in range(blocks):
        for e in range(2, evaluations):
            now, before = (sums[n, i] - sums[n - 1, i] for n in (e, e - 1))
            cosines[e, i] = torch.cosine_similarity(now.flatten(), before.flatten(), dim=0)
    return cosines


def curve(trend):
    return [
        {"evaluation": e, "block": i, "trend": float(cos)} for e, row in enumerate(trend) for i, cos in enumerate(row) if e > 1
    ]
