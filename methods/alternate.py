"""Every second evaluation reused completely, from the noisiest on: which half of a solver's evaluations can be cached at all?

On DPM-Solver-2 the outer evaluations (from the second step on) or the mid ones; on solvers with one evaluation a step those
that stand in the same places. The outer prediction cancels out of DPM-Solver-2's update (Ma et al.,
arXiv:2406.01733, appendix B.1), so that what caching it costs is a property of the solver more than of the network. On Heun's
method neither cancels, but an outer one nearly repeats the mid one before it."""

import numpy as np

from cachebench.engine.samplers import END
from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, Method


class Alternate(Method):
    name = "Alternate"
    reference = "arXiv:2406.01733"
    kind = "control"
    params = {"reused": [0, 1], "which": ["outer", "mid"]}
    ranges = {"reused": AMOUNT}
    knob = "reused"  # how many evaluations
    variants = "which"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"reused": list(range(len(cls.places(spec, cls.fixed.get("which"))) + 1))}

    @staticmethod
    def places(spec, which):
        """The evaluations of a half; the one that ends a trajectory in x0 belongs to neither."""
        return np.arange(1 if which == "mid" else 2, spec.num_evaluations - spec.plan.roles.count(END), 2)

    def schedule(self, spec, state=None):
        places = self.places(spec, self.which)
        return Schedule.refresh(spec, np.setdiff1d(np.arange(spec.num_evaluations), places[: self.reused]))
