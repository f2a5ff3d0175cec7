"""A method on top of fewer steps: `fora@14` is FORA on a trajectory of 14 steps. No torch here."""

from dataclasses import replace


def on_fewer_steps(cls, steps):
    """The method `cls` on a trajectory of so many steps of the run's sampler. Budgets stay shares of the run's own trajectory,
    and errors are to its samples: so it stands beside caching all steps and beside fewer steps alone."""

    class OnFewerSteps(cls):
        __module__ = cls.__module__  # its id has the file's stem
        fewer = steps

        @classmethod
        def grid(cls, spec):
            return super().grid(spec.with_steps(steps))

        @classmethod
        def name_on(cls, spec):
            return super().name_on(spec.with_steps(steps))

        def supports(self, spec):
            if steps >= spec.num_steps:
                return f"The run itself takes {spec.num_steps} steps, so that {steps} are not fewer."
            return super().supports(spec.with_steps(steps))

        def sampler(self, spec):
            return super().sampler(spec.with_steps(steps))

        def breakpoints(self, spec, state):
            return super().breakpoints(spec.with_steps(steps), state)

    def fit(self, problem):
        return cls.fit(self, replace(problem, spec=problem.spec.with_steps(steps)))

    if cls.has_fit():
        OnFewerSteps.fit = fit
    return OnFewerSteps
