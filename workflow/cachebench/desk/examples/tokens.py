"""Example: between refreshes compute the MLP for the tokens alone that have changed most, and reuse everything else."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.method import COUNT, SHARE, Method


class Example(Method):
    name = "Example"
    reference = "an example"
    params = {"kept": [1.0, *np.linspace(0.9, 0, 10).round(1).tolist()], "interval": [3]}
    ranges = {"kept": SHARE, "interval": COUNT}
    knob = "kept"  # share of the tokens; at 1 everything is computed

    def session(self, model, spec, state=None):
        return ExampleSession(self.kept, self.interval)

    def store_values(self, spec, state=None):
        """The input of every MLP, and the value of every branch."""
        return 3 * spec.arch.blocks


class ExampleSession(Session):
    def __init__(self, kept, interval):
        self.kept, self.interval = kept, interval
        self.reset()

    def reset(self):
        self.values, self.inputs = {}, {}

    def begin(self, evaluation, x=None, t=None, y=None):
        self.refresh = self.kept == 1 or evaluation % self.interval == 0

    def branch(self, i, name, h, run):
        """A branch: h [rows, tokens, width]; `run.input` normalises it, `run.values` computes it, of some tokens if asked."""
        if name == "attn":
            if self.refresh:
                self.values[i, name] = run(h)
            return self.values[i, name]
        count = round(self.kept * h.shape[1])
        if not self.refresh and not count:
            return self.values[i, name]
        z = run.input(h)
        if self.refresh:
            self.inputs[i], self.values[i, name] = z, run.values(z)
            return self.values[i, name]
        tokens = (z - self.inputs[i]).square().sum(2).topk(count, dim=1).indices  # [rows, count]
        places = tokens[:, :, None].expand(-1, -1, z.shape[2])
        self.values[i, name] = self.values[i, name].scatter(1, places, run.values(z, tokens))
        self.inputs[i] = self.inputs[i].scatter(1, places, z.gather(1, places))
        return self.values[i, name]
