"""Example: skip all blocks while the network's input has changed by less than a threshold since they ran."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.method import AMOUNT, Method


class Example(Method):
    name = "Example"
    reference = "an example"
    params = {"threshold": [0.0, *np.geomspace(0.01, 10, 60).round(4).tolist()]}
    ranges = {"threshold": AMOUNT}
    knob = "threshold"

    def session(self, model, spec, state=None):
        """Who decides at the doors (docs/doors.md). A session is made anew for every run."""
        return ExampleSession(self.threshold, spec.rows)

    def store_values(self, spec, state=None):
        """Token tensors that it keeps, for a row."""
        return 2


class ExampleSession(Session):
    def __init__(self, threshold, halves):
        self.threshold, self.halves = threshold, halves
        self.reset()

    def reset(self):
        self.entered = self.added = None  # of each row, when its blocks ran last

    def trunk(self, h, run):
        """All blocks: h [rows, tokens, width] -> the same. What they add to it is kept."""
        rows = None if self.entered is None else self.which(self.moved(h))  # the one wait for the device
        if rows is None or len(rows) == len(h):
            out = run(h)
            self.entered, self.added = h, out - h
            return out
        out = h + self.added
        if len(rows):
            computed = run.rows(rows)(h[rows])
            self.entered = self.entered.index_copy(0, rows, h[rows])
            self.added = self.added.index_copy(0, rows, computed - h[rows])
            out = out.index_copy(0, rows, computed)
        return out

    def moved(self, h):
        """Which rows have to run: bool [rows]. A guided pair decides together, and no image looks at another one."""
        change = (h - self.entered).abs().mean((1, 2)) / self.entered.abs().mean((1, 2))
        change = change.unflatten(0, (self.halves, -1)).mean(0).repeat(self.halves)
        return ~(change < self.threshold)
