"""FORA with any number of full evaluations, spread evenly: our adaptation, since whole intervals miss most budgets."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, Method
from cachebench.plugin.refresh import mids_first


class SpreadFORA(Method):
    name = "FORA, spread (adapted)"
    reference = "arXiv:2407.01425"
    params = {"refreshes": [20]}
    ranges = {"refreshes": COUNT}
    knob = "refreshes"

    @classmethod
    def grid(cls, spec):
        return {"refreshes": list(range(spec.num_evaluations, 1, -1))}

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, mids_first(spec, self.refreshes, evenly))


def evenly(places, n):
    return np.linspace(0, places - 1, n).round().astype(int)
