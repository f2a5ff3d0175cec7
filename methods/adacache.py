"""AdaCache: a table says by the change of one block's attention for how long all blocks are skipped (arXiv:2411.02397).

The change is that of what the attention adds to the stream, from one computed evaluation to the next, over the pause between
them. Released, what every branch added is kept and added again; we keep its sum over all branches, which is the same on DiT. On
U-ViT the skips are so skipped with their blocks. The motion term is left out: one image has none."""

import re

import numpy as np

from cachebench.plugin.deciding import DECISIONS, Deciding, TrunkDecisions, change, check, forced, refusal
from cachebench.plugin.method import AMOUNT
from cachebench.plugin.values import among

CODEBOOKS = {  # released: the evaluations that each is for, and its pairs of a threshold of the change and a pause
    "fast30": (30, "0.08:6 0.16:5 0.24:4 0.32:3 0.4:2 1:1"),
    "slow30": (30, "0.08:3 0.16:2 0.24:1 0.32:1 0.4:1 1:1"),
    "step100": (100, "0.03:12 0.05:10 0.07:8 0.09:6 0.11:4 1:3"),
}
PAUSES = ("scaled", "released")  # to the number of evaluations, rounded up; or as they are
LAST = 2  # evaluations that compute in any case


class AdaCache(Deciding):
    """`scale` multiplies the thresholds, which depend on the network and the number of evaluations; 0 computes all."""

    name = "AdaCache"
    reference = "arXiv:2411.02397"
    params = {
        "scale": [0.0, *np.geomspace(0.05, 50, 120).round(4).tolist()],
        "codebook": ["fast30"],  # or another one of CODEBOOKS, or pairs as there
        "pauses": list(PAUSES[:1]),
        "block": [0],  # whose attention is looked at; on a run the middle one
        "decision": list(DECISIONS)[:1],
    }
    ranges = {"scale": AMOUNT, "block": AMOUNT}
    knob = "scale"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"block": [spec.arch.blocks // 2]}

    def supports(self, spec):
        if self.block >= spec.arch.blocks:
            return f"The network has {spec.arch.blocks} blocks, and so none of the number {self.block}."
        return refusal(spec, 2, LAST)

    def table(self, spec):
        """(thresholds, pauses), the last pause for changes of at least the last but one threshold."""
        steps, text = CODEBOOKS.get(self.codebook, (spec.num_evaluations, self.codebook))
        if not re.fullmatch(r"[\d.]+:[1-9]\d*( [\d.]+:[1-9]\d*)+", text):
            raise ValueError(f"codebook: unknown {text!r}; allowed: {', '.join(CODEBOOKS)}, or pairs, such as 0.1:3 1:1")
        thresholds, pauses = np.array([pair.split(":") for pair in text.split()], float).T
        among("pauses", self.pauses, PAUSES)
        if self.pauses == "scaled":
            pauses = np.ceil(pauses * spec.num_evaluations / steps)
        return (thresholds[:-1] * self.scale).tolist(), pauses.tolist()

    def session(self, model, spec, state=None):
        check(self)
        return AdaSession(self, spec, *self.table(spec))

    def store_values(self, spec, state=None):
        return 2  # what all blocks added, and what the one attention did


class AdaSession(TrunkDecisions):
    def __init__(self, method, spec, thresholds, pauses):
        import torch

        self.method, self.halves = method, spec.rows
        self.thresholds, self.pauses = torch.tensor(thresholds), torch.tensor([*pauses, 1.0])  # 1 for what is no number
        self.forced = forced(spec, last=LAST)
        super().__init__()

    def reset(self):
        super().reset()
        self.residual = self.pause = self.due = None  # the attention's, and when each row computes next: [rows]
        self.changes, self.rates = {}, {}

    def judge(self, h, run):
        every = self.forced[self.evaluation] or not self.method.scale
        self.compute = None if every else self.due <= self.evaluation
        return self.compute

    def trunk(self, h, run):
        self.noted = None
        out = super().trunk(h, run)
        if self.noted is not None:
            self.look(self.noted)
        return out

    def branch(self, i, name, h, run):
        """The stream before the MLP is the one before the attention and what this added, gate and all."""
        if i == self.method.block and name == "attn":
            self.entered = h
        elif i == self.method.block:
            self.noted = h - self.entered
        return run(h)

    def look(self, residual):
        """Sets the pauses by what the attention added, [computing rows, tokens, width]."""
        compute = self.compute
        if self.residual is None:
            self.pause = residual.new_ones(len(residual))
            self.due = self.evaluation + self.pause
        else:
            residual = residual if self.rows is None else self.residual.index_copy(0, self.rows, residual)
            moved = change(residual, self.residual, self.method.decision, self.halves) / self.pause
            pause = self.looked_up(moved)
            self.pause = pause if compute is None else pause.where(compute, self.pause)
            due = self.evaluation + self.pause
            self.due = due if compute is None else due.where(compute, self.due)
            self.changes[self.evaluation], self.rates[self.evaluation] = moved, self.pause
        self.residual = residual

    def looked_up(self, moved):
        """The pause of the first threshold that a change [rows] lies below."""
        import torch

        self.thresholds, self.pauses = (values.to(moved.device) for values in (self.thresholds, self.pauses))
        place = torch.bucketize(moved, self.thresholds, right=True)
        lost, last = ~moved.isfinite(), len(self.thresholds) + 1
        self.undecided = self.undecided + lost.sum()
        return self.pauses[place.where(~lost, last)]
