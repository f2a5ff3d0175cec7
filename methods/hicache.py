"""HiCache: every branch is forecast with scaled Hermite polynomials, at TaylorSeer's refreshes (arXiv:2508.16984)."""

from cachebench.engine.schedule import Schedule
from cachebench.plugin.forecast import Hermite
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.refresh import after_warmup, warmups


class HiCache(Method):
    """Of order 1 it is TaylorSeer with its slope times twice the square of `scale`: one half of it at the default. The first
    `warmup` evaluations are computed, and from there on every `interval`-th."""

    name = "HiCache"
    reference = "arXiv:2508.16984"
    params = {
        "interval": list(range(1, 11)),
        "order": [2],
        "scale": [0.5],
        "warmup": [2],
        "unit": ["branch"],  # or the "trunk"; or the "output", after guidance, as hicache-pp has it on DiT
        "distance": ["index"],  # or "t", "sigma", "logsnr"
    }
    ranges = {"interval": COUNT, "order": AMOUNT, "scale": AMOUNT, "warmup": COUNT}
    knob = "interval"

    @classmethod
    def grid(cls, spec):
        return cls.params | {"warmup": warmups(spec, cls.params["warmup"][0])}

    @property
    def forecaster(self):
        return Hermite(self.order, self.scale)

    @property
    def forecasts(self):
        return self.unit

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, after_warmup(spec, self.warmup, self.interval))
