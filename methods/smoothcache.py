"""SmoothCache: all blocks reuse a branch type as far ahead as its calibrated change stays small (arXiv:2411.10510)."""

import math
from functools import lru_cache

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, COUNT, Method

ALPHAS = [0.0, *np.geomspace(0.01, 3, 200).round(4).tolist()]


class SmoothCache(Method):
    """The paper's greedy scan is not quite monotone: a longer reuse may land where the next one is shorter. So that cost falls
    with alpha, each type takes the cheapest scan of all up to alpha, of equals the one at the largest: ours."""

    name = "SmoothCache"
    reference = "arXiv:2411.10510"
    params = {"alpha": ALPHAS, "k_max": [3], "samples": [10]}
    ranges = {"alpha": AMOUNT, "k_max": COUNT, "samples": COUNT}
    knob = "alpha"
    fit_params = ("k_max", "samples")

    def fit(self, problem):
        from cachebench.fit import calibrate

        sums = calibrate.changes(problem, self.samples, lags=self.k_max).sum(-1)  # over the whole batch
        errors = calibrate.share(sums[1:], sums[0])  # [k - 1, later evaluation, block, branch]
        return {"errors": errors.mean(2).float()}, calibrate.curve("relative_change", errors[0])

    def schedule(self, spec, state=None):
        if state is None:  # nothing calibrated yet: nothing is reused
            return Schedule.full(spec)
        mask = np.zeros(spec.mask_shape, bool)
        mask[: spec.first_counted + 1] = True
        for j, scans in enumerate(self.scans(spec, state)):
            computed = next(computed for error, computed in reversed(scans) if error <= self.alpha)
            mask[np.array(computed) + spec.first_counted, :, j] = True
        return Schedule(mask)

    def breakpoints(self, spec, state):
        return {error for scans in self.scans(spec, state) for error, _ in scans[1:]}

    @staticmethod
    def scans(spec, state):
        """`cheapest` of every branch type, from the first evaluation that counts."""
        errors = state["errors"][:, spec.first_counted :]
        return [cheapest(tuple(map(tuple, errors[..., j].tolist()))) for j in range(errors.shape[2])]

    @staticmethod
    def scan(errors, alpha):
        """The evaluations to compute: after each the farthest reuse with an error of at most `alpha`; and the last one.

        `errors[k - 1][i + k]` is that of evaluation i's value at evaluation i + k; what lies between is not looked at."""
        last, computed, i = len(errors[0]) - 1, [], 0
        while i <= last:
            computed.append(i)
            reach = (k for k in range(min(len(errors), last - i), 0, -1) if errors[k - 1][i + k] <= alpha)
            i += 1 + next(reach, 0)
        return computed if computed[-1] == last else [*computed, last]


@lru_cache
def cheapest(errors):
    """[(error, evaluations to compute)], ascending: the errors at which the cheapest scan of all up to it is another one."""
    scans = [(-math.inf, SmoothCache.scan(errors, -math.inf))]
    for error in sorted({error for k, row in enumerate(errors, 1) for error in row[k:]}):
        computed = SmoothCache.scan(errors, error)
        if len(computed) <= len(scans[-1][1]) and computed != scans[-1][1]:
            scans.append((error, computed))
    return scans
