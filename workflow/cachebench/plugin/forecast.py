"""What stands in for a skipped value. A schedule says when a value is computed; a forecaster, what is taken where it is not.

A method list may name both: `fora+taylor2` is FORA's schedule with a Taylor forecast of second order."""

import re
from math import factorial

import numpy as np

from cachebench.engine.doors import ScheduledSession
from cachebench.engine.spec import BRANCHES


class Taylor:
    """A Taylor expansion of every branch's value along the evaluations (TaylorSeer, arXiv:2503.06923, Eqs. 4 to 6).

    The derivatives are differences of the last computed values, over the number of evaluations between the last two; an order
    comes with each computed value, up to `order`. They are formed when a value is computed, not when one is skipped."""

    def __init__(self, order):
        self.order = order

    def __str__(self):
        return f"Taylor, order {self.order}"

    @property
    def values(self):
        """Tensors that are held for a branch."""
        return self.order + 1

    def keep(self, kept, value, evaluation):
        """What is held after a `value` was computed; `kept` is what was held before, or None."""
        factors = [value]
        if kept:
            last, before = kept
            for factor in before[: self.order]:
                factors.append((factors[-1] - factor) / (evaluation - last))
        return evaluation, factors

    def stand_in(self, kept, evaluation):
        last, factors = kept
        value, distance = factors[0], evaluation - last
        for j, factor in enumerate(factors[1:], 1):
            value = value.add(factor, alpha=distance**j / factorial(j))
        return value


FORMS = {r"taylor([0-4])": lambda order: Taylor(int(order)), "linear": lambda: Taylor(1)}
NAMES = ("taylor0 to taylor4", "linear")


def named(name):
    """The forecaster of a method list's `schedule+name`. ValueError names those that there are."""
    for form, make in FORMS.items():
        if found := re.fullmatch(form, name):
            return make(*found.groups())
    raise ValueError(f"forecaster {name!r}: allowed are {', '.join(NAMES)}")


class ForecastSession(ScheduledSession):
    """Runs a static schedule, and takes what the forecaster says for a skipped value."""

    def __init__(self, schedule, forecaster):
        self.forecaster = forecaster
        evaluations = np.arange(len(schedule.compute))[:, None, None]
        self.last_skipped = np.where(schedule.compute, -1, evaluations).max(axis=0).tolist()  # of every branch; -1: never
        super().__init__(schedule)

    def reset(self):
        self.kept = {}

    def read_later(self, i, name):
        """Whether a later evaluation skips this branch."""
        return self.last_skipped[i][BRANCHES.index(name)] > self.evaluation

    def branch(self, i, name, h, run):
        now, site = self.evaluation, (i, name)
        if self.computes(i, name):
            value = run(h)
            if self.read_later(i, name):
                self.kept[site] = self.forecaster.keep(self.kept.get(site), value, now)
        else:
            value = self.forecaster.stand_in(self.kept[site], now)
        if not self.read_later(i, name):
            self.kept.pop(site, None)
        return value


def held(schedule, forecaster):
    """Branch values that are held at the fullest, known before anything runs."""
    compute = schedule.compute  # bool [evaluations, blocks, branches]
    skipped_later = (~compute)[::-1].cumsum(axis=0)[::-1] > 0
    computed = np.minimum(compute.cumsum(axis=0), forecaster.values)
    return int((computed[:-1] * skipped_later[1:]).sum(axis=(1, 2)).max(initial=0))
