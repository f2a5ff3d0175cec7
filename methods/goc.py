"""GOC: FORA's reused values are continued along their last change, where the statistics allow it (arXiv:2503.05156)."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.refresh import at_interval


class GOC(Method):
    """The first `cached` evaluations of those that an interval leaves out are reused: of 20 steps 5 are the paper's 25 %, and
    10 its 50 %. At longer intervals only the first of a run of reuses is corrected: ours."""

    name = "GOC"
    reference = "arXiv:2503.05156"
    params = {
        "cached": [10],
        "interval": list(range(2, 11)),
        "weight": [1.2],  # eta, as released on FORA at 20 steps; elsewhere 0.8, as on L2C, since above 1 errors grow
        "excluded": ["released"],  # 17 of 20, else by trend; or "trend", "none", or evaluations, such as "11 17"
        "samples": [50],
    }
    ranges = {"cached": AMOUNT, "interval": COUNT, "weight": AMOUNT, "samples": COUNT}
    knob = "cached"
    fit_params = ("samples",)
    history = 2
    remember = "all"

    @classmethod
    def grid(cls, spec):
        most = spec.num_evaluations - len(at_interval(spec, max(cls.params["interval"])))
        released = spec.num_evaluations == 20 and not spec.first_counted
        return cls.params | {"cached": list(range(most + 1))} | ({} if released else {"weight": [0.8]})

    def fit(self, problem):
        from cachebench.plugin import gradient

        trend = gradient.trend(problem, self.samples)
        return {"trend": trend}, gradient.curve(trend)

    def schedule(self, spec, state=None):
        left_out = np.setdiff1d(np.arange(spec.num_evaluations), at_interval(spec, self.interval))
        return Schedule.refresh(spec, ~np.isin(np.arange(spec.num_evaluations), left_out[: self.cached]))

    def predictor(self, model, spec, state):
        from cachebench.plugin import gradient

        where = gradient.corrected(self.schedule(spec, state).compute, gradient.excluded(self.excluded, spec, state))
        return gradient.predictor(self.weight, where)
