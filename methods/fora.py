"""FORA: recompute all branches every `interval` evaluations and reuse them in between (arXiv:2407.01425, section 3)."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.method import COUNT, Method
from cachebench.plugin.refresh import at_interval


class FORA(Method):
    name = "FORA"
    reference = "arXiv:2407.01425"
    params = {"interval": list(range(1, 11)), "anchor": ["descending"]}  # or as in `rules`
    ranges = {"interval": COUNT}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"anchor": ["shifted" if spec.first_counted else "descending"]}

    def schedule(self, spec, state=None):
        from_start = np.arange(spec.num_evaluations)
        from_end = from_start[::-1]
        rules = {
            "descending": (from_end % self.interval == 0) | (from_start == 0),  # the released code
            "ascending+last": (from_start % self.interval == 0) | (from_end == 0),
            "ascending": from_start % self.interval == 0,  # the paper's formula, read literally
            # DPM-Solver-2: the midpoints, which carry its update, before the rest (L2C, arXiv:2406.01733, appendix B.1)
            "shifted": np.isin(from_start, at_interval(spec, self.interval)),
        }
        if self.anchor not in rules:
            raise ValueError(f"anchor: unknown {self.anchor!r}; allowed: {', '.join(rules)}")
        return Schedule.refresh(spec, rules[self.anchor])
