"""CacheQuant: refreshes are placed by a dynamic programme, and what is reused is corrected by channel (arXiv:2503.01323).

The released program is for U-Nets; the form on transformers is reconstructed: blocks in the middle are skipped as a run, and
what they add to the stream is kept and, scaled and shifted, added again. `w8a8` also rounds the factors of every product of the
network to eight bits, and corrects the layer that reads the reused value first."""

import numpy as np

from cachebench.engine.spec import samplers
from cachebench.plugin.method import COUNT, SHARE, Method
from cachebench.plugin.refresh import mids_of
from cachebench.plugin.stack import StackMethod, StackSession

LONGEST = 10  # the paper's N at most
LAGS = 2 * LONGEST  # so far back is what an evaluation reuses, the shift to a mid evaluation included


class CacheQuant(StackMethod):
    """The paper's N is the number of evaluations over that of the `computed` ones, rounded up; a group of evaluations has from
    N / 2 to 2 N. Ranges of activations, one for every evaluation, are those of the full run. Modulations have 8-bit weights and
    their own inputs."""

    name = "CacheQuant"
    reference = "arXiv:2503.01323"
    params = {
        "computed": [20],  # evaluations
        "form": ["correction", "w8a8"],
        "share": [0.5, 0.75, 0.9],  # of the blocks, that is skipped: half, as published bit operations imply
        "samples": [32],  # for the correction; the plan and the ranges are of the first 8 of them
        "weight_bits": [8],  # of w8a8, as the next; 32: as they are
        "activation_bits": [8],
    }
    ranges = {"computed": COUNT, "share": SHARE, "samples": COUNT, "weight_bits": (2, 32), "activation_bits": (2, 32)}
    knob = "computed"
    variants = "form"
    fit_params = ("form", "share", "samples", "weight_bits", "activation_bits")

    @classmethod
    def grid(cls, spec):
        return cls.params | {"computed": list(range(spec.num_evaluations, fewest(spec) - 1, -1))}

    def supports(self, spec):
        if spec.arch.blocks < 2:
            return "Inner blocks are skipped while others run, and this network has one block."
        if self.form == "w8a8" and spec.sampler in samplers() and len(set(spec.plan.timesteps)) < spec.num_evaluations:
            return f"A quantised layer knows an evaluation by its time, and on {spec.sampler} two have the same."

    def span(self, spec, evaluation):
        """In the middle; with long skips as many blocks before it as behind it, so that none of them begins or ends inside."""
        blocks = spec.arch.blocks
        count = min(max(round(self.share * blocks), 1), blocks - 1)
        if spec.arch.kind == "uvit":
            count -= (blocks - count) % 2
        first = (blocks - count) // 2
        return range(first, first + count)

    def fit(self, problem):
        import torch

        from .correction import measure
        from .plan import groups

        spec, first = problem.spec, problem.spec.first_counted
        costs, scale, shift = measure(problem, self.span(spec, 0), self.samples, LAGS)
        plans = np.ones((spec.num_evaluations - fewest(spec) + 1, spec.num_evaluations), bool)  # one for every `computed`
        for row, count in zip(plans, range(fewest(spec), spec.num_evaluations), strict=False):
            starts = [first + start for start in groups(costs[first:, first:], count - first)]
            row[:] = np.isin(np.arange(len(row)), mids_of(spec, [*range(first), *starts]))
        state = {"plans": torch.from_numpy(plans), "scale": scale, "shift": shift}
        if self.form == "w8a8":
            from .quantised import calibrate_layers

            bits = (self.weight_bits, self.activation_bits)
            state |= calibrate_layers(problem, self.span(spec, 0), self.samples, scale, shift, bits)
        pairs = [(e, lag) for e in range(len(costs)) for lag in range(min(e, 1), min(e, LAGS) + 1)]
        return state, [{"evaluation": e, "reused": e - lag, "l1": costs[e - lag, e].item()} for e, lag in pairs]

    def plan(self, state):
        """Whether each evaluation computes all: bool [evaluations]."""
        plans = state["plans"]
        count, least = plans.shape[1], plans.shape[1] - len(plans) + 1
        if not least <= self.computed <= count:
            raise ValueError(f"computed: {self.computed} is outside {least} to {count}")
        return plans[self.computed - least].astype(bool)

    def chosen(self, spec, state):
        if state is None:  # nothing is calibrated yet
            return range(spec.num_evaluations)
        planned, needed = (state["plans"].shape[1], state["scale"].shape[2]), (spec.num_evaluations, spec.arch.width)
        if planned != needed:
            raise ValueError(f"the plan is for (evaluations, channels) {planned}, the run has {needed}")
        return np.flatnonzero(self.plan(state))

    def session(self, model, spec, state=None):
        from .correction import Affine, reused

        if state is None:
            return super().session(model, spec, state)
        tables = reused(self.plan(state), state["scale"], state["shift"])
        affine = Affine(*map(next(model.parameters()).new_tensor, tables))
        return StackSession(self.computes(spec, state), self.span(spec, 0), "increment", affine)

    def prepare(self, model, state):
        if self.form != "w8a8" or state is None:
            return model
        from .quantised import quantised

        return quantised(model, state, self.plan(state), (self.weight_bits, self.activation_bits))

    def bits(self, spec):
        return (self.weight_bits, self.activation_bits) if self.form == "w8a8" else Method.bits(self, spec)


def fewest(spec):
    """The least number of evaluations to compute."""
    counted = spec.num_evaluations - spec.first_counted
    return spec.first_counted + max(-(-counted // LONGEST), 1)
