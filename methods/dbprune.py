"""DBPrune: every block is skipped by itself while its input has changed little since it was computed last.

What the block added then is added again, or what a `calibrator` makes of it. The input may itself be made of skipped blocks, so
that their errors enter the change. On U-ViT the input of an out-block is what its skip linear gives, which always runs."""

import numpy as np

from cachebench.plugin.by_row import stand_ins
from cachebench.plugin.deciding import DECISIONS, Deciding, at, change, check, forced, indices
from cachebench.plugin.forecast import named
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.per_block import BlockSession

RELAXED, FIRST = 1.25, 5  # a relaxed threshold is so many times the mean of the first changes of an evaluation, up to so many


class DBPrune(Deciding):
    """A threshold of 1 or more skips without looking. `relaxed` says up to which multiple of it the threshold may rise with
    what the blocks before have measured at an evaluation; the library's is 2, where it is asked for."""

    name = "DBPrune"
    reference = "cache-dit (DBPrune)"
    params = {
        "threshold": [0.0, *np.geomspace(0.005, 1, 60).round(4).tolist()],
        "front": [1],  # Fn: blocks that are never skipped, at least the first
        "back": [0],  # Bn
        "never": [""],  # other blocks that are not, such as "3 7"
        "warmup": [1],  # evaluations at the start that compute everything
        "max_continuous": [0],  # evaluations in a row at which something is skipped; 0: any number
        "relaxed": [0.0],
        "calibrator": [""],  # or a name of `plugin.forecast`, such as taylor1 or foca
        "since": [3],  # the first evaluation that a calibrator compares with the one before, as the library counts
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"front": COUNT} | dict.fromkeys(("threshold", "back", "warmup", "max_continuous", "relaxed", "since"), AMOUNT)
    knob = "threshold"

    def skippable(self, spec):
        """The blocks that may be skipped. ValueError where `never` names none of the network's."""
        blocks, never = range(spec.arch.blocks), self.never.split()
        if wrong := [name for name in never if name not in map(str, blocks)]:
            raise ValueError(f"never: {wrong[0]!r} is no block; the network's are 0 to {blocks[-1]}")
        return set(blocks[self.front : len(blocks) - self.back]) - set(map(int, never))

    def supports(self, spec):
        if not self.skippable(spec):
            return f"All of the network's {spec.arch.blocks} blocks are among those that are never skipped."

    def session(self, model, spec, state=None):
        check(self)
        return PruneSession(self, spec)

    def store_values(self, spec, state=None):
        """The input of every block, and what is kept of what it added."""
        held = int(named(self.calibrator).held(spec.num_evaluations)) if self.calibrator else 1
        return len(self.skippable(spec)) * (1 + held)


class PruneSession(BlockSession):
    """`changes` and `bounds` {(evaluation, block): [rows]}: what was measured, and the threshold that it was held against."""

    def __init__(self, method, spec):
        super().__init__(spec)
        self.method, self.halves, self.skippable = method, spec.rows, method.skippable(spec)
        self.forced = forced(spec, method.warmup, last=0)
        self.reset()

    def reset(self):
        self.inputs = {}  # {block: [rows, tokens, width]} at which a row was computed last
        self.increments = {i: stand_ins(self, self.method.calibrator, self.method.since) for i in self.skippable}
        self.run_length = self.skipped = None  # evaluations in a row at which a row skips; whether it does at this one: [rows]
        self.changes, self.bounds = {}, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        super().begin(evaluation)
        if self.skipped is not None:
            self.run_length = (self.run_length + 1) * self.skipped
            self.skipped = self.skipped & False

    def parts(self, i, h):
        self.compute = None
        if i not in self.skippable or self.forced[self.evaluation]:
            return None
        compute = self.judge(i, h)
        rows = indices(self, compute)
        if rows is None:
            return None
        self.compute, self.skipped = compute, self.skipped | ~compute
        return [(rows, None)]

    def judge(self, i, h):
        """Which rows compute block i: bool [rows]."""
        if self.skipped is None:
            self.run_length, self.skipped = h.new_zeros(len(h)), h.new_zeros(len(h), dtype=bool)
        limit = self.method.max_continuous
        limited = self.run_length >= limit if limit else self.run_length < 0
        if self.method.threshold >= 1:
            return limited
        moved, bound = change(h, self.inputs[i], self.method.decision, self.halves), self.bound(h)
        self.changes[self.evaluation, i], self.bounds[self.evaluation, i] = moved, bound
        return limited | ~(moved < bound)  # also where it is not a number

    def bound(self, h):
        """The threshold of each row: [rows]."""
        import torch

        threshold, highest = self.method.threshold, self.method.relaxed * self.method.threshold
        before = [moved for (evaluation, _), moved in self.changes.items() if evaluation == self.evaluation]
        if not highest or not before:
            return h.new_full((len(h),), threshold)
        moved = torch.stack(before)  # (blocks, rows)
        first = (moved > 0) & ((moved > 0).cumsum(0) <= FIRST)
        relaxed = RELAXED * (moved * first).sum(0) / first.sum(0)
        return relaxed.clamp(min=threshold).where(relaxed < highest, threshold)

    def settle(self, i, entered, out, parts):
        if i not in self.skippable:
            return out
        added = self.increments[i].settle(out - entered, self.evaluation, self.compute)  # (rows, tokens, width)
        self.spend(self.increments[i].spent())
        if self.compute is None:
            self.inputs[i] = entered
            return out
        self.inputs[i] = at(self.compute, entered, self.inputs[i])
        return at(self.compute, out, entered + added)
