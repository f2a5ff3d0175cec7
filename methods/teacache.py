"""TeaCache: all blocks are skipped until the summed change of the first block's input reaches a threshold (arXiv:2411.19108).

The input is modulated; U-ViT has no modulation, so that there it is normalised alone. A polynomial turns its relative change
into the output's. It is fitted on the calibration set; "identity" does without. What the blocks added last is added again."""

import numpy as np

from cachebench.engine.doors import Session
from cachebench.plugin.deciding import DECISIONS, Accumulated, Deciding, change, forced, refusal
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.values import allowed

DEGREE = 4
IDENTITY = [0.0, 0.0, 0.0, 1.0, 0.0]  # highest power first, as all polynomials here
NEGATIVE = {"kept": False, "clamped": True}


class TeaCache(Deciding):
    """As released, a polynomial that is negative lowers the sum; `negative` may also clamp it at 0."""

    name = "TeaCache"
    reference = "arXiv:2411.19108"
    params = {
        "threshold": [0.0, *np.geomspace(0.05, 300, 160).round(4).tolist()],
        "polynomial": ["fitted", "identity"],
        "samples": [70],
        "negative": ["kept"],  # or "clamped"
        "decision": list(DECISIONS)[:1],  # or "half", "batch", "stream"
    }
    ranges = {"threshold": AMOUNT, "samples": COUNT}
    knob = "threshold"
    variants = "polynomial"
    fit_params = ("samples",)

    @classmethod
    def has_fit(cls):
        return "identity" not in cls.fixed.values()

    def supports(self, spec):
        return refusal(spec)

    def fit(self, problem):
        import torch

        from cachebench.engine import trajectory
        from cachebench.fit import calibrate

        points = []
        for noise, labels, draw in calibrate.starts(problem, self.samples):
            watch = Watch(problem.spec.rows)
            trajectory.run(problem.model, problem.spec, watch, noise, labels, draw)
            points += watch.points
        found = np.array(points)  # (evaluations and samples, 2)
        powers = np.vander(found[:, 0], DEGREE + 1)
        coefficients = np.linalg.lstsq(powers, found[:, 1])[0]
        curve = [{"point": i, "input": float(a), "output": float(b)} for i, (a, b) in enumerate(found)]
        return {"coefficients": torch.from_numpy(coefficients)}, curve

    def coefficients(self, state):
        """Highest power first."""
        if self.polynomial == "identity" or state is None:  # nothing fitted yet
            return IDENTITY
        return state["coefficients"].tolist()

    def session(self, model, spec, state=None):
        return TeaSession(self, spec, self.coefficients(state), allowed("negative", self.negative, NEGATIVE))

    def store_values(self, spec, state=None):
        return 2  # the input, and what the blocks added


class TeaSession(Accumulated):
    def __init__(self, method, spec, coefficients, clamp):
        self.coefficients, self.clamp = coefficients, clamp
        super().__init__(method, spec, forced(spec))

    def indicator(self, h, run):
        return run.door(0, "attn").input(h)  # (rows, tokens, width)

    def raised(self, change):
        value, x = 0.0, change.double()
        for coefficient in self.coefficients:
            value = value * x + coefficient
        return value.clamp(min=0) if self.clamp else value


class Watch(Session):
    """Notes how much the input of the first block and the output of the last one change from one evaluation to the next of a
    full trajectory: [(input, output)], of each image."""

    def __init__(self, halves):
        self.halves, self.points = halves, []
        self.before = None

    def reset(self):
        self.before = None

    def trunk(self, h, run):
        now = run.door(0, "attn").input(h).float(), run(h)
        if self.before:
            pairs = zip(now, self.before, strict=True)
            moved = [change(value.float(), old.float(), "sample", self.halves).chunk(self.halves)[0] for value, old in pairs]
            self.points += zip(*(values.tolist() for values in moved), strict=True)
        self.before = now
        return now[1]
