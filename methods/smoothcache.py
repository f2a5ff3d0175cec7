"""SmoothCache: all blocks reuse a branch type as far ahead as its calibrated change stays small (arXiv:2411.10510)."""

import numpy as np

from cachebench.method import Method
from cachebench.schedule import Schedule

ALPHAS = [0.0, *np.geomspace(0.01, 3, 200).round(4).tolist()]


class SmoothCache(Method):
    """The paper's greedy scan is not quite monotone: a longer reuse may land where the next one is shorter. So that cost falls
    with alpha, each type takes the cheapest scan over alpha and the smaller ALPHAS, of equals the one at the largest: ours."""

    name = "SmoothCache"
    reference = "arXiv:2411.10510"
    params = {"alpha": ALPHAS, "k_max": [3], "samples": [10]}
    knob = "alpha"
    fit_params = ("k_max", "samples")

    def fit(self, problem):
        from cachebench.train import calibrate

        sums = calibrate.changes(problem, self.samples, lags=self.k_max).sum(-1)  # over the whole batch
        errors = calibrate.share(sums[1:], sums[0])  # [k - 1, later evaluation, block, branch]
        return {"errors": errors.mean(2).float()}, calibrate.curve("relative_change", errors[0])

    def schedule(self, spec, state=None):
        if state is None:  # nothing calibrated yet: nothing is reused
            return Schedule.full(spec)
        mask = np.zeros(spec.mask_shape, bool)
        first = int("mid" in spec.plan.roles)  # DPM-Solver-2 computes its first step in full
        mask[: first + 1] = True
        alphas = [self.alpha, *(a for a in reversed(ALPHAS) if a < self.alpha)]
        for j in range(mask.shape[2]):
            errors = state["errors"][:, first:, j].tolist()
            cheapest = min((self.scan(errors, alpha) for alpha in alphas), key=len)
            mask[np.array(cheapest) + first, :, j] = True
        return Schedule(mask)

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
