"""DeepCache: the deep blocks' output is reused and the outer ones, joined by long skips, are recomputed (arXiv:2312.00858).

What is cached enters the last `branch` out-blocks before their skip linear, so that the skips stay fresh. DiT has no long
skips: see `delta_dit`."""

import numpy as np

from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.refresh import at_interval, mids_first
from cachebench.plugin.spans import SpanMethod


class DeepCache(SpanMethod):
    name = "DeepCache"
    reference = "arXiv:2312.00858"
    params = {
        "interval": list(range(1, 11)),
        "branch": [2],  # blocks that stay alive at either end; 2 fits the time printed for U-ViT-H/2 (arXiv:2406.01733)
        "spacing": ["uniform", "quadratic"],
        "center": [0.48],  # where full evaluations are dense, as a share of the trajectory: 120 of 250
        "power": [1.2],  # how dense
    }
    ranges = {"interval": COUNT, "branch": AMOUNT}
    knob = "interval"
    variants = "spacing"

    @classmethod
    def grid(cls, spec):
        alive = range(1, (spec.arch.blocks - 1) // 2 + 1)  # at least one block in the middle
        return cls.params | {"branch": sorted(alive, key=lambda m: abs(m - 2)) or [0]}

    def supports(self, spec):
        if spec.arch.kind != "uvit":
            return f"It needs long skips, which {spec.arch.facts.NAME} does not have: see delta_dit."

    def refreshes(self, spec):
        uniform = at_interval(spec, self.interval)
        rules = {"uniform": lambda: uniform, "quadratic": lambda: mids_first(spec, len(uniform), self.quadratic)}
        if self.spacing not in rules:
            raise ValueError(f"spacing: unknown {self.spacing!r}; allowed: {', '.join(rules)}")
        return rules[self.spacing]()

    def quadratic(self, places, n):
        """`n` of `places` evaluations, 0 among them, dense near the center: evenly spaced in the signed root of the distance
        to it. Where rounding merges some, the power is lowered until n are left; at 1 the spacing is uniform."""
        center, power = self.center * places, self.power
        while True:
            ends = signed(np.array([-center, places - center]), 1 / power)
            evaluations = np.floor(center + signed(np.linspace(*ends, n, endpoint=False), power) + 1e-9).astype(int)
            if len(set(evaluations)) == n:
                return evaluations
            power = max(1.0, power - 0.02)

    def span(self, spec, evaluation):
        return range(self.branch, spec.arch.blocks - self.branch)

    def keeps(self, spec):
        return "last"


def signed(x, exponent):
    return np.sign(x) * np.abs(x) ** exponent
