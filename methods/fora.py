"""FORA: recompute all branches every `interval` evaluations and reuse them in between (arXiv:2407.01425, section 3)."""

import numpy as np

from cachebench.method import Method
from cachebench.schedule import Schedule


class FORA(Method):
    name = "FORA"
    reference = "arXiv:2407.01425"
    params = {"interval": list(range(1, 11)), "anchor": ["descending", "ascending+last", "ascending"]}
    knob = "interval"

    def schedule(self, spec, state=None):
        evaluation = np.arange(spec.num_evaluations)
        if self.anchor == "descending":  # the released rule counts from the end, and forces the first
            return Schedule.refresh(spec, (evaluation[::-1] % self.interval == 0) | (evaluation == 0))
        forced = (evaluation == evaluation[-1]) & (self.anchor == "ascending+last")
        return Schedule.refresh(spec, (evaluation % self.interval == 0) | forced)
