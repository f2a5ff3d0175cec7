"""TCC on Learning-to-Cache: what its routers reuse first is rotated, scaled and shifted towards what they would compute."""

import numpy as np

from cachebench.plugin.method import SHARE
from cachebench.plugin.rotated import Rotated
from cachebench.plugin.routers import Routed


class RoutedTCC(Rotated, Routed):
    """One fit serves every threshold: it follows the host at `fitted_at`, and there measures the branches that are computed,
    too, by what they could reuse."""

    name = "TCC on L2C"
    reference = "arXiv:2605.24870"
    params = Routed.params | Rotated.options | {"fitted_at": [0.1]}
    ranges = Routed.ranges | Rotated.option_ranges | {"fitted_at": SHARE}
    fit_params = (*Routed.fit_params, *Rotated.options, "fitted_at")

    def window(self, spec, state):
        cached = np.flatnonzero(~self.at(1.0).schedule(spec, state).compute.all(axis=(1, 2)))
        return cached[: self.corrected].tolist()

    def at(self, threshold):
        return type(self)(**{name: getattr(self, name) for name in self.params} | {"threshold": threshold})

    def fit(self, problem):
        state, curve = super().fit(problem)
        routers = {name: value.cpu().numpy() for name, value in state.items()}
        host, window = self.at(self.fitted_at).schedule(problem.spec, routers), self.window(problem.spec, routers)
        corrections, _ = self.measured(problem, [(host, window)])
        return state | corrections, curve
