"""Step reduction: the same sampler with fewer steps, the baseline that caching must beat."""

from cachebench.plugin.method import COUNT, Method


class FewerSteps(Method):
    name = "Fewer steps"
    kind = "control"
    params = {"num_steps": [20]}
    ranges = {"num_steps": COUNT}
    knob = "num_steps"

    @classmethod
    def name_on(cls, spec):
        return f"{spec.solver.NAME}, fewer steps"

    @classmethod
    def grid(cls, spec):
        """Down to one step, or to two where a single one would not start from noise, as DDIM's does not."""
        alone, start = (spec.with_steps(n).plan.timesteps[0] for n in (1, spec.num_steps))
        return {"num_steps": list(range(spec.num_steps, 0 if alone == start else 1, -1))}

    def sampler(self, spec):
        return spec.with_steps(self.num_steps)
