"""Greedy oracle: drops next what costs least on the calibration set; ours, an upper mark for static schedules."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, SHARE, Method


class OracleGreedy(Method):
    name = "Greedy oracle"
    kind = "control"
    params = {"reused": [round(0.01 * i, 2) for i in range(101)], "samples": [4], "rounds": [16]}
    ranges = {"reused": SHARE, "samples": COUNT, "rounds": COUNT}
    knob = "reused"
    fit_params = ("samples", "rounds")

    def fit(self, problem):
        from .greedy import order

        return order(problem, self.samples, self.rounds)

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        if state is not None:
            mask.reshape(-1)[state["order"][: round(self.reused * mask[1:].size)]] = False
        return Schedule(mask)
