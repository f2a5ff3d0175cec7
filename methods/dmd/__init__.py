"""DMD, cache-dit's calibrator: the middle blocks' increment is continued by exponentials, each sample's by itself."""

from cachebench.plugin.calibrated import CalibratedMethod
from cachebench.plugin.method import COUNT

from .modes import Modes, suffix


class DynamicModes(CalibratedMethod):
    """Modes need four computed evaluations at one distance; before, the line through the last two stands in. An eigenvalue
    above 1 grows, so that long intervals end badly: cache-dit ships it all the same."""

    name = "DMD (cache-dit's calibrator)"
    reference = "cache-dit (DMD)"
    waits = True  # eigenvalues of some small matrices are computed on the host
    params = CalibratedMethod.host | {
        "warmup": [4],
        "snapshots": [6],  # computed values that modes are made from, at most
        "fallback": ["taylor1"],  # or "literal": cache-dit's slope, over two intervals but divided by one
    }
    ranges = CalibratedMethod.ranges | {"snapshots": COUNT}

    @property
    def forecaster(self):
        return Modes(self.snapshots, self.fallback)

    def session(self, model, spec, state=None):
        made = super().session(model, spec, state)
        made.forecaster.read = made.read
        return made

    def rows(self, spec, state=None):
        """With the products of every fit: one for each evaluation before a skip, where there are snapshots enough."""
        computed, places, spent = self.computes(spec, state), [], 0
        for evaluation, one in enumerate(computed):
            if one:
                places = [*places, evaluation][-self.snapshots :]
            elif computed[evaluation - 1]:
                spent += suffix(places) ** 2 * spec.arch.tokens * spec.arch.width
        return super().rows(spec, state) | ({"spent": spent} if spent else {})
