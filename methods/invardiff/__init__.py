"""InvarDiff: whole evaluations, and single branches, are reused where calibrated changes hardly grow (arXiv:2512.05134).

A rate of change is how far a feature moves in an evaluation over how far it moved in the one before. What is below a quantile
of all rates is reused; then the rates are measured once more against what the first plan would still have (`resample`). A
reused evaluation takes the stream behind the blocks as it was. On U-ViT, whose time enters as a token, it predicts the noise
of the evaluation before."""

from pathlib import Path

from cachebench.engine import cost
from cachebench.engine.schedule import Schedule
from cachebench.files.atomic import placed
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method

from .plan import Plan, PlanSession, cheapest


class InvarDiff(Method):
    """`scale` multiplies the quantiles, which are the released ones. A larger one may give a dearer plan; so that cost falls,
    the plan is the cheapest of the scales up to it, of equals that of the largest: ours. `released` reads plans from files."""

    name = "InvarDiff"
    reference = "arXiv:2512.05134"
    params = {
        "scale": [round(0.01 * i, 2) for i in range(165)],
        "plan": ["calibrated", "released"],
        "q_step": [0.61],
        "q_msa": [0.20],
        "q_mlp": [0.20],
        "warmup": [0.0],  # share of the evaluations, at the start, that compute everything
        "resample": [1],  # 0: the first plan is the last
        "shift": [0],  # 1: a rate decides for the evaluation in which it was measured; as released, for the one before
        "samples": [16],
        "path": [""],  # of the released plan, from the project's folder
    }
    ranges = dict.fromkeys(("q_step", "q_msa", "q_mlp", "warmup"), SHARE)
    ranges |= {"scale": AMOUNT, "resample": (0, 1), "shift": (0, 1), "samples": COUNT}
    knob = "scale"
    variants = "plan"
    knobs = {"released": "path"}
    fit_params = ("samples",)

    @classmethod
    def grid(cls, spec):
        return cls.params | ({"scale": [1.0]} if cls.fixed.get("plan") == "released" else {})

    @classmethod
    def has_fit(cls):
        return cls.fixed.get("plan") != "released"

    def supports(self, spec):
        if self.plan == "released" and not self.path:
            return "No plan is given: name the files under params.invardiff.released.path."

    def fit(self, problem):
        from .distances import between_evaluations

        return between_evaluations(problem, self.samples)

    def planned(self, spec, state):
        """The Plan of a run."""
        if self.plan == "released":
            return Plan.from_json(Path(placed(self.path)).read_text(), spec, self.path) if self.path else Plan.full(spec)
        if state is None:  # nothing is calibrated yet
            return Plan.full(spec)
        evaluations, blocks, branches = spec.mask_shape
        expected = (evaluations, evaluations, 1 + branches * blocks)
        if state["distances"].shape[1:] != expected:
            raise ValueError(f"distances have shape {state['distances'].shape[1:]}, the run needs {expected}")
        first = max(1, int(self.warmup * evaluations), spec.first_counted + 1)
        quantiles = (self.q_step, self.q_msa, self.q_mlp)
        scales = tuple(self.params["scale"])
        return cheapest(state["distances"], spec, scales, self.scale, (quantiles, first, bool(self.resample), self.shift))

    def schedule(self, spec, state=None):
        return Schedule(self.planned(spec, state).compute)

    def rows(self, spec, state=None):
        plan = self.planned(spec, state)
        return cost.mask_rows(plan.compute, entered=plan.entered)

    def store_values(self, spec, state=None):
        plan = self.planned(spec, state)
        return max(plan.branches.store_values(), int(plan.skipped.any()))

    def session(self, model, spec, state=None):
        return PlanSession(self.planned(spec, state))
