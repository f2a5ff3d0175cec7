"""DMD, cache-dit's calibrator: the middle blocks' increment is continued by exponentials, each sample's by itself."""

from cachebench.plugin.calibrated import CalibratedMethod
from cachebench.plugin.method import COUNT
from cachebench.plugin.modes import Modes


class DynamicModes(CalibratedMethod):
    """Modes need four computed evaluations at one distance; before, the line through the last two stands in. An eigenvalue
    above 1 grows, so that long intervals end badly: cache-dit ships it all the same."""

    name = "DMD (cache-dit's calibrator)"
    reference = "cache-dit (DMD)"
    waits = Modes.waits
    params = CalibratedMethod.host | {
        "warmup": [4],
        "snapshots": [6],  # computed values that modes are made from, at most
        "fallback": ["taylor1"],  # or "literal": cache-dit's slope, over two intervals but divided by one
    }
    ranges = CalibratedMethod.ranges | {"snapshots": COUNT}

    @property
    def forecaster(self):
        return Modes(self.snapshots, self.fallback)

    def rows(self, spec, state=None):
        computed = self.computes(spec, state)
        spent = self.forecaster.products(computed, range(len(computed))) * spec.arch.tokens * spec.arch.width
        return super().rows(spec, state) | ({"spent": spent} if spent else {})
