"""Methods that compute the blocks at some evaluations only; at the others something stands in for all, or all but outer ones.

Two things can be kept of the blocks: what they add to the stream, and the stream behind them, which needs no current input.
Each can be repeated, or continued along the line through its last two computed values."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Taylor, positions
from cachebench.plugin.spans import SpanMethod
from cachebench.plugin.values import allowed

VALUES = {  # what of the blocks is kept, as `SpanMethod.keeps` says it, and the order of its forecast
    "residual": ("increment", 0),
    "residual_linear": ("increment", 1),
    "hidden": ("last", 0),
    "hidden_linear": ("last", 1),
}


class StackMethod(SpanMethod):
    """A method of this kind says which evaluations compute all, and has a parameter or an attribute `value`."""

    value = "residual"
    front = back = 0  # blocks at either end that run at every evaluation

    def chosen(self, spec, state):
        """The evaluations that compute all, 0 among them; `state` is None where nothing is calibrated yet."""
        raise NotImplementedError

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        skipped = np.setdiff1d(np.arange(len(mask)), self.chosen(spec, state))
        mask[np.ix_(skipped, self.span(spec, 0))] = False
        return Schedule(mask)

    def span(self, spec, evaluation):
        return range(self.front, spec.arch.blocks - self.back)

    def kept(self):
        """(what is kept, its forecaster). ValueError names the values that there are."""
        what, order = allowed("value", self.value, VALUES)
        return what, Taylor(order)

    def keeps(self, spec):
        return self.kept()[0]

    def store_values(self, spec, state=None):
        computed = self.computes(spec, state)
        before_a_skip = [sum(computed[:e]) for e, computes in enumerate(computed) if not computes]
        return min(max(before_a_skip, default=0), self.kept()[1].values)

    def computes(self, spec, state=None):
        """Whether each evaluation computes all."""
        return self.schedule(spec, state).compute.all(axis=(1, 2)).tolist()

    def session(self, model, spec, state=None):
        places = positions(spec, self.distance)
        return StackSession(self.computes(spec, state), self.span(spec, 0), *self.kept(), places)


class StackSession(Session):
    """`computed`: whether each evaluation computes all; `span`: range of the blocks that the others skip; `keeps`: "increment"
    or "last", as `SpanMethod.keeps`; `places`: where each evaluation stands to the forecaster, by default its index."""

    def __init__(self, computed, span, keeps, forecaster, places=None):
        self.computed, self.span, self.keeps, self.forecaster = computed, span, keeps, forecaster.of(self)
        self.places = places or range(len(computed))
        self.last_read = max((e for e, computes in enumerate(computed) if not computes), default=-1)
        self.reset()

    def reset(self):
        self.kept = self.entered = None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        if i not in self.span:
            return run(h)
        if i == self.span[0]:
            self.entered = h
        if self.computed[self.evaluation]:
            h = run(h)
            return self.close(h) if i == self.span[-1] else h
        return self.stand_in() if i == self.span[-1] else h

    def close(self, h):
        """What the span's output h [rows, tokens, width] says is kept, where a later evaluation reads it."""
        value = h - self.entered if self.keeps == "increment" else h
        later = self.last_read > self.evaluation
        self.kept = self.forecaster.keep(self.kept, value, self.places[self.evaluation]) if later else None
        self.entered = None
        return h

    def stand_in(self):
        place = self.places[self.evaluation]
        value = self.forecaster.stand_in(self.kept, place)  # (rows, tokens, width)
        self.kept = self.forecaster.recall(self.kept, value, place)
        self.spend(self.forecaster.spent())
        value = self.entered + value if self.keeps == "increment" else value
        self.entered = None
        return value
