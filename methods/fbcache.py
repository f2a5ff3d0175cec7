"""First-Block-Cache and DBCache: the first blocks' change decides whether the others are reused (diffusers, cache-dit).

The first `front` blocks always run. Where what they add to the stream differs from what they added when all was computed last
by less than `threshold`, what the middle blocks added then is added again; the last `back` blocks run on top of it."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.method import AMOUNT, Method

FORMS = ("diffusers", "cache-dit")
DECISIONS = ("sample", "half", "batch")


class FirstBlockCache(Method):
    name = "First-Block-Cache"
    reference = "diffusers, cache-dit (DBCache)"
    params = {
        "threshold": [0.0, *np.geomspace(0.01, 2, 60).round(4).tolist()],
        "front": [1],  # Fn
        "back": [0],  # Bn
        "warmup": [1],  # evaluations that compute everything first
        "max_continuous": [0],  # evaluations in a row that may reuse; 0: any number
        "form": list(FORMS[:1]),  # "cache-dit": a threshold of 1 or more reuses without looking
        "decision": list(DECISIONS[:1]),  # a guided pair together; each row alone; the whole batch, as released
    }
    ranges = dict.fromkeys(("threshold", "front", "back", "warmup", "max_continuous"), AMOUNT)
    knob = "threshold"

    @property
    def batch_dependent(self):
        return self.decision == "batch"

    def supports(self, spec):
        blocks = spec.arch.blocks
        if self.front + self.back >= blocks:
            return f"Its front and back blocks, {self.front} and {self.back}, leave none of {blocks} to reuse."
        if self.back > self.front and spec.arch.kind == "uvit":
            return "The last out-blocks need the outputs of the first in-blocks, so it needs as many front blocks as back ones."

    def session(self, model, spec, state=None):
        for name, allowed in (("form", FORMS), ("decision", DECISIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: unknown {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        return FirstBlockSession(self, spec)

    def store_values(self, spec, state=None):
        return 2  # what the front blocks added, and what the middle ones did


class FirstBlockSession(Session):
    """`computed` is the share of rows that computed everything, of each evaluation so far, on the device."""

    def __init__(self, method, spec):
        self.method, self.halves = method, spec.rows
        self.middle = range(method.front, spec.arch.blocks - method.back)
        self.reset()

    def reset(self):
        self.front = self.increment = self.run_length = None  # of the evaluation that was computed last
        self.computed, self.differences = [], []

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        if i == 0:
            self.entered = h
        if i == self.middle[0]:
            self.decide(h)
        if i not in self.middle:
            return run(h)
        h = self.through(h, run)
        return self.close(h) if i == self.middle[-1] else h

    def through(self, h, run):
        """A middle block for the rows that compute; the others pass it."""
        if self.rows is None:
            return run(h)
        return h.index_copy(0, self.rows, run.rows(self.rows)(h[self.rows])) if len(self.rows) else h

    def decide(self, h):
        """Which rows compute: `compute` [rows], and `rows`, their indices; None where all do."""
        self.added, self.before = h - self.entered, h
        self.compute, self.rows = self.judge(len(h)), None
        if self.compute is not None:
            rows = self.compute.nonzero().squeeze(1)  # the one wait for the device
            self.rows = None if len(rows) == len(h) else rows
        self.computed.append(1.0 if self.rows is None else len(self.rows) / len(h))

    def judge(self, count):
        """bool [rows], or None where nothing can be reused yet."""
        method = self.method
        if self.front is None or self.evaluation < method.warmup:
            return None
        if method.form == "cache-dit" and method.threshold >= 1:
            compute = self.run_length < 0  # none
        else:
            self.differences.append(self.difference())
            compute = ~(self.differences[-1] < method.threshold)  # also where it is not a number
        return compute | (self.run_length >= method.max_continuous) if method.max_continuous else compute

    def difference(self):
        """Relative L1 distance of what the front blocks added to what they added when all was computed last: [rows]."""
        apart, size = (self.added - self.front).abs().mean((1, 2)), self.front.abs().mean((1, 2))
        if self.method.decision == "half":
            return apart / size
        if self.method.decision == "batch":
            return (apart.mean() / size.mean()).expand(len(apart))
        apart, size = (values.unflatten(0, (self.halves, -1)).mean(0) for values in (apart, size))
        return (apart / size).repeat(self.halves)

    def close(self, h):
        """The stream after the middle blocks; what was computed is kept."""
        if self.rows is None:
            self.front, self.increment, self.run_length = self.added, h - self.before, h.new_zeros(len(h))
            return h
        compute = self.compute[:, None, None]
        h = h.where(compute, self.before + self.increment)
        self.front = self.added.where(compute, self.front)
        self.increment = h.sub(self.before).where(compute, self.increment)
        self.run_length = (self.run_length + 1) * ~self.compute
        return h
