"""Learning-to-Cache: trained routers choose, for every second evaluation, which branches to reuse (arXiv:2406.01733)."""

from cachebench.method import Method
from cachebench.schedule import Schedule, router_keys


class L2C(Method):
    name = "L2C"
    reference = "arXiv:2406.01733"
    params = {
        "threshold": [round(0.02 * i, 2) for i in range(50)],
        "lambda": [5e-6, 1e-6],
        "iterations": [20_000],
        "lr": [1e-3],
        "batch_size": [64],
    }
    knob = "threshold"
    fit_params = ("lambda", "iterations", "lr", "batch_size")

    def supports(self, spec):
        if spec.sampler != "ddim":
            return f"L2C's pairs are defined for DDIM here; the run's sampler is {spec.sampler}."
        if spec.num_steps % 2:
            return f"L2C pairs evaluations, so it needs an even num_steps, not {spec.num_steps}."

    def fit(self, problem):
        from cachebench.train.router import train_routers

        return train_routers(problem, getattr(self, "lambda"), self.iterations, self.lr, self.batch_size)

    def schedule(self, spec, state=None):
        roles = spec.plan.roles
        if state is None:  # nothing trained yet: nothing is reused
            return Schedule.full(spec)
        if state["routers"].shape != (expected := (len(roles), 2 * spec.arch.depth)):
            raise ValueError(f"routers have shape {state['routers'].shape}, the run needs {expected}")
        logits = {key: state["routers"][key] for key in router_keys(roles).values()}
        return Schedule.from_routers(logits, self.threshold, roles)
