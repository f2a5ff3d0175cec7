"""cache-dit's host of a forecast: the first and last blocks always run, and what the ones between them add is forecast."""

import numpy as np

from cachebench.plugin.first_block import refusal
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.refresh import after_warmup, warmups
from cachebench.plugin.stack import StackMethod
from cachebench.plugin.step_masks import of_text


class CalibratedMethod(StackMethod):
    """A method of this kind has a `forecaster`, and says how many evaluations its `warmup` takes."""

    knob = "interval"
    ranges = {"interval": COUNT, "front": AMOUNT, "back": AMOUNT, "warmup": COUNT}
    host = {
        "interval": list(range(1, 11)),  # after the warm-up; cache-dit's "max continuous", and one
        "front": [1],  # Fn
        "back": [0],  # Bn
        "mask": [
            ""
        ],  # or a preset of `plugin.step_masks`, or a 1 for every evaluation that computes all, and a 0 for each of the others
    }

    @classmethod
    def grid(cls, spec):
        return cls.params | {"warmup": warmups(spec, cls.params["warmup"][0])}

    def supports(self, spec):
        return refusal(spec, self.front, self.back, "forecast")

    def chosen(self, spec, state):
        if not self.mask:
            return after_warmup(spec, self.warmup, self.interval)
        return [e for e, computes in enumerate(of_text(self.mask, spec.num_evaluations)) if computes]

    def kept(self):
        return "increment", self.forecaster

    def store_values(self, spec, state=None):
        computed = np.array(self.computes(spec, state))
        return int(self.forecaster.held(computed.cumsum())[:-1][~computed[1:]].max(initial=0))
