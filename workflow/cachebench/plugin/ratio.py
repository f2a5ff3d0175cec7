"""EasyCache's rule: an output's change is foreseen from its input's, by the ratio that the last two computed ones had."""

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import at, size, together

LEADS = ("conditional", "both", "comfyui")  # whose magnitudes count: the conditional rows', those of both halves, or, as in
# ComfyUI, changes of the conditional ones over the size of both
CHANGES = ("path", "computed")  # an input's change: from the evaluation before, or from the last computed one


class Ratio:
    """`method` has `threshold`, `decision`, `change`, `lead` and `every`, of which rows and columns changes are measured.

    Inputs and outputs are [rows, C, H, W], those of `halves` one after the other. `ratios` and `sums` are those of every
    decision, for whoever looks. `session` is whose decisions they are."""

    def __init__(self, method, halves, session=None):
        self.method, self.halves, self.session = method, halves, session or Session()
        self.ratio = self.before = self.computed = self.sum = None
        self.ratios, self.sums = [], []

    def pooled(self, values, lead):
        """The mean of values [rows] over those that decide together, [rows]."""
        decision = self.method.decision
        if lead != "both" and decision not in ("half", "stream"):
            values = values.unflatten(0, (self.halves, -1))[:1].repeat(self.halves, 1).flatten()
        return together(values, decision, self.halves)

    def moved(self, now, before):
        every = self.method.every
        return self.pooled(size((now - before)[..., ::every, ::every]), self.method.lead)

    def judge(self, x, forced):
        """Which rows compute, bool [rows]; None: all."""
        if forced or self.ratio is None:
            self.before, self.sum = x, 0.0
            return None
        before, size_of = self.computed[0] if self.method.change == "computed" else self.before, self.computed[1]
        norm = self.pooled(size(size_of), "both" if self.method.lead == "comfyui" else self.method.lead)
        self.sum = self.sum + self.ratio * self.moved(x, before) / norm
        self.before = x
        self.ratios.append(self.ratio)
        self.sums.append(self.sum)
        compute = self.session.reaches(self.sum, self.method.threshold)
        self.sum = self.sum.where(~compute, 0.0)
        return compute

    def record(self, x, value, compute, compare=True):
        """The values [rows, ...] of inputs, computed where `compute` [rows] says so; None: everywhere. `compare`: whether the
        ratio is brought up to date."""
        if compare and self.computed is not None:
            ratio = self.moved(value, self.computed[1]) / self.moved(x, self.computed[0])
            self.ratio = ratio if compute is None or self.ratio is None else ratio.where(compute, self.ratio)
        self.computed = (
            (x, value) if compute is None else (at(compute, x, self.computed[0]), at(compute, value, self.computed[1]))
        )


def window(spec, start, end):
    """Where each evaluation stands to the shares `start` to `end` of the training times: "before", "in" or "after"."""
    first, last = round((1 - start) * 999), round((1 - end) * 999)
    times = [t - spec.noise.first_time for t in spec.times]
    return ["before" if t > first else "in" if t > last else "after" for t in times]
