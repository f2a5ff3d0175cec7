"""Step reduction: the same DPM-Solver with fewer steps, the baseline that caching must beat."""

from cachebench.plugin.method import Method

SAMPLERS = ("dpm_solver2", "dpm_solver_2m")


class FewerSteps(Method):
    name = "DPM-Solver, fewer steps"
    reference = "arXiv:2211.01095"
    kind = "control"
    params = {"num_steps": [10]}
    knob = "num_steps"

    @classmethod
    def grid(cls, spec):
        return {"num_steps": list(range(spec.num_steps, 0, -1))}

    def supports(self, spec):
        if spec.sampler not in SAMPLERS:
            return f"This baseline shortens DPM-Solver; the run's sampler is {spec.sampler}."

    def sampler(self, spec):
        return spec.with_steps(self.num_steps)
