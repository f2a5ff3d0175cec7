"""TaylorSeer: every branch is forecast by a Taylor expansion between refreshes at an interval (arXiv:2503.06923)."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Taylor
from cachebench.plugin.method import AMOUNT, COUNT, Method


class TaylorSeer(Method):
    """Evaluations 0 and 1 are computed, and from there on every `interval`-th, as released; the last one is not forced."""

    name = "TaylorSeer"
    reference = "arXiv:2503.06923"
    params = {"interval": list(range(1, 11)), "order": [2]}
    ranges = {"interval": COUNT, "order": AMOUNT}
    knob = "interval"

    @property
    def forecaster(self):
        return Taylor(self.order)

    def schedule(self, spec, state=None):
        evaluation = np.arange(spec.num_evaluations)
        return Schedule.refresh(spec, (evaluation == 0) | ((evaluation - 1) % self.interval == 0))
