"""PAB: in a window of timesteps the attentions are broadcast, that is, reused until each `interval`-th call (arXiv:2408.12588).

The MLPs always run, so that nothing below their share of the MACs can be reached: 0.644 for DiT-XL/2 at 256 pixels, if the
window is the whole trajectory. Calls are counted from the start, in the window or not."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import BRANCHES
from cachebench.plugin.method import COUNT, Method


class PAB(Method):
    name = "PAB"
    reference = "arXiv:2408.12588"
    params = {
        "interval": list(range(1, 11)),
        "low": [100, -1],  # the window: timesteps between the two, of 1000
        "high": [800, 1001],
    }
    ranges = {"interval": COUNT}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        """Intervals that save more than all before them; an interval may be dearer, whose calls meet the window more often. The
        last one computes evaluation 0 alone."""
        kept, fewest = [], np.inf
        for interval in range(1, spec.num_evaluations + 1):
            count = cls(interval=interval).attention(spec).sum()
            if count < fewest:
                kept.append(interval)
                fewest = count
        return cls.params | {"interval": kept}

    def attention(self, spec):
        """Whether each evaluation computes its attentions. With midpoints calls are counted from the first of them on."""
        call, t = np.arange(spec.num_evaluations) - spec.first_counted, np.array(spec.times)
        return (call <= 0) | (call % self.interval == 0) | (t <= self.low) | (t >= self.high)

    def schedule(self, spec, state=None):
        mask = np.ones(spec.mask_shape, bool)
        mask[..., BRANCHES.index("attn")] = self.attention(spec)[:, None]
        return Schedule(mask)
