"""Methods that skip a span of blocks as a whole between refreshes, at the block door: its branches are not even entered."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import Session
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import Method


class SpanMethod(Method):
    """A method of this kind says when all is computed, which blocks are skipped otherwise, and what stands in for them."""

    def refreshes(self, spec):
        """Evaluations that compute everything, 0 among them."""
        raise NotImplementedError

    def span(self, spec):
        """range of the blocks that the other evaluations skip; an empty one skips nothing."""
        raise NotImplementedError

    def keeps(self, spec):
        """ "last": the span's output stands in; "increment": what the span adds to its input; "each": the output of every
        block of it, where out-blocks that run take their skips from them."""
        raise NotImplementedError

    def revise(self, model, state):
        """None, or a function (evaluation, block, h) -> h of what stands in, [rows, tokens, width]."""

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        reused = np.setdiff1d(np.arange(len(mask)), self.refreshes(spec))
        mask[np.ix_(reused, self.span(spec))] = False
        return Schedule(mask)

    def rows(self, spec, state=None):
        compute = self.schedule(spec, state).compute
        return cost.mask_rows(compute, entered=compute.any(axis=2))

    def store_values(self, spec, state=None):
        if self.schedule(spec, state).compute.all():
            return 0
        return len(self.span(spec)) if self.keeps(spec) == "each" else 1

    def session(self, model, spec, state=None):
        return SpanSession(self.schedule(spec, state), self.span(spec), self.keeps(spec), self.revise(model, state))


class SpanSession(Session):
    """Keeps what a later evaluation will read, and not beyond the next refresh."""

    def __init__(self, schedule, span, keeps, revise=None):
        self.full = [*schedule.compute.all(axis=(1, 2)).tolist(), True]
        self.span, self.increment, self.revise = span, keeps == "increment", revise
        self.read = span if keeps == "each" else span[-1:]
        self.reset()

    def reset(self):
        self.kept = {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.refresh, self.keep = evaluation, self.full[evaluation], not self.full[evaluation + 1]
        if self.refresh:
            self.kept = {}

    def block(self, i, h, run):
        if i not in self.span:
            return run(h)
        return self.compute(i, h, run) if self.refresh else self.stand_in(i, h)

    def compute(self, i, h, run):
        if self.keep and self.increment and i == self.span[0]:
            self.kept[self.span[-1]] = h
        h = run(h)
        if self.keep and i in self.read:
            self.kept[i] = h - self.kept[i] if self.increment else h
        return h

    def stand_in(self, i, h):
        """The other blocks pass `h` on: as a skip of U-ViT it is popped by a skipped out-block only."""
        if i not in self.read:
            return h
        h = h + self.kept[i] if self.increment else self.kept[i]
        return self.revise(self.evaluation, i, h) if self.revise else h
