"""SCM: preset masks say which evaluations compute all blocks (cache-dit's steps computation masks).

The first `front` and the last `back` blocks run at every evaluation; where the mask reuses, what the middle ones added when all
was computed last stands in. `plugin.step_masks` has the presets."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import samplers
from cachebench.plugin.deciding import BATCH_DEPENDENT, DECISIONS
from cachebench.plugin.first_block import FirstBlockSession, Gates, refusal
from cachebench.plugin.method import AMOUNT
from cachebench.plugin.refresh import mids_first
from cachebench.plugin.stack import VALUES, StackMethod
from cachebench.plugin.step_masks import DESIGNED, FEW, PRESETS, mask


class SCM(Gates, StackMethod):
    """`policy`: "static" reuses where the mask does; "dynamic" only where First-Block-Cache's threshold allows it too; "even",
    a control of ours, computes as many evaluations, evenly spaced."""

    name = "SCM"
    reference = "cache-dit (SCM)"
    params = {
        "preset": ["full", *PRESETS],
        "policy": ["static", "dynamic", "even"],
        "front": [1, 0],  # Fn; the library needs at least 1
        "back": [0],  # Bn
        "warmup": [0],  # evaluations at the start that compute whatever the mask says
        "threshold": [0.0, *np.geomspace(0.01, 1, 50).round(4).tolist()],  # of the dynamic policy; at 1 it is the static one
        "decision": list(DECISIONS)[:1],  # of the dynamic policy, as First-Block-Cache's
        "value": list(VALUES)[:1],  # of the others
    }
    ranges = dict.fromkeys(("front", "back", "warmup", "threshold"), AMOUNT)
    knob = "preset"
    variants = "policy"
    knobs = {"dynamic": "threshold"}
    form = "cache-dit"  # of First-Block-Cache's decision

    @classmethod
    def grid(cls, spec):
        """More front blocks where no preset reaches a budget with one or none."""
        if cls.fixed.get("policy") == "dynamic":  # which needs a first block to decide by
            return cls.params | {"preset": ["fast", "ultra"], "front": [1]}
        return cls.params | {"threshold": [0.0], "front": [1, 0, *range(2, spec.arch.blocks // 2 + 1)]}

    @property
    def batch_dependent(self):
        return self.policy == "dynamic" and self.decision in BATCH_DEPENDENT

    def supports(self, spec):
        evaluations = spec.num_evaluations if spec.sampler in samplers() else DESIGNED
        if evaluations < 8 and evaluations not in FEW:
            return f"The library has presets for 4, 6 and from 8 evaluations on; this run has {evaluations}."
        if self.policy == "dynamic" and not self.front:
            return "The dynamic policy decides by what the first blocks add, so it needs a front block."
        return refusal(spec, self.front, self.back)

    def chosen(self, spec, state):
        computed = mask(self.preset, spec.num_evaluations)
        if self.policy == "even":
            return mids_first(spec, sum(computed), lambda places, n: np.linspace(0, places - 1, n).round().astype(int))
        early = max(self.warmup, spec.first_counted + 1)
        return [e for e, computes in enumerate(computed) if computes or e < early]

    def must(self, spec):
        return set(self.chosen(spec, None))

    def schedule(self, spec, state=None):
        return Schedule.full(spec) if self.policy == "dynamic" else super().schedule(spec, state)

    def rows(self, spec, state=None):
        return None if self.policy == "dynamic" else super().rows(spec, state)

    def store_values(self, spec, state=None):
        return 2 if self.policy == "dynamic" else super().store_values(spec, state)

    def session(self, model, spec, state=None):
        if self.policy == "dynamic":
            return FirstBlockSession(self, spec)
        return super().session(model, spec, state)
