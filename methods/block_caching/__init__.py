"""Block Caching: each branch is reused until its calibrated changes add up to delta, and scale-shifted (arXiv:2312.03209)."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import AMOUNT, COUNT, Method

DELTAS = [0.0, *np.geomspace(0.01, 30, 200).round(4).tolist()]


class BlockCaching(Method):
    """The unit is the branch, before its gate. One scale-shift table serves every delta, since it is trained on schedules
    drawn from all of them: our adaptation, and no table by default (`iterations`), nor where a forecaster says what stands in
    for a branch."""

    name = "Block Caching"
    reference = "arXiv:2312.03209"
    params = {
        "delta": DELTAS,
        "normalise_by": ["new"],  # the later of two values, or the "old" one: the paper's index can be read both ways
        "samples": [64],
        "iterations": [0],
        "lr": [1e-4],
        "batch_size": [16],
    }
    ranges = {"delta": AMOUNT, "samples": COUNT, "iterations": AMOUNT, "lr": AMOUNT, "batch_size": COUNT}
    knob = "delta"
    fit_params = ("normalise_by", "samples", "iterations", "lr", "batch_size")

    def fit(self, problem):
        from cachebench.fit import calibrate

        from .scale_shift import train_scale_shift

        if self.normalise_by not in ("new", "old"):
            raise ValueError(f"normalise_by: unknown {self.normalise_by!r}; allowed: new, old")
        size, moved = calibrate.changes(problem, self.samples)
        change = calibrate.share(moved, size.roll(int(self.normalise_by == "old"), 0)).mean(-1)  # over the runs
        change[0] = 0  # nothing comes before it
        state = {"change": change.float()}
        if not self.iterations or (self.forecaster and self.forecasts == "branch"):
            return state, calibrate.curve("relative_change", change)
        masks = {mask.tobytes(): mask for delta in DELTAS if not (mask := self.mask(problem.spec, change.numpy(), delta)).all()}
        schedules = [Schedule(mask) for mask in masks.values()]
        table, curve = train_scale_shift(problem, schedules, self.iterations, self.lr, self.batch_size)
        return state | {"scale_shift": table}, curve

    def schedule(self, spec, state=None):
        return Schedule.full(spec) if state is None else Schedule(self.mask(spec, state["change"], self.delta))

    def mask(self, spec, change, delta):
        """Compute mask of `change` [evaluations, blocks, branches], each evaluation's to the one before."""
        mask, total = np.ones(spec.mask_shape, bool), np.zeros(spec.mask_shape[1:])
        for now in range(1 + spec.first_counted, len(mask)):
            total += change[now]
            mask[now] = total > delta
            total[mask[now]] = 0
        return mask

    def breakpoints(self, spec, state):
        """The sums at which a branch is computed again: with a delta as large it no longer is. Each branch by itself."""
        deltas = set()
        for change in state["change"][1 + spec.first_counted :].reshape(-1, state["change"][0].size).T.tolist():
            delta = -1.0
            while sums := self.sums(change, delta):
                delta = min(sums)
                deltas.add(delta)
        return deltas

    @staticmethod
    def sums(change, delta):
        """The accumulated `change` of one branch at each evaluation that computes it."""
        sums, total = [], 0.0
        for moved in change:
            total += moved
            if total > delta:
                sums.append(total)
                total = 0.0
        return sums

    def only_reuses(self, spec):
        return not self.iterations

    def predictor(self, model, spec, state):
        if not state or "scale_shift" not in state:
            return None
        from .scale_shift import stand_in

        return stand_in(next(model.parameters()).new_tensor(state["scale_shift"]))
