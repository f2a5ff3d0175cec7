"""TaylorSeer: every branch is forecast by a Taylor expansion between refreshes at an interval (arXiv:2503.06923)."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Newton, Taylor
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.refresh import after_warmup, at_interval, mids_of, warmups
from cachebench.plugin.values import allowed

DIFFERENCES = {"taylor": Taylor, "newton": Newton}
FORMS = {"branch": "branch", "lite": "trunk", "output": "output"}  # every branch, the last block's output, or the guided one


class TaylorSeer(Method):
    """The first `warmup` evaluations are computed, as released two, and from there on every `interval`-th; the last one is not
    forced. Where differences are over the distance of the last two values only, as released, a square is not exact; Newton's
    differences are."""

    name = "TaylorSeer"
    reference = "arXiv:2503.06923"
    params = {
        "interval": list(range(1, 11)),
        "order": [2],
        "anchor": ["released"],  # or "fora", the evaluations that FORA computes; or "diffusers", of its hook
        "warmup": [2],
        "differences": ["taylor"],  # or "newton"
        "form": ["branch"],  # or "lite", or "output"
        "distance": ["index"],  # or "t", "sigma", "logsnr"
    }
    ranges = {"interval": COUNT, "order": AMOUNT, "warmup": COUNT}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"warmup": warmups(spec, cls.params["warmup"][0])}

    @property
    def forecaster(self):
        return allowed("differences", self.differences, DIFFERENCES)(self.order)

    @property
    def forecasts(self):
        return allowed("form", self.form, FORMS)

    def schedule(self, spec, state=None):
        rules = {
            "released": lambda: after_warmup(spec, self.warmup, self.interval),
            "fora": lambda: fora(spec, self.interval),
            "diffusers": lambda: diffusers(spec, self.warmup, self.interval),
        }
        return Schedule.refresh(spec, allowed("anchor", self.anchor, rules)())


def fora(spec, interval):
    """FORA counts from the last evaluation, or from the first midpoint where there are some."""
    if spec.first_counted:
        return at_interval(spec, interval)
    from_end = np.arange(spec.num_evaluations)[::-1]
    return (from_end % interval == 0) | (from_end == from_end.max())


def diffusers(spec, warmup, interval):
    """The first of those at an interval comes two after the last of the warm-up."""
    computed = [e for e in range(spec.num_evaluations) if e < warmup or (e - warmup - 1) % interval == 0]
    return mids_of(spec, computed)
