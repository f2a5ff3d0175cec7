"""Example: reuse a branch at the evaluations at which its output changes least, as the calibration set shows it."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, SHARE, Method


class Example(Method):
    name = "Example"
    reference = "an example"
    params = {"reused": np.linspace(0, 0.95, 96).round(2).tolist(), "samples": [10]}
    ranges = {"reused": SHARE, "samples": COUNT}
    knob = "reused"
    fit_params = ("samples",)  # the parameters that the fit depends on

    def fit(self, problem):
        """What is measured once, before the budgets: ({name: tensor}, rows of a curve)."""
        from cachebench.fit import calibrate  # torch is imported where it is needed, so that matching is fast

        sums = calibrate.changes(problem, self.samples, lags=1).sum(-1)  # over the images
        change = calibrate.share(sums[1:], sums[0])[0].mean(1)  # [evaluations, branches], the mean over the blocks
        return {"change": change.float()}, [{"evaluation": i, "change": float(row.mean())} for i, row in enumerate(change)]

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        if state is not None:
            change = state["change"].copy()
            change[0] = np.inf  # evaluation 0 computes everything
            order = np.argsort(change, axis=None)[: round(self.reused * change.size)]
            evaluations, branches = np.unravel_index(order, change.shape)
            mask[evaluations, :, branches] = False
            mask[0] = True
        return Schedule(mask)
