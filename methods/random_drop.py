"""Random drop: random branches contribute nothing at the evaluations that L2C caches (arXiv:2406.01733, Table 7)."""

import numpy as np

from cachebench.engine.schedule import Schedule, router_keys
from cachebench.plugin.method import AMOUNT, SHARE, Method
from cachebench.plugin.routers import refusal


class RandomDrop(Method):
    name = "Random drop"
    reference = "arXiv:2406.01733"
    params = {"dropped": [round(0.01 * i, 2) for i in range(101)], "seed": [0]}  # a share of what L2C may cache
    ranges = {"dropped": SHARE, "seed": AMOUNT}
    knob = "dropped"
    history = 0

    def supports(self, spec):
        return refusal(spec)

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        cached = np.isin(np.arange(len(mask)), list(router_keys(spec.plan.roles)))
        order = np.random.default_rng(self.seed).permutation(np.flatnonzero(mask & cached[:, None, None]))
        mask.reshape(-1)[order[: round(self.dropped * len(order))]] = False
        return Schedule(mask)

    def predict(self, history, site, evaluation):
        return 0.0
