"""Optimal steps: a path search picks the evaluations that compute all blocks, as LeMiCa and DPCache do.

LeMiCa (arXiv:2511.00090) measures what reusing one evaluation up to another does to the sample, and picks the list whose worst
reuse is mildest, then the second worst, and so on. What stands in is the blocks' residual; in `lemica_linear`, ours, the line
through the last two hidden states behind the blocks. DPCache (arXiv:2602.22654, as sglang has it) stands in by that line too,
and adds up its errors in the hidden states of one full run."""

from functools import lru_cache

from cachebench.plugin.method import AMOUNT, COUNT
from cachebench.plugin.stack import StackMethod
from cachebench.plugin.values import allowed, among

VALUE = {"lemica": "residual", "lemica_linear": "hidden_linear", "dpcache": "hidden_linear"}
CRITERIA, ERRORS = ("leximax", "sum"), ("absolute", "square")


class OptimalSteps(StackMethod):
    name = "Optimal steps"
    reference = "arXiv:2511.00090, arXiv:2602.22654"
    params = {
        "computed": [20],  # evaluations
        "plan": list(VALUE),
        "gap": [8],  # largest distance of two computed evaluations; 0: any
        "samples": [8],
        "criterion": list(CRITERIA[:1]),  # of LeMiCa; "sum" adds the errors up
        "error": list(ERRORS[:1]),  # of LeMiCa: the mean of the sample's absolute or squared error
        "lead": [3],  # of DPCache: evaluations at the start that compute
        "last": [0],  # of DPCache; 1: the last evaluation computes too
    }
    ranges = {"computed": COUNT, "gap": AMOUNT, "samples": COUNT, "lead": (2, AMOUNT[1]), "last": (0, 1)}
    knob = "computed"
    variants = "plan"
    fit_params = ("gap", "samples", "error")

    @classmethod
    def grid(cls, spec):
        dpcache = cls.fixed.get("plan") == "dpcache"
        grid = cls.params | ({"gap": [0]} if dpcache else {})
        made = cls(gap=grid["gap"][0])
        return grid | {"computed": list(range(spec.num_evaluations, made.fewest(spec.num_evaluations) - 1, -1))}

    @property
    def value(self):
        return allowed("plan", self.plan, VALUE)

    def fit(self, problem):
        from .errors import of_hidden_states, of_samples

        if self.plan == "dpcache":
            return of_hidden_states(problem, self.samples)
        among("error", self.error, ERRORS)
        gap = self.gap or problem.spec.num_evaluations
        return of_samples(problem, self.samples, gap, self.kept(), self.error)

    def fewest(self, evaluations):
        """The least number of evaluations that keeps to the gap."""
        if self.plan == "dpcache":
            lead = min(self.lead, evaluations)
            ahead = evaluations - lead + (0 if self.last else 1 - (self.gap or evaluations))  # from the last of them on
            return lead + max(-(-ahead // (self.gap or evaluations)), int(bool(self.last and lead < evaluations)), 0)
        return 1 + -(-(evaluations - 1) // (self.gap or evaluations))

    def chosen(self, spec, state):
        evaluations = spec.num_evaluations
        if state is None:  # nothing is calibrated yet
            return range(evaluations)
        errors, shape = state["errors"], (evaluations,) * (3 if self.plan == "dpcache" else 2)
        if errors.shape != shape:
            raise ValueError(f"errors have shape {errors.shape}, the run needs {shape}")
        if not (fewest := self.fewest(evaluations)) <= self.computed <= evaluations:
            raise ValueError(f"computed: {self.computed} is outside {fewest} to {evaluations}, with gap {self.gap}")
        rule = (self.plan == "dpcache", self.gap, self.criterion, self.lead, bool(self.last))
        return plans(errors.tobytes(), errors.shape, str(errors.dtype), *rule)[self.computed]


@lru_cache(maxsize=4)
def plans(content, shape, dtype, dpcache, gap, criterion, lead, last):
    """{number of computed evaluations: them} of the errors whose bytes are `content`."""
    import numpy as np

    from .paths import by_edges, by_pairs

    errors = np.frombuffer(content, dtype).reshape(shape)
    gap = gap or shape[0]
    if dpcache:
        return {count: steps for count, (_, steps) in by_pairs(errors, lead, gap, last).items()}
    among("criterion", criterion, CRITERIA)
    return by_edges(errors, gap, criterion)
