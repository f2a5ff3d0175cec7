"""What L2C and its ablations share: pairs of evaluations, and trained routers with a threshold (arXiv:2406.01733)."""

from cachebench.engine.schedule import PAIRINGS, Schedule
from cachebench.engine.spec import samplers, solver
from cachebench.plugin.method import AMOUNT, COUNT, SHARE, Method
from cachebench.plugin.values import among

TAIL = [10.0**-k for k in (6, 5, 4, 3, 2)]  # U-ViT's logits are not clamped: many scores crowd at the ends


def refusal(spec, pairing=PAIRINGS[0]):
    """None, or the sentence that says why L2C's pairs of evaluations are not defined on `spec`, or why routers of all
    evaluations would have nothing to reuse."""
    paired = [name for name in samplers(spec.noise.prediction) if not getattr(solver(name), "STOCHASTIC", False)]
    if spec.sampler not in paired:
        return f"L2C pairs the evaluations of {', '.join(paired[:-1])} or {paired[-1]}; the run's sampler is {spec.sampler}."
    if pairing == "all":
        return None if spec.num_steps > 1 else "The first step computes everything, so one step is too few."
    two = "mid" in spec.plan.roles  # evaluations a step
    if not two and spec.num_steps % 2:
        return f"L2C pairs evaluations, so it needs an even num_steps, not {spec.num_steps}."
    if two and pairing == "shifted" and spec.num_steps == 1:
        return f"L2C reuses what the step before has computed, so one step of {spec.sampler} is too few."


# What L2C offers beside its own way, which the first values are (see `cachebench.fit.router.Way`).
WAYS = {
    "trained_on": ["images", "trajectories"],  # pairs from noised images; from noise, each iteration a whole trajectory
    "guidance": ["none", "run"],  # guided outputs are compared, on guided states
    "objective": ["plain", "cumulative", "leave_one_out"],  # what weights the error of an evaluation (HarmoniCa's lambda)
}


class Routed(Method):
    """Trained routers choose, for every second evaluation, which branches are skipped."""

    params = {
        "threshold": [0.0, *TAIL, *(round(0.02 * i, 2) for i in range(1, 50)), *(1 - t for t in reversed(TAIL)), 1.0],
        "lambda": [5e-6],  # on a run those that the backbone's facts name
        "iterations": [20_000],
        "lr": [1e-3],
        "batch_size": [64],
        "pairing": list(PAIRINGS),
    }
    ranges = {"threshold": SHARE, "lambda": AMOUNT, "iterations": COUNT, "lr": AMOUNT, "batch_size": COUNT}
    knob = "threshold"
    fit_params = ("lambda", "iterations", "lr", "batch_size", "pairing")
    trained = True
    drops = False  # True: a skipped branch contributes nothing, in training too

    @classmethod
    def grid(cls, spec):
        """L2C's published values; "unshifted" only where the config asks for it."""
        return cls.params | {"lambda": spec.arch.facts.ROUTERS["lambda"], "pairing": [PAIRINGS[0]]}

    def supports(self, spec):
        return refusal(spec, self.pairing)

    def fit(self, problem):
        from cachebench.fit.router import train_routers

        lambda_ = getattr(self, "lambda")
        return train_routers(problem, lambda_, self.iterations, self.lr, self.batch_size, self.pairing, self.drops)

    def schedule(self, spec, state=None):
        if state is None:  # nothing trained yet: nothing is skipped
            return Schedule.full(spec)
        if state["routers"].shape != (expected := (spec.num_evaluations, 2 * spec.arch.blocks)):
            raise ValueError(f"routers have shape {state['routers'].shape}, the run needs {expected}")
        return Schedule.from_routers(dict(enumerate(state["routers"])), self.threshold, spec.plan.roles, self.pairing)


class Optional(Routed):
    """L2C with the options of WAYS: what HarmoniCa changes, each by itself and in any combination (arXiv:2410.01723)."""

    params = Routed.params | WAYS
    fit_params = (*Routed.fit_params, *WAYS)

    @classmethod
    def grid(cls, spec):
        """L2C's own way, unless the config asks for another."""
        return cls.params | super().grid(spec) | {name: values[:1] for name, values in WAYS.items()}

    def fit(self, problem):
        from cachebench.fit.router import Way, train_routers

        for name, known in WAYS.items():
            among(name, getattr(self, name), known)
        way, lambda_ = Way(self.trained_on, self.guidance, self.objective), getattr(self, "lambda")
        return train_routers(problem, lambda_, self.iterations, self.lr, self.batch_size, self.pairing, way=way)
