"""MagCache: the blocks are skipped as long as the magnitudes of their residual say that little is lost (arXiv:2506.09045).

The residual is what all blocks add to the stream. The ratio of its magnitude to that of the evaluation before hardly depends on
the sample, so that one calibration run is enough. What a skip loses is estimated by the product of the ratios since all was
computed last; the plan is known before anything is sampled."""

from functools import lru_cache
from math import inf, nextafter

from cachebench.plugin.method import AMOUNT, COUNT, SHARE
from cachebench.plugin.stack import VALUES, StackMethod
from cachebench.plugin.values import among

FORMS = ("diffusers", "Wan")  # an error as large as the threshold may be skipped; it may not


class MagCache(StackMethod):
    """The rule is not quite monotone: with a larger threshold it may compute more. So that cost falls with the threshold, the
    plan is the cheapest of all up to it, of equals the one at the largest: ours."""

    name = "MagCache"
    reference = "arXiv:2506.09045"
    params = {
        "threshold": [0.0, *(round(1.08**k / 1000, 6) for k in range(110))],
        "max_skips": [3, 2, 5, 8, 12],  # evaluations in a row
        "retention": [0.2, 0.1],  # share of the evaluations, at the start, that compute
        "samples": [16],
        "form": list(FORMS[:1]),
        "value": list(VALUES)[:1],
    }
    ranges = {"threshold": AMOUNT, "max_skips": AMOUNT, "retention": SHARE, "samples": COUNT}
    knob = "threshold"
    fit_params = ("samples",)

    def fit(self, problem):
        from cachebench.fit.residuals import magnitude_ratios

        ratios = magnitude_ratios(problem, self.samples)
        return {"ratios": ratios}, [{"evaluation": e, "ratio": ratio} for e, ratio in enumerate(ratios.tolist())]

    def chosen(self, spec, state):
        if state is None or not self.threshold:  # nothing is calibrated yet, or nothing may be lost
            return range(spec.num_evaluations)
        return next(plan for least, plan in reversed(self.plans(spec, state)) if least <= self.threshold)

    def breakpoints(self, spec, state):
        return {least for least, _ in self.plans(spec, state)[1:]}

    def plans(self, spec, state):
        """[(threshold, evaluations that compute)], ascending: from there on this plan is the cheapest."""
        if state["ratios"].shape != (spec.num_evaluations,):
            raise ValueError(f"ratios have shape {state['ratios'].shape}, the run needs {(spec.num_evaluations,)}")
        among("form", self.form, FORMS)
        return cheapest(tuple(state["ratios"].tolist()), self.max_skips, self.first(spec), self.form == "diffusers")

    def first(self, spec):
        """The first evaluation that may be skipped."""
        retained = int(self.retention * spec.num_evaluations + (0.5 if self.form == "diffusers" else 0))
        return max(retained, spec.first_counted + 1)


def walk(ratios, threshold, max_skips, first, equal):
    """(evaluations that compute, the estimated error of every evaluation that might have been skipped)."""
    computed, errors = [], []
    product, error, skips = 1.0, 0.0, 0
    for evaluation, ratio in enumerate(ratios):
        if evaluation >= first:
            product, skips = product * ratio, skips + 1
            error += abs(1 - product)
            if skips <= max_skips:
                errors.append(error)
                if error < threshold or (equal and error == threshold):
                    continue
        computed.append(evaluation)
        product, error, skips = 1.0, 0.0, 0
    return tuple(computed), errors


@lru_cache
def cheapest(ratios, max_skips, first, equal):
    """Every plan of `walk` whose threshold no smaller one undercuts, with that threshold, ascending."""
    plans, threshold = [(0.0, tuple(range(len(ratios))))], 0.0
    while True:
        computed, errors = walk(ratios, threshold, max_skips, first, equal)
        if len(computed) <= len(plans[-1][1]) and computed != plans[-1][1]:
            plans.append((threshold, computed))
        larger = [error for error in errors if error > threshold or (error == threshold and not equal)]
        if not larger:
            return plans
        threshold = min(larger) if equal else nextafter(min(larger), inf)
