"""First-Block-Cache and DBCache: the first blocks' change decides whether the others are reused (diffusers, cache-dit).

The first `front` blocks always run. Where what they add to the stream differs from what they added when all was computed last
by less than `threshold`, what the middle blocks added then is added again; the last `back` blocks run on top of it."""

import numpy as np

from cachebench.plugin.first_block import DECISIONS, FORMS, FirstBlockSession, refusal
from cachebench.plugin.method import AMOUNT, Method


class FirstBlockCache(Method):
    name = "First-Block-Cache"
    reference = "diffusers, cache-dit (DBCache)"
    params = {
        "threshold": [0.0, *np.geomspace(0.01, 2, 60).round(4).tolist()],
        "front": [1],  # Fn
        "back": [0],  # Bn
        "warmup": [1],  # evaluations that compute everything first
        "max_continuous": [0],  # evaluations in a row that may reuse; 0: any number
        "form": list(FORMS[:1]),  # "cache-dit": a threshold of 1 or more reuses without looking
        "decision": list(DECISIONS[:1]),  # a guided pair together; each row alone; the whole batch, as released
    }
    ranges = dict.fromkeys(("threshold", "front", "back", "warmup", "max_continuous"), AMOUNT)
    knob = "threshold"

    @property
    def batch_dependent(self):
        return self.decision == "batch"

    def supports(self, spec):
        return refusal(spec, self.front, self.back)

    def session(self, model, spec, state=None):
        return FirstBlockSession(self, spec)

    def store_values(self, spec, state=None):
        return 2  # what the front blocks added, and what the middle ones did
