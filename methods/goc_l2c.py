"""GOC on Learning-to-Cache: what its routers reuse is continued along its last change where a block is reused as a whole."""

from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.routers import Routed


class RoutedGOC(Routed):
    name = "GOC on L2C"
    reference = "arXiv:2503.05156"
    params = Routed.params | {"weight": [0.8], "excluded": ["released"], "samples": [50]}  # as of `goc`; eta released on L2C
    ranges = Routed.ranges | {"weight": AMOUNT, "samples": COUNT}
    fit_params = (*Routed.fit_params, "samples")
    history = 2
    remember = "all"

    def fit(self, problem):
        from cachebench.plugin import gradient

        state, curve = super().fit(problem)
        return state | {"trend": gradient.trend(problem, self.samples)}, curve

    def predictor(self, model, spec, state):
        from cachebench.plugin import gradient

        where = gradient.corrected(self.schedule(spec, state).compute, gradient.excluded(self.excluded, spec, state))
        return gradient.predictor(self.weight, where)
