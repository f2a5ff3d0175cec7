"""EasyCache: the network is skipped until the output's change, foreseen from the input's, is too large (arXiv:2507.02860).

What is foreseen is the input's change times the ratio of both between the last two computed evaluations. What is skipped costs
nothing. The published stand-in, the last output plus the input's change since, supposes that an output moves as its input
does, as a velocity may; a noise prediction does not, so that there the last output itself stands in. A velocity from noise to
data, as SiT's, moves against its input: `sign` is -1 there, and `easycache_flow` finds it on the calibration set."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import DECISIONS, Deciding, check, forced, indices, refusal
from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.ratio import CHANGES, LEADS, Ratio, at, window
from cachebench.plugin.values import among

# What is kept of an input x and an output v, which say that the data are p x + q v, and what it gives v back as elsewhere.
VALUES = {
    "value": (lambda x, v, p, q, sign: v, lambda kept, x, p, q, sign: kept),
    "diff": (lambda x, v, p, q, sign: v - sign * x, lambda kept, x, p, q, sign: kept + sign * x),  # as published
    "x0": (lambda x, v, p, q, sign: p * x + q * v, lambda kept, x, p, q, sign: (kept - p * x) / q),
    "lazy": (lambda x, v, p, q, sign: q * v, lambda kept, x, p, q, sign: kept / q),
}
MEASURED = {"diff": "value"}  # whose change is measured where it is not what is kept


class EasyCache(Deciding):
    name = "EasyCache"
    reference = "arXiv:2507.02860"
    params = {
        "threshold": [0.0, *np.geomspace(0.002, 100, 160).round(5).tolist()],
        "warmup": [2],  # evaluations that compute first
        "value": list(VALUES)[:1],
        "sign": [1],  # of "diff": -1 where an output moves against its input
        "change": list(CHANGES[:1]),  # "computed": ComfyUI's, from the last computed evaluation, and yet added up
        "lead": list(LEADS[:1]),
        "every": [1],  # of which rows and columns changes are measured; ComfyUI's are 8
        "start": [0.0],  # where decisions begin and end, as shares of the training times; ComfyUI's are 0.15 and 0.95
        "end": [1.0],
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"threshold": AMOUNT, "warmup": COUNT, "every": COUNT, "sign": (-1, 1), "start": SHARE, "end": SHARE}
    knob = "threshold"

    def supports(self, spec):
        return refusal(spec, max(self.warmup, 2))

    def session(self, model, spec, state=None):
        check(self)
        for name, known in (("value", VALUES), ("change", CHANGES), ("lead", LEADS)):
            among(name, getattr(self, name), known)
        return EasySession(self, spec)

    def store_values(self, spec, state=None):
        return 0  # latents alone, and no tokens


class EasySession(Session):
    def __init__(self, method, spec):
        self.method, self.halves, self.channels = method, spec.rows, spec.arch.channels
        levels = zip(spec.plan.signal, spec.plan.noise, strict=True)
        self.states = [(*spec.noise.data(a, b), method.sign) for a, b in levels]
        self.forced, self.window = forced(spec, method.warmup), window(spec, method.start, method.end)
        self.keep, self.give = VALUES[method.value]
        self.measure = VALUES[MEASURED.get(method.value, method.value)][0]
        self.reset()

    def reset(self):
        self.ratio = Ratio(self.method, self.halves, self)
        self.kept = self.rest = None  # of the last computed output: [rows, C, H, W], and its channels of the variance

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def network(self, x, run):
        where = self.window[self.evaluation]
        if where == "before":
            return run(x)
        compute = self.ratio.judge(x, self.forced[self.evaluation] or where == "after")
        rows = indices(self, compute)
        if rows is None:
            out = run(x)
            self.record(x, out, None)
            return out
        out = self.stand_in(x)
        if len(rows):
            out = out.index_copy(0, rows, run.rows(rows)(x[rows]))
            self.record(x, out, compute)
        return out

    def record(self, x, out, compute):
        """The outputs [rows, C', H, W], computed where `compute` [rows] says so; None: everywhere."""
        value, state = out[:, : self.channels], self.states[self.evaluation]
        kept, rest = self.keep(x, value, *state), out[:, self.channels :]
        self.ratio.record(x, self.measure(x, value, *state), compute)
        self.kept, self.rest = (kept, rest) if compute is None else (at(compute, kept, self.kept), at(compute, rest, self.rest))

    def stand_in(self, x):
        import torch

        value = self.give(self.kept, x, *self.states[self.evaluation])  # (rows, C, H, W)
        return torch.cat([value, self.rest], dim=1)
