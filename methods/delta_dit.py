"""Delta-DiT: what a range of blocks adds is reused, of the rear blocks first and of the front ones later (arXiv:2406.01125).

Rear blocks shape details and front blocks outlines, so that each range is reused while the other matters. Written from the
paper's abstract and from what others tell of it: no code was released. U-ViT's out-blocks read what every front block puts
out; there the increments of single blocks are reused, which add up to the range's."""

from cachebench.plugin.method import COUNT, SHARE
from cachebench.plugin.refresh import at_interval
from cachebench.plugin.spans import SpanMethod


class DeltaDiT(SpanMethod):
    name = "Delta-DiT"
    reference = "arXiv:2406.01125"
    params = {
        "interval": list(range(1, 6)),
        "blocks": [14],  # of the range
        "late": [0.5],  # share of the evaluations, the last ones, that reuse the front; 0.4 in EB-Cache's disabled copy
    }
    ranges = {"interval": COUNT, "blocks": COUNT, "late": SHARE}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        """Half of the blocks, as published speeds imply; others where no interval reaches a budget so. Long intervals are left
        out: more blocks at a short one come closer to the full run."""
        half = spec.arch.blocks // 2
        return cls.params | {"blocks": sorted(range(1, spec.arch.blocks), key=lambda n: abs(n - half)) or [1]}

    def supports(self, spec):
        if spec.arch.blocks < 2:
            return "A range of blocks is reused while others run, and this network has one block."

    def switch(self, spec):
        """The first evaluation that reuses the front; with midpoints a mid one, or none."""
        first = round((1 - self.late) * spec.num_evaluations)
        return first + (first < spec.num_evaluations and spec.plan.roles[first] == "outer" and first > 0)

    def refreshes(self, spec):
        """Every `interval`-th evaluation, anew from the switch on."""
        switch, every = self.switch(spec), at_interval(spec, self.interval)
        counted = every[0 if self.interval == 1 else spec.first_counted :]  # from the first that counts on
        start = max(switch, counted[0])
        again = {start + e - counted[0] for e in counted if start + e - counted[0] < spec.num_evaluations}
        return sorted({e for e in every if e < switch} | again | set(range(spec.first_counted + 1)))

    def span(self, spec, evaluation):
        blocks = spec.arch.blocks
        if not 1 <= self.blocks <= blocks:
            raise ValueError(f"blocks: {self.blocks} is outside 1 to {blocks}")
        return range(blocks - self.blocks, blocks) if evaluation < self.switch(spec) else range(self.blocks)

    def keeps(self, spec):
        return "increments" if spec.arch.kind == "uvit" else "increment"
