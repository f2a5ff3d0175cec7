"""Spectrum: the final hidden state is forecast by a ridge fit of Chebyshev polynomials to all computed (arXiv:2603.01623)."""

from functools import lru_cache

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.chebyshev import Chebyshev
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.refresh import mids_of

FLEX = 0.75  # the paper's
GROWTHS = [*np.arange(0, 3, 0.25).tolist(), *np.geomspace(0.01, 256, 200).round(3).tolist()]


class Spectrum(Method):
    """After a warm-up it refreshes in a window that grows by `flex` with each refresh.

    `refreshes` asks for a number of them: the growth is then the one nearest to the paper's that makes so many, or the warm-up
    is another. This is ours, so that budgets are met. At 0 `flex` holds."""

    name = "Spectrum"
    reference = "arXiv:2603.01623"
    params = {
        "refreshes": [0],
        "flex": [FLEX],
        "warmup": [5],
        "window": [2],
        "degree": [4],  # of the polynomials
        "ridge": [0.1],
        "weight": [1.0],  # of the fit; the rest is that of the line through the last two
        "length": [50],  # evaluations of the polynomials' interval, as released at any number of steps
        "unit": ["trunk"],  # or every "branch"
        "distance": ["index"],  # or "t", "sigma", "logsnr"
    }
    ranges = {
        **dict.fromkeys(("refreshes", "flex", "ridge", "degree"), AMOUNT),
        **dict.fromkeys(("warmup", "window", "length"), COUNT),
        "weight": SHARE,
    }
    knob = "refreshes"

    @classmethod
    def grid(cls, spec):
        counts = reached(spec.num_evaluations, cls.params["warmup"][0], cls.params["window"][0])
        return cls.params | {"refreshes": sorted(counts, reverse=True)}

    @property
    def forecasts(self):
        return self.unit

    @property
    def forecaster(self):
        return Chebyshev(self.degree, self.ridge, self.weight, self.length)

    def schedule(self, spec, state=None):
        T, warmup, flex = spec.num_evaluations, self.warmup, self.flex
        if self.refreshes:
            counts = reached(T, warmup, self.window)
            warmup, flex = counts[max((n for n in counts if n <= self.refreshes), default=min(counts))]
        return Schedule.refresh(spec, mids_of(spec, refreshes(T, warmup, self.window, flex)))


def refreshes(T, warmup, window, flex):
    """Of T evaluations those that are computed, as released: after each refresh beyond the warm-up the window grows."""
    computed = list(range(min(warmup, T)))
    following = computed[-1] + int(window)
    while following < T:
        computed.append(following)
        window = round(window + flex, 3)
        following += int(window)
    return computed


@lru_cache
def reached(T, warmup, window):
    """{number of refreshes: (warm-up, growth of the window)}, of all numbers that can be reached; the given warm-up first."""
    tried = [(warmup, flex) for flex in sorted(GROWTHS, key=lambda flex: abs(flex - FLEX))]
    tried += [(longer, 0.0) for longer in range(warmup + 1, T + 1)]
    tried += [(shorter, max(GROWTHS)) for shorter in range(warmup - 1, 0, -1)]
    by_count = {}
    for setting in tried:
        by_count.setdefault(len(refreshes(T, setting[0], window, setting[1])), setting)
    return by_count
