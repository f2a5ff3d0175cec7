"""Step reduction: the same sampler with fewer steps, the baseline that caching must beat."""

from cachebench.plugin.method import Method


class FewerSteps(Method):
    name = "DDIM, fewer steps"
    reference = "arXiv:2010.02502"
    kind = "control"
    params = {"num_steps": [20]}
    knob = "num_steps"

    @classmethod
    def grid(cls, spec):
        return {"num_steps": list(range(spec.num_steps, 1, -1))}

    def supports(self, spec):
        if spec.sampler != "ddim":
            return f"This baseline shortens DDIM; the run's sampler is {spec.sampler}."

    def sampler(self, spec):
        return spec.with_steps(self.num_steps)
