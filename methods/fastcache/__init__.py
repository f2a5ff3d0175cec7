"""FastCache: a linear map replaces a block whose input has hardly changed, and does so for tokens (arXiv:2505.20353).

The maps are fitted by ridge regression on the calibration set, where the released program leaves them random. As printed, the
test of change is true at any change below 100 %, and as programmed it is a threshold of the relative change; so it is here."""

from statistics import NormalDist

import numpy as np

from cachebench.plugin.deciding import DECISIONS, Deciding, check, forced
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.values import among

from .deciding import FastSession

TESTS = ("relative", "chi2")


class FastCache(Deciding):
    """`form`: "document" compares with the evaluation before, and splits tokens once, before all blocks; "released" compares
    with the last evaluation at which a block ran, and splits tokens in every block. Static tokens take the linear map of all
    blocks, or of the block; the moving ones see each other alone."""

    name = "FastCache"
    reference = "arXiv:2505.20353"
    params = {
        "threshold": [0.0, *np.geomspace(0.002, 3, 80).round(4).tolist()],
        "form": ["document", "released"],
        "motion": [0.0],  # tokens move by more than this share of the largest change among them; 0: no token is split off
        "test": list(TESTS[:1]),  # "chi2": squares are held against a quantile, in units of the change on the calibration set
        "alpha": [0.05],  # of that quantile
        "samples": [64],
        "ridge": [1e-3],  # as a share of the inputs' mean square
        "buckets": [1],  # parts of the trajectory with maps of their own
        "last": [0],  # evaluations at the end that compute everything
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "motion": SHARE, "alpha": SHARE, "samples": COUNT, "ridge": AMOUNT, "buckets": COUNT}
    ranges |= {"last": AMOUNT}
    knob = "threshold"
    variants = "form"
    fit_params = ("motion", "samples", "ridge", "buckets")

    @classmethod
    def grid(cls, spec):
        return cls.params | {"motion": [0.1] if "released" in cls.fixed.values() else [0.0, 0.1]}

    def fit(self, problem):
        from .maps import fitted

        return fitted(problem, self.samples, self.motion, self.ridge, self.buckets)

    def session(self, model, spec, state=None):
        from cachebench.engine.doors import Session

        check(self)
        among("test", self.test, TESTS)
        if state is None or not self.threshold:  # nothing fitted yet, or nothing may have changed
            return Session()
        arch = spec.arch
        if state["weight"].shape != (expected := (self.buckets, arch.blocks + 1, arch.width, arch.width)):
            raise ValueError(f"maps have shape {state['weight'].shape}, the run needs {expected}")
        return FastSession(self, spec, state, forced(spec, last=self.last))

    def store_values(self, spec, state=None):
        return spec.arch.blocks + 1  # the input of every block, and of all of them

    def bounds(self, spec, state):
        """What the squared relative change of every block's input may be: [blocks]."""
        if self.test == "relative":
            return [self.threshold**2] * spec.arch.blocks
        scale = self.threshold * quantile(1 - self.alpha, spec.arch.tokens * spec.arch.width)
        return [scale * change for change in state["changes"].tolist()]


def quantile(share, count):
    """The quantile of chi-square over its degrees of freedom, `count`, by Wilson and Hilferty's approximation."""
    spread = 2 / (9 * count)
    return (1 - spread + NormalDist().inv_cdf(share) * spread**0.5) ** 3
