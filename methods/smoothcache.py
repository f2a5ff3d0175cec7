"""SmoothCache: all blocks reuse a branch type as far ahead as its calibrated change stays small (arXiv:2411.10510)."""

import numpy as np

from cachebench.method import Method
from cachebench.schedule import Schedule

ALPHAS = [0.0, *np.geomspace(0.005, 5, 200).round(4).tolist()]


class SmoothCache(Method):
    """At each alpha and for each type the cheapest schedule over this and the smaller ALPHAS, the largest of them first: our
    adaptation, which gives the paper's schedule wherever cost falls with alpha, as its greedy scan almost always has it."""

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
        mask = np.ones(spec.mask_shape, bool)
        if state is None:  # nothing calibrated yet: nothing is reused
            return Schedule(mask)
        first = int("mid" in spec.plan.roles)  # DPM-Solver-2: its first step is computed in full
        alphas = [self.alpha, *(a for a in reversed(ALPHAS) if a < self.alpha)]
        for j in range(mask.shape[2]):
            errors = state["errors"][:, first:, j].tolist()
            mask[first:, :, j] = min((scan(errors, alpha) for alpha in alphas), key=sum)[:, None]
        return Schedule(mask)


def scan(errors, alpha):
    """The evaluations to compute, bool [evaluations]: from each the farthest reuse with an error of at most `alpha`; the last.

    `errors[k - 1][i + k]` is that of evaluation i's value at evaluation i + k; what lies between is not looked at."""
    compute, i = np.zeros(len(errors[0]), bool), 0
    while i < len(compute):
        compute[i] = True
        reach = (k for k in range(len(errors), 0, -1) if i + k < len(compute) and errors[k - 1][i + k] <= alpha)
        i += 1 + next(reach, 0)
    compute[-1] = True
    return compute
