"""TCC: what FORA reuses first is rotated, scaled and shifted towards what would have been computed (arXiv:2605.24870).

Without the rotation the correction costs no products; with it they are charged."""

import numpy as np

from cachebench.engine.schedule import Schedule
from cachebench.plugin.refresh import at_interval
from cachebench.plugin.rotated import Rotated

LONGEST = 10  # interval


class TCC(Rotated):
    """One fit serves every interval: those that reuse the same up to the last corrected evaluation have the same corrections,
    with four of them all from 5 on."""

    name = "TCC"
    reference = "arXiv:2605.24870"
    params = {"interval": list(range(1, LONGEST + 1))} | Rotated.options
    ranges = Rotated.option_ranges | {"interval": (1, LONGEST)}
    knob = "interval"
    fit_params = tuple(Rotated.options)

    def schedule(self, spec, state=None):
        return Schedule.refresh(spec, at_interval(spec, self.interval))

    def window(self, spec, state):
        return reused(spec, self.interval, self.corrected)

    def hosts(self, spec):
        """The distinct beginnings of intervals, each as an interval that has it."""
        by_beginning = {}
        for interval in range(2, LONGEST + 1):
            by_beginning.setdefault(beginning(spec, interval, self.corrected), interval)
        return by_beginning

    def place(self, spec):
        return list(self.hosts(spec)).index(beginning(spec, max(self.interval, 2), self.corrected))

    def fit(self, problem):
        spec, hosts = problem.spec, []
        for interval in self.hosts(spec).values():
            hosts.append((Schedule.refresh(spec, at_interval(spec, interval)), reused(spec, interval, self.corrected)))
        return self.measured(problem, hosts)


def reused(spec, interval, count):
    """The first evaluations that are reused at an interval."""
    return np.setdiff1d(np.arange(spec.num_evaluations), at_interval(spec, interval))[:count].tolist()


def beginning(spec, interval, count):
    """What is computed up to the last corrected evaluation, and which are corrected."""
    window = reused(spec, interval, count)
    return tuple(e for e in at_interval(spec, interval) if window and e < window[-1]), tuple(window)
