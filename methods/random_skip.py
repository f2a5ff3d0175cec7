"""Reuses a random choice of branches: the lower control that any method must beat at the same cost."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, SHARE, Method


class RandomSkip(Method):
    name = "Random skip"
    kind = "control"
    params = {"reused": [round(0.01 * i, 2) for i in range(96)], "seed": [0]}
    ranges = {"reused": SHARE, "seed": AMOUNT}
    knob = "reused"

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        later = mask[1:].size  # evaluation 0 is always computed
        order = np.random.default_rng(self.seed).permutation(later)
        mask.reshape(-1)[mask.size - later + order[: round(self.reused * later)]] = False
        return Schedule(mask)
