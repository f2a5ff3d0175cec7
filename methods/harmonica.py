"""HarmoniCa: routers of all evaluations, trained along sampling trajectories with the final error as weight (arXiv:2410.01723).

Training starts from noise and needs no images. At every evaluation but the first the student mixes each branch's fresh value
with the one that it kept, and goes on with what it mixed. Its error against the full output is weighted by what mixing there
does to the sample, lambda; beta weighs the scores. A branch is reused where its score is at most the threshold, however old
its value is."""

import numpy as np

from cachebench.engine.schedule import router_keys
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.routers import Routed


class HarmoniCa(Routed):
    """`proxy` says how lambda is measured: "cumulative", as released, switches evaluations to mixing one after the other and
    takes the mean square of each move of the sample; "leave_one_out", as on the poster, takes one evaluation out of the mixing,
    and the sum of squares. Beta and the threshold are the released ones of ten steps; the authors turn beta alone."""

    name = "HarmoniCa"
    reference = "arXiv:2410.01723"
    params = {
        "threshold": Routed.params["threshold"],
        "proxy": ["cumulative", "leave_one_out"],
        "beta": [7e-8],
        "iterations": [2000],  # trajectories, with a step of the optimiser at every evaluation
        "lr": [1e-2],
        "batch_size": [32],  # images; with guidance twice as many rows
        "kept_above": [0.1],  # while training a mixed value is kept where its score is above
        "refresh": [500],  # evaluations of the student after which lambda is measured again
        "pairing": ["all"],
    }
    ranges = Routed.ranges | {"beta": AMOUNT, "kept_above": SHARE, "refresh": COUNT}
    knob = "threshold"
    variants = "proxy"
    fit_params = ("proxy", "beta", "iterations", "lr", "batch_size", "kept_above", "refresh", "pairing")

    @classmethod
    def grid(cls, spec):
        return cls.params

    def fit(self, problem):
        from cachebench.fit.router import Way, train_routers

        way = Way("trajectories", "run", self.proxy, self.kept_above, self.refresh, reduce="mean", limit=5.0)
        return train_routers(problem, self.beta, self.iterations, self.lr, self.batch_size, self.pairing, way=way)

    def breakpoints(self, spec, state):
        """The scores, at which a branch is reused; a little more, since the threshold's logit is rounded."""
        rows = state["routers"][list(router_keys(spec.plan.roles, self.pairing).values())].astype(np.float64)
        return (1 / (1 + np.exp(-rows)) + 1e-12).ravel().tolist()
