"""FORA with any number of full evaluations, spread evenly: our adaptation, since whole intervals miss most budgets."""

import numpy as np

from cachebench.method import Method
from cachebench.schedule import Schedule


class SpreadFORA(Method):
    name = "FORA, spread (adapted)"
    reference = "arXiv:2407.01425"
    params = {"refreshes": [20]}
    knob = "refreshes"

    @classmethod
    def grid(cls, spec):
        return {"refreshes": list(range(spec.num_evaluations, 1, -1))}

    def schedule(self, spec, state=None):
        first = int("mid" in spec.plan.roles)  # as in FORA's anchor "shifted"
        spread = np.linspace(first, spec.num_evaluations - 1, self.refreshes - first).round().astype(int)
        return Schedule.refresh(spec, [0, *spread])
