"""LazyCache: EasyCache's rule around the guided prediction of the image instead of the network's output (ComfyUI).

It sees X = x / a and D = X - (b / a) eps of a latent x = a x0 + b eps, and along a flow X = x and D = x + b v. The published
stand-in keeps D - X, so that the prediction grows as the noise falls; by default the prediction itself is kept."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import DECISIONS, Deciding, check, forced, indices, refusal
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.ratio import CHANGES, Ratio, at, window
from cachebench.plugin.values import allowed, among

VALUES = {  # what a prediction that was computed where D - X is so many times it is multiplied by elsewhere
    "value": lambda computed, now: 1.0,
    "diff": lambda computed, now: computed / now,  # as published
}


class LazyCache(Deciding):
    name = "LazyCache"
    reference = "ComfyUI; arXiv:2507.02860"
    params = {
        "threshold": [0.0, *np.geomspace(0.002, 100, 160).round(5).tolist()],
        "value": list(VALUES)[:1],
        "change": [CHANGES[1]],
        "every": [8],  # of which rows and columns changes are measured
        "start": [0.15],  # where decisions begin and end, as shares of the training times
        "end": [0.95],
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "every": COUNT, "start": SHARE, "end": SHARE}
    knob, lead = "threshold", "both"

    def supports(self, spec):
        return refusal(spec, 2)

    def session(self, model, spec, state=None):
        check(self)
        for name, known in (("value", VALUES), ("change", CHANGES)):
            among(name, getattr(self, name), known)
        return LazySession(self, spec)

    def store_values(self, spec, state=None):
        return 0  # latents alone, and no tokens


class LazySession(Session):
    """Decides before the network runs, and sees the guided output behind it; a row below is an image."""

    def __init__(self, method, spec):
        self.method, self.halves, self.arch = method, spec.rows, spec.arch
        self.data = [spec.noise.data(a, b) for a, b in zip(spec.plan.signal, spec.plan.noise, strict=True)]
        self.forced, self.window = forced(spec), window(spec, method.start, method.end)
        self.reset()

    def reset(self):
        self.ratio = Ratio(self.method, 1, self)
        self.kept = None  # the guided output of the last computed evaluation, and its part in D: [images, ...]

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def network(self, x, run):
        now, images = self.evaluation, len(x) // self.halves
        self.x = self.data[now][0] * x[:images].float()  # X
        self.compute = self.ratio.judge(self.x, self.forced[now] or self.window[now] != "in")
        rows = None if self.compute is None else indices(self, self.compute.repeat(self.halves))
        if rows is None:
            self.compute = None
            return run(x)
        out = x.new_zeros(len(x), self.arch.out_channels, *x.shape[2:])
        return out.index_copy(0, rows, run.rows(rows)(x[rows])) if len(rows) else out

    def output(self, out):
        """out [images, C', H, W]; where nothing ran it is 0, and the stand-in is taken."""
        import torch

        level, C = self.data[self.evaluation][1], self.arch.channels
        levels = torch.full((len(out), 1, 1, 1), level, device=out.device)
        if self.compute is not None:
            before, computed = self.kept
            factor = allowed("value", self.method.value, VALUES)(computed, levels)
            stand_in = torch.cat([before[:, :C] * factor, before[:, C:]], dim=1)
            kept = at(self.compute, out, before), at(self.compute, levels, computed)
            out = at(self.compute, out, stand_in)
        else:
            kept = out, levels
        self.ratio.record(self.x, self.x + level * out[:, :C], self.compute, self.window[self.evaluation] != "before")
        self.kept = kept
        return out
