"""EB-Cache: a table says whether attentions, MLPs or both are reused, and the predicted noise is scaled (arXiv:2503.07120).

Reuse makes the predicted noise larger than it should be, which the factor takes back (Eq. 3). The table is searched on
calibration samples: an evaluation reuses both where the scaled noise keeps its norm within a bound, else one of the two, MLPs
while the image is mostly noise and attentions later, else nothing. No search was released; its bound and its vote are ours."""

import numpy as np

from cachebench.engine import cost
from cachebench.engine.doors import ScheduledSession
from cachebench.engine.noise import TRAIN_STEPS
from cachebench.engine.schedule import Schedule
from cachebench.engine.spec import samplers
from cachebench.plugin.method import AMOUNT, COUNT, Method
from cachebench.plugin.values import allowed

TOLERANCES = [0.0, *np.geomspace(0.002, 3, 24).round(5).tolist()]
SCALES = ("paper", "constant", "none")
THRESHOLD, HIGH, LOW = 0.4, 0.98, 0.96  # of Eq. 3
REUSED = np.array([(False, False), (True, False), (True, True), (False, True)])  # attn and mlp in the states 0 to 3
RELEASED = "0220222022202020202020202020" + "0" * 22  # states of 50 evaluations, the cleanest first


class EBCache(Method):
    """`tolerance` 0 is the run without the method: nothing is reused, and nothing scaled. From there on the table is the
    cheapest of those that were searched with a tolerance up to it, of equals that of the largest."""

    name = "EB-Cache"
    reference = "arXiv:2503.07120"
    params = {
        "tolerance": TOLERANCES,  # of a norm, as a share of unit noise's, at pure noise; it falls to 0 with the time
        "table": ["searched", "released"],
        "scale": list(SCALES[:1]),  # "constant" divides by delta, as released: the other way than the paper
        "delta": [0.965],
        "samples": [8],
    }
    ranges = {"tolerance": AMOUNT, "delta": AMOUNT, "samples": COUNT}
    knob = "tolerance"
    variants = "table"
    fit_params = ("scale", "delta", "samples")

    @classmethod
    def grid(cls, spec):
        return cls.params | ({"tolerance": [0.0, 1.0]} if cls.fixed.get("table") == "released" else {})

    @classmethod
    def has_fit(cls):
        return cls.fixed.get("table") != "released"

    def supports(self, spec):
        if spec.noise.prediction != "noise":
            return f"It scales a predicted noise, and this network predicts a {spec.noise.prediction}."
        evaluations = spec.num_evaluations if spec.sampler in samplers() else 0
        if self.table == "released" and evaluations != len(RELEASED):
            return f"The released table is of {len(RELEASED)} evaluations, and this run has {evaluations}."

    def fit(self, problem):
        from .search import tables

        return tables(problem, self.samples, TOLERANCES[1:], self.factors(problem.spec), THRESHOLD)

    def states(self, spec, state):
        """The state 0 to 3 of every evaluation."""
        none = np.zeros(spec.num_evaluations, int)
        if not self.tolerance:
            return none
        if self.table == "released":
            return np.array([int(digit) for digit in RELEASED[::-1]])
        if state is None:  # nothing is searched yet
            return none
        if state["tables"].shape[1:] != none.shape:
            raise ValueError(f"tables have shape {state['tables'].shape[1:]}, the run needs {none.shape}")
        within = [none, *state["tables"][state["tolerances"] <= self.tolerance * (1 + 1e-6)].astype(int)]  # stored in float32
        return min(within[::-1], key=lambda table: cost.image_macs(spec, cost.mask_rows(mask(table, spec))))

    def factors(self, spec):
        """What the predicted noise of every evaluation is multiplied by."""
        times = np.array(spec.plan.timesteps) / TRAIN_STEPS
        of_scale = {"paper": bias(times), "constant": np.full(len(times), 1 / self.delta), "none": np.ones(len(times))}
        return allowed("scale", self.scale, of_scale).tolist()

    def schedule(self, spec, state=None):
        return Schedule(mask(self.states(spec, state), spec))

    def rows(self, spec, state=None):
        return cost.mask_rows(self.schedule(spec, state).compute)

    def store_values(self, spec, state=None):
        return self.schedule(spec, state).store_values()

    def session(self, model, spec, state=None):
        factors = self.factors(spec) if self.tolerance else [1.0] * spec.num_evaluations
        return EBSession(self.schedule(spec, state), factors, spec.arch.channels)


def bias(t):
    """b(t) of Eq. 3, t from 0, data, to 1, pure noise."""
    early = HIGH + (1 - HIGH) * np.exp(-5 * (1 - t) / (1 - THRESHOLD))
    late = LOW + (HIGH - LOW) * np.exp(5 * (t - THRESHOLD) / (1 - THRESHOLD))
    return np.where(t >= THRESHOLD, early, late)


def mask(table, spec):
    """Compute mask of the states `table` [evaluations], common to all blocks."""
    return np.broadcast_to(~REUSED[table][:, None], spec.mask_shape).copy()


class EBSession(ScheduledSession):
    def __init__(self, schedule, factors, channels):
        self.factors, self.channels = factors, channels
        super().__init__(schedule)

    def output(self, out):
        """The variance that some networks predict is not scaled."""
        if (factor := self.factors[self.evaluation]) == 1:
            return out
        out = out.clone()
        out[:, : self.channels] *= factor
        return out
