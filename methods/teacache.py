"""TeaCache: all blocks are skipped until the summed change of the first block's input reaches a threshold (arXiv:2411.19108).

The input is modulated; U-ViT has no modulation, so that there it is normalised alone. A polynomial turns its relative change
into the output's. It is fitted on the calibration set; "identity" does without. What the blocks added last is added again."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import DECISIONS, Accumulated, Deciding, change, forced, refusal
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.values import allowed, among

INDICATORS = ("modulated", "time", "modulation")  # the first block's input, the time's embedding, and that block's modulation
DEGREE = 4
IDENTITY = [0.0, 0.0, 0.0, 1.0, 0.0]  # highest power first, as all polynomials here
NEGATIVE = {"kept": False, "clamped": True}


class TeaCache(Deciding):
    """As released, a polynomial that is negative lowers the sum; `negative` may also clamp it at 0.

    In the program for Wan the indicator is of the time alone, without the label, so that all images decide alike: `time`, or
    `modulation`, there with `first` 5 and `last` 0."""

    name = "TeaCache"
    reference = "arXiv:2411.19108"
    params = {
        "threshold": [0.0, *np.geomspace(0.05, 300, 160).round(4).tolist()],
        "polynomial": ["fitted", "identity"],
        "samples": [70],
        "negative": ["kept"],  # or "clamped"
        "indicator": list(INDICATORS[:1]),
        "first": [1],  # evaluations that compute in any case, at the start and the end
        "last": [1],
        "decision": list(DECISIONS)[:1],  # or "half", "batch", "stream"
    }
    ranges = {"threshold": AMOUNT, "samples": COUNT, "first": COUNT, "last": AMOUNT}
    knob = "threshold"
    variants = "polynomial"
    fit_params = ("samples", "indicator")

    @classmethod
    def has_fit(cls):
        return "identity" not in cls.fixed.values()

    def supports(self, spec):
        if self.indicator == "modulation" and spec.arch.kind == "uvit":
            return "U-ViT has no modulation."
        return refusal(spec, self.first, self.last)

    def fit(self, problem):
        import torch

        from cachebench.engine import trajectory
        from cachebench.fit import calibrate

        points, times = [], self.times(problem.model, problem.spec)
        for noise, labels, draw in calibrate.starts(problem, self.samples):
            watch = Watch(problem.spec.rows, times)
            trajectory.run(problem.model, problem.spec, watch, noise, labels, draw)
            points += watch.points
        pairs = np.array(points)  # (evaluations and samples, 2)
        powers = np.vander(pairs[:, 0], DEGREE + 1)
        coefficients = np.linalg.lstsq(powers, pairs[:, 1])[0]
        curve = [{"input": a, "output": b} for a, b in sorted(pairs.tolist())]
        return {"coefficients": torch.from_numpy(coefficients)}, curve

    def coefficients(self, state):
        """Highest power first."""
        if self.polynomial == "identity" or state is None:  # nothing fitted yet
            return IDENTITY
        return state["coefficients"].tolist()

    def times(self, model, spec):
        """The indicator of every evaluation [evaluations, 1, width], on the CPU; None where it is not the time's alone."""
        import torch

        from cachebench.engine.backbones.layers import timestep_embedding

        among("indicator", self.indicator, INDICATORS)
        if self.indicator == "modulated":
            return None
        t = torch.tensor(spec.plan.timesteps, device=next(model.parameters()).device)
        with torch.inference_mode():
            embedding = model.t_embedder(t) if hasattr(model, "t_embedder") else timestep_embedding(t, spec.arch.width)
            embedding = model.blocks[0].adaLN_modulation(embedding) if self.indicator == "modulation" else embedding
        return embedding[:, None].float().cpu()

    def session(self, model, spec, state=None):
        told = self, spec, self.coefficients(state), allowed("negative", self.negative, NEGATIVE)
        times = self.times(model, spec)
        return TeaSession(*told) if times is None else TimeSession(*told, times)

    def store_values(self, spec, state=None):
        return 1 + (self.indicator == "modulated")  # what the blocks added, and the input


class TeaSession(Accumulated):
    def __init__(self, method, spec, coefficients, clamp):
        self.coefficients, self.clamp = coefficients, clamp
        super().__init__(method, spec, forced(spec, method.first, method.last))

    def indicator(self, h, run):
        return run.door(0, "attn").input(h)  # (rows, tokens, width)

    def raised(self, change):
        value, x = 0.0, change.double()
        for coefficient in self.coefficients:
            value = value * x + coefficient
        return value.clamp(min=0) if self.clamp else value


class TimeSession(TeaSession):
    """Decides for all rows together, on the host: nothing waits for the device. `times` as `TeaCache.times` has them."""

    def __init__(self, method, spec, coefficients, clamp, times):
        super().__init__(method, spec, coefficients, clamp)
        self.times, self.halves = times, 1

    def indicator(self, h, run):
        return self.times[self.evaluation]

    def which(self, mask):
        return mask.nonzero().squeeze(1)


class Watch(Session):
    """Notes how much the indicator and the output of the last block change from one evaluation to the next of a full
    trajectory: [(indicator, output)], of each image."""

    def __init__(self, halves, times=None):
        self.halves, self.times, self.points = halves, times, []
        self.before = None

    def reset(self):
        self.before = None

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def trunk(self, h, run):
        indicator = run.door(0, "attn").input(h) if self.times is None else self.times[self.evaluation].expand(len(h), -1)
        now = indicator.float(), run(h)
        if self.before:
            pairs = zip(now, self.before, strict=True)
            moved = [change(value.float(), old.float(), "sample", self.halves).chunk(self.halves)[0] for value, old in pairs]
            self.points += zip(*(values.tolist() for values in moved), strict=True)
        self.before = now
        return now[1]
