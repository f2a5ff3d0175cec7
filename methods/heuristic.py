"""The hand-made choices that L2C is compared with, at the evaluations where it reuses (arXiv:2406.01733, Figure 4)."""

import numpy as np

from cachebench.engine.schedule import Schedule, router_keys
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.routers import refusal


class Heuristic(Method):
    name = "Heuristic"
    reference = "arXiv:2406.01733"
    params = {
        "reused": [round(0.01 * i, 2) for i in range(101)],  # share of the branches of these evaluations
        "rule": ["bottom", "top", "random", "metric"],  # the first blocks, the last, any, or those that Eq. 7 says change least
        "seed": [0],
        "samples": [32],
    }
    ranges = {"reused": SHARE, "seed": AMOUNT, "samples": COUNT}
    knob = "reused"
    variants = "rule"
    fit_params = ("samples",)

    @classmethod
    def has_fit(cls):
        return "metric" in cls.fixed.values()

    def supports(self, spec):
        return refusal(spec)

    def fit(self, problem):
        from cachebench.fit import calibrate

        metric = calibrate.changes(problem, self.samples, measure=calibrate.gated_l2)[1].mean(-1)
        return {"metric": metric.float()}, calibrate.curve("metric", metric)

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        evaluations, blocks, branches = np.indices(mask.shape)
        height = branches.shape[2] * blocks + branches  # of a branch in the network
        worth = {  # what is worth least is reused first, of equals the noisiest evaluation
            "bottom": height,
            "top": -height,
            "random": np.random.default_rng(self.seed).random(mask.shape),
            "metric": height if state is None else state["metric"],
        }
        if self.rule not in worth:
            raise ValueError(f"rule: unknown {self.rule!r}; allowed: {', '.join(worth)}")
        cached = np.flatnonzero(np.isin(evaluations, list(router_keys(spec.plan.roles))))
        order = cached[np.argsort(worth[self.rule].reshape(-1)[cached], kind="stable")]
        mask.reshape(-1)[order[: round(self.reused * len(order))]] = False
        return Schedule(mask)
