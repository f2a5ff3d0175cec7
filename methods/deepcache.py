"""DeepCache: the deep blocks' output is reused and the outer ones, joined by long skips, are recomputed (arXiv:2312.00858).

U-ViT: what is cached enters the last `branch` out-blocks before their skip linear, so that the skips stay fresh. DiT has no
long skips; there, as our adaptation, the increment of the middle blocks is added to what the first `branch` blocks compute."""

import numpy as np

from cachebench.span import SpanMethod, counted_from


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
    knob = "interval"
    variants = "spacing"

    @classmethod
    def grid(cls, spec):
        alive = range(1, (spec.arch.blocks - 1) // 2 + 1)  # at least one block in the middle
        return cls.params | {"branch": sorted(alive, key=lambda m: abs(m - 2)) or [0]}

    @classmethod
    def name_on(cls, spec):
        if spec.arch.kind == "uvit":
            return cls.name
        return cls.name.replace("DeepCache", "DeepCache-style, middle increment (adapted)")

    def refreshes(self, spec):
        first = counted_from(spec)
        count = spec.num_evaluations - first
        uniform = np.arange(0, count, self.interval)
        rules = {"uniform": uniform, "quadratic": quadratic(count, len(uniform), self.center * count, self.power)}
        if self.spacing not in rules:
            raise ValueError(f"spacing: unknown {self.spacing!r}; allowed: {', '.join(rules)}")
        return [*range(first), *(first + rules[self.spacing])]

    def span(self, spec):
        return range(self.branch, spec.arch.blocks - self.branch)

    def keeps(self, spec):
        return "last" if spec.arch.kind == "uvit" else "increment"


def quadratic(count, k, center, power):
    """k of `count` evaluations, 0 among them, dense near the position `center`: evenly spaced in the signed root of the
    distance to it. Where rounding merges some, the power is lowered until k are left; at 1 the spacing is uniform."""

    def signed(x, exponent):
        return np.sign(x) * np.abs(x) ** exponent

    ends = signed(np.array([-center, count - center]), 1 / power)
    found = np.floor(center + signed(np.linspace(*ends, k, endpoint=False), power) + 1e-9).astype(int)
    return found if len(set(found)) == k else quadratic(count, k, center, max(1.0, power - 0.02))
