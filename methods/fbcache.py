"""First-Block-Cache and DBCache: the first blocks' change decides whether the others are reused (diffusers, cache-dit).

The first `front` blocks always run. Where what they add to the stream differs from what they added when all was computed last
by less than `threshold`, what the middle blocks added then is added again, or what a `calibrator` makes of it; the last `back`
blocks run on top of it."""

import numpy as np

from cachebench.plugin.deciding import DECISIONS, Deciding
from cachebench.plugin.first_block import FORMS, FirstBlockSession, Gates, refusal
from cachebench.plugin.forecast import named
from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.step_masks import of_text


class FirstBlockCache(Gates, Deciding):
    """The limits are DBCache's, in its order: warm-up, mask, `max_cached`, `max_continuous`, `max_accumulated`, threshold. A
    mask and a threshold of 1 in the form "cache-dit" are its static policy."""

    name = "First-Block-Cache"
    reference = "diffusers, cache-dit (DBCache)"
    params = {
        "threshold": [0.0, *np.geomspace(0.01, 2, 60).round(4).tolist()],
        "front": [1],  # Fn
        "back": [0],  # Bn
        "warmup": [1],  # evaluations at the start of which every `warmup_interval`-th computes everything
        "warmup_interval": [1],
        "mask": [""],  # or a text as `step_masks.of_text` takes it, by which evaluations compute
        "max_cached": [0],  # evaluations of a trajectory that may reuse; 0: any number
        "max_continuous": [0],  # evaluations in a row that may reuse
        "max_accumulated": [0.0],  # sum of the changes that were measured, from which on nothing is reused
        "every": [1],  # of which channels the change is measured; more than 1: ParaAttention's down-sampling
        "calibrator": [""],  # or a name of `plugin.forecast`, such as taylor1 or foca
        "since": [3],  # the first evaluation that a calibrator compares with the one before, as both libraries count
        "form": list(FORMS[:1]),  # "cache-dit": a threshold of 1 or more reuses without looking
        "decision": list(DECISIONS)[:1],  # a guided pair together; each row alone; the whole batch, or each half of it
    }
    ranges = {"warmup_interval": COUNT, "every": COUNT} | dict.fromkeys(
        ("threshold", "front", "back", "warmup", "max_cached", "max_continuous", "max_accumulated", "since"), AMOUNT
    )
    knob = "threshold"

    def supports(self, spec):
        return refusal(spec, self.front, self.back)

    def must(self, spec):
        computed = of_text(self.mask, spec.num_evaluations) if self.mask else []
        return {e for e, computes in enumerate(computed) if computes} | set(range(0, self.warmup, self.warmup_interval))

    def session(self, model, spec, state=None):
        return FirstBlockSession(self, spec)

    def store_values(self, spec, state=None):
        """What the front blocks added, and what is kept of what the middle ones did."""
        return 1 + (int(named(self.calibrator).held(spec.num_evaluations)) if self.calibrator else 1)
