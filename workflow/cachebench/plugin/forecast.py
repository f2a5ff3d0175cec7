"""What stands in for a skipped value. A schedule says when a value is computed; a forecaster, what is taken where it is not.

A method list may name both: `fora+taylor2` is FORA's schedule with a Taylor forecast of second order of every branch, and
`fora+final_taylor2` with one of the final hidden state. No torch here."""

import re
from itertools import accumulate
from math import factorial
from operator import mul

import numpy as np

from cachebench.plugin.chebyshev import Chebyshev
from cachebench.plugin.forecaster import Forecaster
from cachebench.plugin.modes import Modes
from cachebench.plugin.values import among

DOORS = ("branch", "trunk", "output")  # where a forecaster stands in: for a branch, the final hidden state, the guided output
DISTANCES = ("index", "t", "sigma", "logsnr")  # what the distance of two evaluations is measured in


class Differences(Forecaster):
    """A sum of differences of the last computed values, up to an order that grows by one with each of them.

    They are formed when a value is computed, not when one is skipped: either takes one pass over memory for each order. What
    is held of a difference is without its divisor, which the places say."""

    name = ""

    def __init__(self, order):
        self.order = order

    def __str__(self):
        return f"{self.name}, order {self.order}"

    @property
    def values(self):
        """Tensors that are held at most."""
        return self.order + 1

    def held(self, computed):
        return np.minimum(computed, self.values)

    def keep(self, kept, value, position):
        before, known = kept or ([], [])
        places, factors = [position, *before][: self.values], [value]  # newest first
        divisors, earlier = self.divisors(places), self.divisors(before)
        for j, factor in enumerate(known[: self.order]):
            factors.append(factors[-1].sub(factor, alpha=divisors[j] / earlier[j]))
        return places, factors

    def stand_in(self, kept, position):
        places, factors = kept
        pairs = zip(self.weights(places, position), self.divisors(places)[1 : len(factors)], strict=False)
        weights = [weight / divisor for weight, divisor in pairs]
        if not weights:
            return factors[0]
        value = factors[0].add(factors[1], alpha=weights[0])
        for factor, weight in zip(factors[2:], weights[1:], strict=True):
            value.add_(factor, alpha=weight)
        return value

    def divisors(self, places):
        """What the differences of order 0, 1, ... are divided by, as many as there are places."""
        spans = (self.span(places, j) for j in range(len(places) - 1))
        return list(accumulate(spans, mul, initial=1.0))

    def span(self, places, j):
        """What the difference of order j + 1 is divided by."""
        return places[0] - places[1]

    def weights(self, places, position):
        """What the differences of order 1, 2, ... are multiplied by at a position."""
        raise NotImplementedError


class Taylor(Differences):
    """A Taylor expansion along the evaluations (TaylorSeer, arXiv:2503.06923, Eqs. 4 to 6). As there, a difference of any order
    is over the distance of the last two computed values."""

    name = "Taylor"

    def weights(self, places, position):
        distance = position - places[0]
        return [distance**j / factorial(j) for j in range(1, self.order + 1)]


class Newton(Differences):
    """Newton's divided differences: exact for polynomials of its order, at any spacing."""

    name = "Newton"

    def span(self, places, j):
        return places[0] - places[j + 1]

    def weights(self, places, position):
        return np.cumprod([position - place for place in places], dtype=float).tolist()


class Hermite(Differences):
    """Taylor's differences with scaled Hermite polynomials, the physicists', for monomials (HiCache, arXiv:2508.16984)."""

    name = "Hermite"

    def __init__(self, order, scale=0.5):
        super().__init__(order)
        self.scale = scale

    def weights(self, places, position):
        x, values = self.scale * (position - places[0]), [1.0, 0.0]  # H_k(x), and the H_(k - 1) that the recursion begins with
        weights = []
        for k in range(1, self.order + 1):
            values = [2 * x * values[0] - 2 * (k - 1) * values[1], values[0]]
            weights.append(self.scale**k * values[0] / factorial(k))
        return weights


class FoCa(Forecaster):
    """A step along the mean of two slopes: of the last two computed values, and of the last two values whether computed or not,
    which is as far as the corrector goes (FoCa, arXiv:2508.16211, in cache-dit's form). Beyond `REACH` it is damped.

    cache-dit does not divide the slopes by the distance of their values; `by_distance` does. Values that follow each other are
    one evaluation apart, so that by the index it is about the first slope alone."""

    REACH = 3

    def __init__(self, by_distance=False):
        self.by_distance = by_distance

    def __str__(self):
        return "FoCa (cache-dit's form)"

    def held(self, computed):
        return np.where(np.asarray(computed) < 2, computed, 4)

    def keep(self, kept, value, position):
        """The last computed place, value and slope; the last two values, computed or not, the place of the later one and their
        distance."""
        if not kept:
            return position, value, None, value, None, position, 1
        place, last, _, newest, _, at, _ = kept
        slope = (value - last) / (position - place) if self.by_distance else value - last
        return position, value, slope, value, newest, position, position - at

    def stand_in(self, kept, position):
        place, last, slope, newest, before, _, apart = kept
        if slope is None:
            return last
        distance = position - place
        share = min(distance, self.REACH) / 2 * min(1, self.REACH / distance)
        of_pair = share / apart if self.by_distance else share
        return last.add(slope, alpha=share).add_(newest, alpha=of_pair).sub_(before, alpha=of_pair)

    def recall(self, kept, value, position):
        place, last, slope, newest, _, at, _ = kept
        return place, last, slope, value, newest, position, position - at


FORMS = {
    r"taylor([0-4])": lambda order: Taylor(int(order)),
    "linear": lambda: Taylor(1),
    r"newton([1-4])": lambda order: Newton(int(order)),
    r"hermite([1-4])": lambda order: Hermite(int(order)),
    "foca": FoCa,
    "spectrum": Chebyshev,
    "dmd": Modes,
}
NAMES = ("taylor0 to taylor4", "linear", "newton1 to newton4", "hermite1 to hermite4", "foca", "spectrum", "dmd")
FINAL = "final_"  # before a forecaster's name: of the final hidden state


def named(name):
    """The forecaster of a method list's `schedule+name`. ValueError names those that there are."""
    for form, make in FORMS.items():
        if matched := re.fullmatch(form, name.removeprefix(FINAL)):
            return make(*matched.groups())
    raise ValueError(f"forecaster {name!r}: allowed are {', '.join(NAMES)}; {FINAL} before it for the final hidden state")


def door(name):
    """Where the forecaster of that name stands in."""
    return "trunk" if name.startswith(FINAL) else "branch"


def positions(spec, distance):
    """Where each evaluation stands, so that distances are in evaluations, in model time, in the noise b, or in log(a / b) of
    the plan; the whole trajectory is as long in all of them. ValueError for another `distance`, and for one in which two
    evaluations that follow each other are not a finite distance apart."""
    plan, last = spec.plan, spec.num_evaluations - 1
    among("distance", distance, DISTANCES)
    if distance == "index" or not last:
        return list(range(last + 1))
    a, b = (np.array(level[: last + 1]) for level in (plan.signal, plan.noise))
    with np.errstate(divide="ignore"):
        times = {"t": -np.array(plan.timesteps), "sigma": b, "logsnr": np.log(a) - np.log(b)}[distance]
    if len(wrong := np.flatnonzero(~np.isfinite(moved := np.diff(times)) | (moved == 0))):
        raise ValueError(
            f"distance: {distance} has no step from evaluation {wrong[0]} to the next on {spec.sampler}; index has"
        )
    return ((times - times[0]) / (times[-1] - times[0]) * last).tolist()
