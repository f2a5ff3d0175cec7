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

    def span(self, spec, evaluation):
        """range of the blocks that an evaluation skips where it is no refresh; an empty one skips nothing."""
        raise NotImplementedError

    def keeps(self, spec):
        """ "last": the span's output stands in; "increment": what the span adds to its input; "each": the output of every
        block of it, where out-blocks that run take their skips from them; "increments": what every block of it adds."""
        raise NotImplementedError

    def revise(self, model, spec, state):
        """None, or a function (evaluation, block, value) -> value [rows, tokens, width] of what is kept, before it stands in:
        an output, or the increment before it is added."""

    def spans(self, spec):
        """The range of blocks that each evaluation skips, None where it computes everything."""
        refreshes = set(map(int, self.refreshes(spec)))
        spans = [None if e in refreshes else self.span(spec, e) for e in range(spec.num_evaluations)]
        return [span or None for span in spans]

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        for evaluation, span in enumerate(self.spans(spec)):
            mask[evaluation, span or []] = False
        return Schedule(mask)

    def rows(self, spec, state=None):
        compute = self.schedule(spec, state).compute
        return cost.mask_rows(compute, entered=compute.any(axis=2))

    def store_values(self, spec, state=None):
        return max(map(len, read_of_refreshes(self.spans(spec), self.keeps(spec))))

    def session(self, model, spec, state=None):
        return SpanSession(self.spans(spec), self.keeps(spec), self.revise(model, spec, state))


def pieces(span, keeps):
    """What stands in for a span: {(first, last)} blocks, of whose increment or, with both the same, of whose output."""
    if keeps in ("each", "increments"):
        return {(block, block) for block in span}
    return {(span[0] if keeps == "increment" else span[-1], span[-1])}


def read_of_refreshes(spans, keeps):
    """For every evaluation the `pieces` that those up to the next refresh read of it; none unless it is a refresh."""
    read, later = [], set()
    for span in reversed(spans):
        read.append(set() if span else later)
        later = later | pieces(span, keeps) if span else set()
    return read[::-1]


class SpanSession(Session):
    """Keeps what a later evaluation will read, and not beyond the next refresh."""

    def __init__(self, spans, keeps, revise=None):
        self.spans, self.keeps, self.revise = spans, keeps, revise
        self.adds = keeps in ("increment", "increments")
        self.read = read_of_refreshes(spans, keeps)
        self.reset()

    def reset(self):
        self.kept, self.entered = {}, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation, self.span = evaluation, self.spans[evaluation]
        if self.span is None:
            self.reset()

    def block(self, i, h, run):
        if self.span is None:
            return self.compute(i, h, run)
        return self.stand_in(i, h) if i in self.span else run(h)

    def compute(self, i, h, run):
        read = self.read[self.evaluation]
        if self.adds and any(first == i for first, _ in read):
            self.entered[i] = h
        h = run(h)
        for first, last in read:
            if last == i:
                self.kept[first, last] = h - self.entered[first] if self.adds else h
        self.entered = {first: self.entered[first] for first, last in read if first in self.entered and last > i}
        return h

    def stand_in(self, i, h):
        """The other blocks pass `h` on: as a skip of U-ViT it is popped by a skipped out-block only."""
        piece = next((piece for piece in pieces(self.span, self.keeps) if piece[1] == i), None)
        if piece is None:
            return h
        value = self.revise(self.evaluation, i, self.kept[piece]) if self.revise else self.kept[piece]
        return h + value if self.adds else value
