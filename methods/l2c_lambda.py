"""L2C whose budgets are met by lambda, the weight of its scores, at one threshold: a training for every value (Table 9)."""

from cachebench.engine.schedule import Schedule
from cachebench.plugin.routers import Optional

LAMBDAS = [0.0, *(factor * 10.0**-k for k in range(7, 3, -1) for factor in (1, 2, 5))]


class BudgetedByLambda(Optional):
    """A lambda of zero stands for the full run: nothing is trained. Thresholds are those that the paper infers with."""

    name = "L2C by lambda"
    reference = "arXiv:2406.01733"
    params = Optional.params | {"lambda": LAMBDAS, "threshold": [0.1]}
    knob = "lambda"

    @classmethod
    def grid(cls, spec):
        """In units of an element's error; a backbone that was released with their sum has as many times more."""
        summed = spec.arch.facts.ROUTERS["reduce"] == "sum"
        size = spec.arch.out_channels * spec.arch.input_size**2 if summed else 1
        lambdas = [float(f"{value * size:.3g}") for value in LAMBDAS]
        return super().grid(spec) | {"lambda": lambdas, "threshold": [0.9 if summed else 0.1]}

    def fit(self, problem):
        if getattr(self, "lambda"):
            return super().fit(problem)
        shape = (problem.spec.num_evaluations, 2 * problem.spec.arch.blocks)
        return {"routers": problem.latents.new_zeros(shape)}, [{"step": 0, "scores_sum": float(shape[1])}]

    def schedule(self, spec, state=None):
        return super().schedule(spec, state) if getattr(self, "lambda") else Schedule.full(spec)
