"""DiCache: the first blocks say when the others are skipped, and how far to continue what these added (arXiv:2508.17356).

The first blocks, the probe, always run. What its output changes from one evaluation to the next is added up, and all blocks
compute once the sum reaches a threshold; the probe's work is kept. Otherwise what all blocks added to the stream is taken
between, or a little beyond, its last two computed values, as far along as what the probe added has come between its own."""

import math

import numpy as np

from cachebench.plugin import first_block
from cachebench.plugin.deciding import DECISIONS, Deciding, change, check, forced, refusal, size, together
from cachebench.plugin.first_block import FrontSession
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.values import allowed, among

PROGRAMS = {  # (the first evaluations that compute, of so many and a share; how many of the last do)
    "flux": (lambda count, share: int(share * count) + 1, 1),
    "wan": (lambda count, share: math.ceil(int(share * 2 * count) / 2), 0),  # counts both halves of a guided pair
}
CHANGES = ("probe", "beyond input")  # the change that is added up: the probe's, or how far it is from the input's


class DiCache(Deciding):
    """The probe's output is kept at every evaluation. Released, those that compute do not keep it where the probe has more than
    half of the blocks: then nothing is ever skipped again. On U-ViT changes are those of the patches alone."""

    name = "DiCache"
    reference = "arXiv:2508.17356"
    params = {
        "threshold": [0.0, *np.geomspace(0.01, 30, 120).round(4).tolist()],
        "retention": [0.2, 0.0],  # share of the evaluations, at the start, that compute
        "probe": [1],  # blocks
        "program": list(PROGRAMS)[:1],
        "limit": [1.5],  # how far beyond; FLUX's and HunyuanVideo's, 2 is Wan's
        "change": list(CHANGES[:1]),
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "retention": SHARE, "probe": COUNT, "limit": (1, math.inf)}
    knob = "threshold"

    def ends(self, count):
        """How many evaluations of so many compute in any case, at the start and the end."""
        first, last = allowed("program", self.program, PROGRAMS)
        return first(count, self.retention), last

    def supports(self, spec):
        return refusal(spec, *self.ends(spec.num_steps)) or first_block.refusal(spec, self.probe, 0)

    def session(self, model, spec, state=None):
        check(self)
        among("change", self.change, CHANGES)
        return DiSession(self, spec, forced(spec, *self.ends(spec.num_evaluations)))

    def store_values(self, spec, state=None):
        return 5 + (self.change != CHANGES[0])  # two times what all and what the probe added, the probe's output, the input


class DiSession(FrontSession):
    """`changes`, `sums` and `ratios` are those of every decision, for whoever looks."""

    def __init__(self, method, spec, forced):
        self.method, self.halves, self.forced, self.extra = method, spec.rows, forced, spec.arch.facts.EXTRA_TOKENS
        super().__init__(method.probe, 0, spec)

    def reset(self):
        super().reset()
        self.old = self.new = None  # what all blocks and what the probe added, the last two times: [rows, tokens, width] each
        self.probed = self.input = None  # of the evaluation before
        self.sum = 0.0  # of each row
        self.changes, self.sums, self.ratios = {}, {}, {}

    def judge(self, h):
        compute, threshold = None, self.method.threshold
        if threshold and not self.forced[self.evaluation]:
            moved = self.moved(h)
            self.sum = self.sum + moved
            self.changes[self.evaluation], self.sums[self.evaluation] = moved, self.sum
            compute = self.reaches(self.sum, threshold)
        self.sum = 0.0 if compute is None else self.sum.where(~compute, 0.0)
        self.probed, self.input = h, self.entered
        return compute

    def moved(self, h):
        """The relative change of the probe's output, or its distance to that of the input: [rows]."""
        changed = self.change(h, self.probed)
        return changed if self.method.change == CHANGES[0] else (changed - self.change(self.entered, self.input)).abs()

    def change(self, now, before):
        return change(now[:, self.extra :], before[:, self.extra :], self.method.decision, self.halves)

    def close(self, h):
        now = h - self.entered, self.added
        if self.rows is None:
            self.old, self.new = self.new or now, now
            return h
        compute = self.compute[:, None, None]
        out = h.where(compute, self.entered + self.stand_in())
        self.old = [new.where(compute, old) for new, old in zip(self.new, self.old, strict=True)]
        self.new = [value.where(compute, new) for value, new in zip(now, self.new, strict=True)]
        return out

    def stand_in(self):
        """What all blocks would have added, along the line through the last two times."""
        ratio = self.ratios[self.evaluation] = self.ratio()
        return self.old[0] + ratio[:, None, None] * (self.new[0] - self.old[0])  # (rows, tokens, width)

    def ratio(self):
        """How far along what the probe added has come, of the way between its last two: [rows]; 1 is the last."""
        way, come = (self.distance(value, self.old[1]) for value in (self.new[1], self.added))
        return (come / way).where(way > 0, 1.0).clamp(1.0, self.method.limit)

    def distance(self, now, before):
        return together(size((now - before)[:, self.extra :]), self.method.decision, self.halves)
