"""Example: compute everything in the first `full` evaluations, then refresh every second one."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, Method


class Example(Method):
    name = "Example"  # as tables print it
    reference = "an example"  # the paper
    params = {"full": [20]}  # of every parameter its values; the first is the default
    ranges = {"full": COUNT}  # what a configuration may say: at least 1
    knob = "full"  # the parameter that the matcher turns to reach a budget

    @classmethod
    def grid(cls, spec):
        """The values on a run, those of the knob from saving nothing to saving most."""
        return {"full": list(range(spec.num_evaluations, 0, -1))}

    def schedule(self, spec, state=None):
        """Which branches are computed: bool [evaluations, blocks, branches]. What is not computed is reused."""
        evaluation = np.arange(spec.num_evaluations)
        return Schedule.refresh(spec, (evaluation < self.full) | (evaluation % 2 == 0))
