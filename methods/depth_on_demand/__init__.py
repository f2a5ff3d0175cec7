"""Depth on demand: one fine-tuning with intermediate losses, after which layers are dropped to any depth (arXiv:2106.09216).

The paper is about speech; its form on diffusion transformers is ours. Blocks are skipped as a whole at stochastic depth, and
the final layer also reads from blocks between, so that the network bears to be cut. Which blocks go first is found after the
training, and nothing is trained again. On U-ViT an in-block and the out-block that its long skip ends in go together."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import Session
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.tuned import Tuned
from cachebench.plugin.values import among

from .units import depths, removed


class DepthOnDemand(Tuned):
    """`choose`: `greedy` drops next what raises the calibration set's loss least, `similarity` what changes its input least,
    and `top` the last. `ends`, ours, is a share of the evaluations at either end of the trajectory, which keep all blocks.
    `weight` and `drop` of zero are the control, the same fine-tuning without the two; no iterations are pruning without
    training."""

    name = "Depth on demand"
    reference = "arXiv:2106.09216"
    params = {
        "depth": [28],  # blocks
        "choose": ["greedy", "top", "similarity"],
        "ends": [0.0, 0.2, 0.1, 0.3],
        "weight": [0.3],  # of the intermediate losses
        "drop": [0.3],  # the probability that the last block is skipped in training; that of the others rises to it
        "draw": ["sample", "batch"],  # who is skipped together
        "iterations": [20_000],
        "batch_size": [256],
        "network_lr": [1e-4],
        "ema": [0.9999],
        "sampled_rows": [1.0],  # the share of the rows that weights learn from (WTA-CRS)
        "samples": [256],  # of the calibration set, for the choice
    }
    ranges = {"depth": COUNT, "ends": (0, 0.5), "weight": (0, 1), "drop": (0, 0.99), "iterations": AMOUNT, "batch_size": COUNT}
    ranges |= {"network_lr": AMOUNT, "ema": (0, 1), "sampled_rows": (1e-9, 1), "samples": COUNT}
    knob = "depth"
    trained = True
    fit_params = ("weight", "drop", "draw", "iterations", "batch_size", "network_lr", "ema", "sampled_rows", "samples")

    @classmethod
    def grid(cls, spec):
        """Only `sample` is trained unless the config asks for `batch`."""
        return cls.params | {"depth": depths(spec.arch), "draw": ["sample"]}

    def supports(self, spec):
        if len(depths(spec.arch)) < 2:
            return "Layers are dropped while others stay, and of this network's none can be."

    def fit(self, problem):
        from .trainer import fitted

        among("draw", self.draw, self.params["draw"])
        return fitted(self, problem)

    def entered(self, spec, state):
        """Which blocks each evaluation runs: bool [evaluations, blocks]."""
        mask = np.ones(spec.mask_shape[:2], bool)
        count = round(self.ends * spec.num_evaluations)
        mask[count : spec.num_evaluations - count, self.dropped(spec, state)] = False
        return mask

    def dropped(self, spec, state):
        """The blocks that the evaluations between the ends do without."""
        if state is None:
            return []
        among("choose", self.choose, self.params["choose"])
        return removed(spec.arch, self.depth, None if self.choose == "top" else state[f"order/{self.choose}"])

    def rows(self, spec, state=None):
        entered = self.entered(spec, state)
        return cost.mask_rows(np.repeat(entered[:, :, None], 2, axis=2), entered)

    def session(self, model, spec, state=None):
        return Shallow(self.entered(spec, state).tolist())


class Shallow(Session):
    """Enters the blocks that `entered` [evaluation][block] names."""

    def __init__(self, entered):
        self.entered = entered

    def begin(self, evaluation, x=None, t=None, y=None):
        self.evaluation = evaluation

    def block(self, i, h, run):
        return run(h) if self.entered[self.evaluation][i] else h
