"""TCC: what FORA reuses first is rotated, scaled and shifted towards what would have been computed (arXiv:2605.24870).

Without the rotation the correction costs no products; with it they are charged."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT
from cachebench.plugin.refresh import at_interval
from cachebench.plugin.rotation import Rotated


class TCC(Rotated):
    """Each interval is fitted by itself."""

    name = "TCC"
    reference = "arXiv:2605.24870"
    params = {"interval": list(range(1, 11))} | Rotated.options
    ranges = Rotated.option_ranges | {"interval": COUNT}
    knob = "interval"
    fit_params = tuple(params)

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, at_interval(spec, self.interval))

    def window(self, spec, state):
        reused = np.setdiff1d(np.arange(spec.num_evaluations), at_interval(spec, self.interval))
        return reused[: self.corrected].tolist()

    def fit(self, problem):
        """At interval 1, where nothing is reused, that of interval 2: nobody reads it."""
        host = (
            self if self.interval > 1 else type(self)(**{name: getattr(self, name) for name in self.params} | {"interval": 2})
        )
        return self.measured(problem, host.schedule(problem.spec), host.window(problem.spec, None))
